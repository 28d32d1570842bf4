"""MilvusEngine: one index version that a Milvus cluster holds.

For a batch of queries it asks three times: who is near by vectors, who by BM25, and what BM25 says of those that only
the vectors proposed. Then it fetches the candidates' texts and vectors and scores them against the query itself, pair
by pair in float64: an index that is approximate, or keeps fewer bits, decides who is proposed and moves no score.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qrelay.errors import BackendTimeout, BackendUnavailable, OnHold, RateLimited
from qrelay.index.documents import read_metadata
from qrelay.index.engine import Found, Vectors
from qrelay.index.milvus.client import Absent, Milvus, Unloaded, Unreachable
from qrelay.index.milvus.layout import (
    DOC_ID,
    METADATA,
    NUMBER,
    ROW,
    SPARSE,
    TEXT,
    TITLE,
    VECTOR,
    Kept,
    constants,
    search_params,
)
from qrelay.index.ranking import Depths, fuse
from qrelay.naming import passage_name
from qrelay.types import BM25, DENSE, Candidate, Passage, Score

MOST_HITS: Final = 16_384
"""Of one query, in Milvus."""
_SPARE: Final = 50
"""Hits beyond a system's depth, so that qrelay and not Milvus says which of equal scores come first."""
_BATCH: Final = 32
_HOLD_S: Final = 5.0
_FETCH_BYTES: Final = 16 * 1024**2
_TEXT_BYTES: Final = 2048
"""Of a passage, about."""
Scores = dict[int, float]
"""row -> score"""


@dataclass(frozen=True, slots=True)
class _Row:
    passage: Passage
    order: tuple[bytes, int]
    """Document and number, by which ties are broken."""
    vector: Vectors


class MilvusEngine:
    """See the module. Searches one collection by its own name, whatever its alias names meanwhile."""

    name = "milvus"

    def __init__(self, milvus: Milvus, kept: Kept, depths: Depths) -> None:
        """Raises CorpusIndexError: this qrelay lacks the tokenizer of its terms."""
        self._milvus, self._kept, self._depths = milvus, kept, depths
        facts = kept.manifest
        self._tokenize = facts.tokenize(Path("index", facts.collection, facts.version))
        self._scale = 1 + constants(facts)[0]

    @property
    def version(self) -> str:
        return self._kept.manifest.version

    @property
    def embedder(self) -> str:
        return self._kept.manifest.embedder

    def describe(self) -> dict[str, str]:
        facts, settings = self._kept.manifest, self._milvus.settings
        return {
            "version": facts.version,
            "embedder": facts.embedder,
            "bm25_tokenizer": facts.tokenizer,
            "documents": str(facts.documents),
            "passages": str(facts.passages - facts.removed),
            "milvus": settings.uri,
            "milvus_collection": self._kept.name,
        }

    def search(self, texts: Sequence[str], vectors: Vectors | None, limit: int) -> Found:
        """
        Raises:
            OnHold: Milvus does not answer, is overloaded, or must load the version first: no query is to blame.
            BackendUnavailable: another failure of Milvus.
        """
        if vectors is None:
            raise ValueError("the engine milvus needs query vectors")
        size = max(1, min(_BATCH, MOST_HITS // (self._depths.dense + _SPARE)))
        found: Found = []
        try:
            for start in range(0, len(texts), size):
                found += self._batch(texts[start : start + size], vectors[start : start + size], limit)
        except (Unreachable, Unloaded, Absent, BackendTimeout, RateLimited) as error:
            if isinstance(error, Unloaded):  # somebody released it, or Milvus Lite was started again
                replicas = self._milvus.settings.replicas
                self._milvus.ask("load_collection", self._kept.name, replica_number=replicas, _async=True)
            said = f"version {self.version} was dropped, another is taken up soon: " * isinstance(error, Absent)
            raise OnHold(f"{said}{error}", retry_after_s=_HOLD_S) from error
        return found

    def _batch(self, texts: Sequence[str], vectors: Vectors, limit: int) -> Iterator[tuple[Candidate, ...]]:
        dense = self._near(vectors)
        lexical = self._lexical([" ".join(self._tokenize(text)) for text in texts], dense)
        rows = self._fetch({row for found in (*dense, *lexical) for row in found})
        return (
            self._candidates(near, terms, vector, rows, limit)
            for near, terms, vector in zip(dense, lexical, vectors, strict=True)
        )

    def _near(self, vectors: Vectors) -> list[Scores]:
        asked = {"metric_type": "IP", "params": search_params(self._milvus.settings)}
        return self._hits(list(vectors), VECTOR, asked, self._depths.dense + _SPARE)

    def _lexical(self, terms: Sequence[str], dense: Sequence[Scores]) -> list[Scores]:
        """BM25's own hits, and its scores of what the vectors found, which are 0 where they are left out."""
        places = [place for place, text in enumerate(terms) if text]
        texts, found, depth = (
            [terms[place] for place in places],
            [Scores() for _ in terms],
            self._depths.bm25 + _SPARE,
        )
        if not texts:
            return found
        asked = {"metric_type": "BM25", "params": {}}
        for place, hits in zip(places, self._hits(texts, SPARSE, asked, depth), strict=True):
            found[place] = hits
        cut = [place for place in places if len(found[place]) >= min(depth, MOST_HITS)]
        others = sorted({row for place in cut for row in dense[place].keys() - found[place].keys()})
        if others:
            within = f"{ROW} in {others}"
            more = self._hits([terms[place] for place in cut], SPARSE, asked, len(others), within)
            for place, hits in zip(cut, more, strict=True):
                found[place] |= {row: score for row, score in hits.items() if row in dense[place]}
        return found

    def _hits(
        self, queries: list[Any], field: str, asked: Mapping[str, Any], limit: int, within: str = ""
    ) -> list[Scores]:
        answers = self._milvus.ask(
            "search", self._kept.name, data=queries, anns_field=field, search_params=dict(asked), filter=within,
            limit=min(limit, MOST_HITS), consistency_level=self._milvus.settings.consistency,
        )  # fmt: skip
        return [{int(hit[ROW]): float(hit["distance"]) for hit in hits} for hits in answers]

    def _fetch(self, rows: Iterable[int]) -> dict[int, _Row]:
        """The rows from Milvus, in requests of bounded size."""
        milvus, wanted = self._milvus, sorted(rows)
        found: dict[int, _Row] = {}
        size = min(MOST_HITS, max(1, _FETCH_BYTES // (4 * self._kept.manifest.dim + _TEXT_BYTES)))
        fields = [ROW, DOC_ID, NUMBER, TITLE, TEXT, VECTOR]
        fields += [METADATA] if self._kept.manifest.with_metadata else []
        for start in range(0, len(wanted), size):
            these = f"{ROW} in {wanted[start : start + size]}"
            answer = milvus.ask(
                "query", self._kept.name, filter=these, output_fields=fields,
                consistency_level=milvus.settings.consistency,
            )  # fmt: skip
            found |= {int(each[ROW]): _row(each) for each in answer}
        if len(found) < len(wanted):  # a replica that is behind
            raise BackendUnavailable(f"Milvus returned {len(found):,} of {len(wanted):,} passages that it had found")
        return found

    def _candidates(
        self, near: Scores, terms: Scores, vector: Vectors, rows: Mapping[int, _Row], limit: int
    ) -> tuple[Candidate, ...]:
        chosen = sorted({*near, *terms}, key=lambda row: rows[row].order)
        if not chosen:
            return ()
        stored = np.stack([rows[row].vector for row in chosen])
        dense = np.einsum("ij,j->i", stored, vector, dtype=np.float64)
        bm25 = np.asarray([abs(terms.get(row, 0.0)) for row in chosen]) / self._scale
        order: NDArray[np.int64] = np.arange(len(chosen))
        fused = fuse(np.asarray(chosen, np.int64), bm25, dense, order, self._depths, limit)
        columns = (fused.bm25.tolist(), fused.bm25_rank.tolist(), fused.dense.tolist(), fused.dense_rank.tolist())
        return tuple(
            Candidate(rows[row].passage, (Score(BM25, bm25, bm25_rank), Score(DENSE, dense, dense_rank)))
            for row, bm25, bm25_rank, dense, dense_rank in zip(fused.rows.tolist(), *columns, strict=True)
        )


def _row(fields: Mapping[str, Any]) -> _Row:
    doc_id, number = str(fields[DOC_ID]), int(fields[NUMBER])
    metadata = read_metadata(str(fields.get(METADATA, "")))
    passage = Passage(passage_name(doc_id, number), doc_id, str(fields[TITLE]), str(fields[TEXT]), metadata)
    return _Row(passage, (doc_id.encode(), number), np.asarray(fields[VECTOR], np.float32))

"""What a query log says without a judge: a passage that many of its queries resemble answers few of them.

    common(p)      = log of the mean over the log's queries a of exp(cos(a, p) / T)
    contrast(q, p) = cos(q, p) - T / 2 * common(p)

With cosines as log-likelihoods in units of T this is the mean of log P(p | q) and log P(q | p), less what a query's
passages share: the dual softmax (Cheng et al. 2021, https://arxiv.org/abs/2109.04290) with the log as the queries, as
in querybank normalisation (Bogolin et al. 2022, https://arxiv.org/abs/2112.12777). T was chosen on dev, where the
first document is right for 58 % of the queries by cosine and for 63, 63, 62, 59 % with T 0.02, 0.03, 0.05, 0.08.

It costs a product of the log's vectors with the index's and no judge, so it takes the cosine's place as the prior of
the judge's labels, and labels by itself the queries that no judge was asked about (P(relevant) is 1 throughout).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qrelay.index.manifest import current_folder
from qrelay.index.store import PassageStore
from qrelay.index.stored import StoredVectors
from qrelay.models.embedder import Embedder

SYSTEM: Final = "contrast"
TEMPERATURE: Final = 0.03
DOCUMENTS: Final = 6
_FOUND: Final = 60
"""Passages of a query's best cosines among which its best documents by contrast are looked for."""
_AT_ONCE: Final = 64


class Contrast:
    """The passages of an index, and how near each is to a log's queries."""

    def __init__(self, collection: Path, embedder: Embedder, log: Sequence[str]) -> None:
        """collection: the folder of its versions, built with the embedder. log: the queries' texts."""
        folder = current_folder(collection)
        self._store, self._vectors, self._embedder = PassageStore(folder), StoredVectors.open(folder), embedder
        self._rows = {each.passage_id: row for row, each in enumerate(self._store.every_passage())}
        self._common = self._common_to(log)

    def _common_to(self, log: Sequence[str]) -> NDArray[np.float64]:
        total = np.zeros(len(self._vectors))
        for found in self._cosines(log):
            total += np.exp(found / TEMPERATURE).sum(0)
        return np.log(total / len(log))

    def _cosines(self, texts: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Of up to 64 queries at a time with every passage, [queries, passages]."""
        for start in range(0, len(texts), _AT_ONCE):
            part = self._embedder.encode(texts[start : start + _AT_ONCE], "query")
            yield self._vectors.similarities(part)

    def judged(self, lines: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """The lines of an export of `labels` with the contrast of each passage among its scores."""
        for line, row in zip(lines, self._rows_of([line["query"] for line in lines]), strict=True):
            at = np.array([self._rows[each["passage_id"]] for each in line["passages"]])
            scores = row[at] - TEMPERATURE / 2 * self._common[at]
            yield {**line, "passages": [_scored(*each) for each in zip(line["passages"], scores, strict=True)]}

    def unjudged(self, queries: Sequence[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """For each query a line in that format: the best passage of each of its six best documents."""
        for query, row in zip(queries, self._rows_of([query["text"] for query in queries]), strict=True):
            yield {"query_id": query["_id"], "query": query["text"], "passages": list(self._best(row))}

    def _rows_of(self, texts: Sequence[str]) -> Iterator[NDArray[np.float32]]:
        """Each query's cosines with every passage."""
        return chain.from_iterable(self._cosines(texts))

    def _best(self, cosines: NDArray[np.float32]) -> Iterator[dict[str, Any]]:
        near = np.argpartition(-cosines, min(_FOUND, len(cosines) - 1))[:_FOUND]
        scores = cosines[near] - TEMPERATURE / 2 * self._common[near]
        seen: set[str] = set()
        order = np.argsort(-scores, kind="stable")
        for passage, score in zip(self._store.passages(near[order]), scores[order], strict=True):
            if passage.doc_id in seen or len(seen) == DOCUMENTS:
                continue
            seen.add(passage.doc_id)
            told = {"passage_id": passage.passage_id, "doc_id": passage.doc_id, "title": passage.title,
                    "text": passage.text, "grade": 1, "p_relevant": 1.0, "expected_relevance": 1.0}  # fmt: skip
            yield _scored({**told, "answer_nll": None, "human": False, "role": "", "hard": False,
                           "reason": "unjudged", "scores": {}}, score)  # fmt: skip


def _scored(passage: dict[str, Any], score: float) -> dict[str, Any]:
    return {**passage, "scores": {**passage["scores"], SYSTEM: float(score)}}

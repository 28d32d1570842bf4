"""auto-qrels' way, by its description (github.com/usamaahmedsh/auto-qrels, README): one query after another.

    BM25 (bm25s, k1 0.9, b 0.4)    200 passages of the whole corpus
    dense                          the query and these 200 encoded anew; the nearest remain
    cross-encoder                  `CrossEncoder.predict` on the 40 nearest
    sample                         the best 10, 10 of the middle, 5 of the rest; at most 2 of a document
    judge                          YES or NO, 20 requests at once, each answer into SQLite
    output                         qrels as TSV, triples as JSONL, a JSON checkpoint every 100 queries

Where the description leaves a choice, it is made in its favour: the candidates are encoded in one call, a reply has
one token, texts are found by a dictionary, and one HTTP client stays open. Its prompt is not in the description: both
sides ask in the words of qrelay's rubric `binary`, so that their labels can be compared. Its pre-filter (short
passages, no word in common) is left out on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import httpx

from benchmarks.peers.endpoints import running
from benchmarks.peers.material import EMBEDDER, HEAD, JUDGED, PAIRS, PER_DOCUMENT, Label, Material
from benchmarks.references.turns import cpu_seconds
from qrelay.judging.strategies import make_strategy
from qrelay.models.catalogue import resolve
from qrelay.text import passage_text
from qrelay.types import Passage, Query

BM25_TOP, AT_ONCE, CHECKPOINT, NEGATIVES = 200, 20, 100, 10
_MIDDLE, _TIMEOUT_S = 10, 120.0
_STRATEGY: Any = make_strategy("binary", "0-1")


class AutoQrels:
    """See the module. endpoint: arguments of `endpoints.running`, or the URL of one that runs elsewhere, whose
    processor time counts for nobody."""

    def __init__(self, material: Material, endpoint: Sequence[str] | str, model: str) -> None:
        self._material, self._model = material, model
        self._endpoint = endpoint
        self._stack = contextlib.ExitStack()
        self._judge_pid = 0
        self._done: list[str] = []
        self._labels: dict[str, list[Label]] = {}

    def __enter__(self) -> Self:
        from sentence_transformers import CrossEncoder, SentenceTransformer

        if isinstance(self._endpoint, str):
            self._url = self._endpoint
        else:
            self._url, self._judge_pid = self._stack.enter_context(running(*self._endpoint))
        self._encoder = SentenceTransformer(str(resolve(EMBEDDER).path), local_files_only=True)
        self._cross = CrossEncoder(str(self._material.cross_encoder), max_length=384, local_files_only=True)
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._cache = sqlite3.connect(self._folder / "cache.sqlite")
        self._cache.execute(
            "create table judged (query_hash, doc_id, score, answerable, primary key (query_hash, doc_id))"
        )
        self._runner = self._stack.enter_context(asyncio.Runner())
        self._client = httpx.AsyncClient(timeout=_TIMEOUT_S, limits=httpx.Limits(max_connections=AT_ONCE))
        self._stack.callback(lambda: self._runner.run(self._client.aclose()))
        self._stack.callback(self._cache.close)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def cpu_seconds(self) -> dict[str, float]:
        """See Way."""
        judge = {"judge": cpu_seconds(self._judge_pid)} if self._judge_pid else {}
        return {"script": time.process_time(), **judge}

    def label(self, queries: Sequence[Query]) -> None:
        """See Way."""
        for query in queries:
            self._one(query)

    def labels(self, queries: Sequence[Query]) -> list[Label]:
        """See Way."""
        return [label for query in queries for label in self._labels[query.query_id]]

    def _one(self, query: Query) -> None:
        lexical = [self._material.passages[row] for row, _ in self._material.bm25.best(query.text, BM25_TOP)]
        nearest = self._nearest(query, lexical)
        ranked = self._reranked(query, nearest[:PAIRS])
        sample = sampled(ranked, random.Random(query.query_id))
        grades = self._runner.run(self._judged(query, sample))
        self._labels[query.query_id] = [
            Label(query.query_id, passage.passage_id, float(yes), tokens)
            for passage, (yes, tokens) in zip(sample, grades, strict=True)
        ]
        self._write(query, lexical, nearest, {p.passage_id: yes for p, (yes, _) in zip(sample, grades, strict=True)})

    def _nearest(self, query: Query, passages: Sequence[Passage]) -> list[Passage]:
        texts = [passage_text(each.title, each.text) for each in passages]
        vectors = self._encoder.encode([query.text, *texts], normalize_embeddings=True, show_progress_bar=False)
        order = (vectors[1:] @ vectors[0]).argsort()[::-1]
        return [passages[row] for row in order]

    def _reranked(self, query: Query, passages: Sequence[Passage]) -> list[Passage]:
        pairs = [(query.text, passage_text(each.title, each.text)) for each in passages]
        scores = self._cross.predict(pairs, show_progress_bar=False)
        return [passages[row] for row in scores.argsort()[::-1]]

    async def _judged(self, query: Query, passages: Sequence[Passage]) -> list[tuple[bool, int]]:
        gate = asyncio.Semaphore(AT_ONCE)

        async def ask(passage: Passage) -> tuple[bool, int]:
            async with gate:
                return await self._ask(query, passage)

        return await asyncio.gather(*map(ask, passages))

    async def _ask(self, query: Query, passage: Passage) -> tuple[bool, int]:
        key = (hashlib.sha256(query.text.encode()).hexdigest(), passage.passage_id)
        found = self._cache.execute("select answerable from judged where query_hash = ? and doc_id = ?", key)
        if row := found.fetchone():
            return bool(row[0]), 0
        body = {"model": self._model, "messages": _STRATEGY.prompt(query.text, passage).messages(), "max_tokens": 1,
                "temperature": 0}  # fmt: skip
        reply = (await self._client.post(f"{self._url}/chat/completions", json=body)).raise_for_status().json()
        yes = reply["choices"][0]["message"]["content"].strip().upper().startswith("Y")
        self._cache.execute("insert into judged values (?, ?, ?, ?)", (*key, 3 * yes, yes))
        self._cache.commit()
        return yes, int(reply["usage"]["prompt_tokens"])

    def _write(
        self, query: Query, lexical: Sequence[Passage], dense: Sequence[Passage], said: dict[str, bool]
    ) -> None:
        positives = [passage_id for passage_id, yes in said.items() if yes]
        tops = [{each.passage_id for each in found[:20]} for found in (lexical, dense)]
        negatives = [key for key, yes in said.items() if not yes and (key in tops[0]) != (key in tops[1])][:NEGATIVES]
        with (self._folder / "qrels.tsv").open("a") as file:
            file.writelines(f"{query.query_id}\t0\t{passage_id}\t3\n" for passage_id in positives)
        with (self._folder / "triples.jsonl").open("a") as file:
            triple = {"query_id": query.query_id, "query": query.text, "positive_doc_ids": positives,
                      "positive_scores": [3] * len(positives), "hard_negative_doc_ids": negatives}  # fmt: skip
            file.write(json.dumps(triple) + "\n")
        self._done.append(query.query_id)
        if len(self._done) % CHECKPOINT == 0:
            (self._folder / "progress.json").write_text(json.dumps({"processed_query_ids": self._done}))


def sampled(ranked: Sequence[Passage], draw: random.Random) -> list[Passage]:
    """The best HEAD, then ten of the next twenty and five of the rest, JUDGED in all; at most PER_DOCUMENT of a
    document. Fewer only where the documents leave no more."""
    middle, rest = list(ranked[HEAD:30]), list(ranked[30:])
    parts = [list(ranked[:HEAD]), draw.sample(middle, min(_MIDDLE, len(middle))), draw.sample(rest, len(rest))]
    return list(_limited([each for part in parts for each in part], [*middle]))[:JUDGED]


def _limited(chosen: Sequence[Passage], spare: Sequence[Passage]) -> Iterator[Passage]:
    seen: Counter[str] = Counter()
    taken: set[str] = set()
    for each in [*chosen, *spare]:
        if seen[each.doc_id] < PER_DOCUMENT and each.passage_id not in taken:
            seen[each.doc_id] += 1
            taken.add(each.passage_id)
            yield each

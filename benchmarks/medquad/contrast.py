"""What a query log and two encoders say without a judge: a passage that many queries resemble answers few of them.

    common(p)      = log of the mean over the log's queries a of exp(cos(a, p) / T)
    contrast(q, p) = cos(q, p) - T / 2 * common(p)
    prior(q, p)    = contrast(q, p) + cos'(q, p), where cos' is the second encoder's

With cosines as log-likelihoods in units of T the contrast is the mean of log P(p | q) and log P(q | p), less what a
query's passages share: the dual softmax (Cheng et al. 2021, https://arxiv.org/abs/2109.04290) with the log as the
queries, as in querybank normalisation (Bogolin et al. 2022, https://arxiv.org/abs/2112.12777). T was chosen on dev,
where the first document is right for 58 % of the queries by cosine and for 63, 63, 62, 59 % with T 0.02, 0.03, 0.05,
0.08.

The contrast chooses six documents of a query, the prior four of these. The prior labels by itself the queries that no
judge was asked about (P(relevant) is 1 throughout), and completes the labels of the others.
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
from qrelay.text import passage_text

SYSTEM: Final = "contrast"
PRIOR: Final = "prior"
TEMPERATURE: Final = 0.03
DOCUMENTS: Final = 6
KEPT: Final = 4
_FOUND: Final = 60
"""Passages of a query's best cosines among which its best documents by contrast are looked for."""
_AT_ONCE: Final = 64

Line = dict[str, Any]
"""Of `qrelay feed --format candidates`: query_id, query, and candidates, each a passage with its scores."""


class Contrast:
    """The passages of an index, and how near each is to a log's queries."""

    def __init__(self, collection: Path, embedder: Embedder, log: Sequence[str]) -> None:
        """collection: the folder of its versions, built with the embedder. log: the queries' texts."""
        folder = current_folder(collection)
        self._store, self._vectors, self._embedder = PassageStore(folder), StoredVectors.open(folder), embedder
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

    def lists(self, queries: Sequence[dict[str, Any]]) -> Iterator[Line]:
        """Of each query (`_id`, `text`) the best passage of each of its six best documents."""
        rows = chain.from_iterable(self._cosines([query["text"] for query in queries]))
        for query, row in zip(queries, rows, strict=True):
            yield {"query_id": query["_id"], "query": query["text"], "candidates": list(self._best(row))}

    def _best(self, cosines: NDArray[np.float32]) -> Iterator[dict[str, Any]]:
        near = np.argpartition(-cosines, min(_FOUND, len(cosines) - 1))[:_FOUND]
        scores = cosines[near] - TEMPERATURE / 2 * self._common[near]
        seen: set[str] = set()
        order = np.argsort(-scores, kind="stable")
        for passage, score in zip(self._store.passages(near[order]), scores[order], strict=True):
            if passage.doc_id in seen or len(seen) == DOCUMENTS:
                continue
            seen.add(passage.doc_id)
            yield {"passage_id": passage.passage_id, "doc_id": passage.doc_id, "title": passage.title,
                   "text": passage.text, "scores": {SYSTEM: float(score)}}  # fmt: skip


def with_prior(lines: Sequence[Line], embedder: Embedder) -> Iterator[Line]:
    """Each line with the four passages of the highest prior, which the embedder's cosines complete."""
    for start in range(0, len(lines), _AT_ONCE):
        part = lines[start : start + _AT_ONCE]
        texts = [passage_text(each["title"], each["text"]) for line in part for each in line["candidates"]]
        vectors = iter(embedder.encode(texts, "document"))
        for line, query in zip(part, embedder.encode([line["query"] for line in part], "query"), strict=True):
            found = [_with_prior(each, float(next(vectors) @ query)) for each in line["candidates"]]
            yield {**line, "candidates": sorted(found, key=lambda each: -each["scores"][PRIOR])[:KEPT]}


def _with_prior(candidate: dict[str, Any], cosine: float) -> dict[str, Any]:
    scores = candidate["scores"]
    return {**candidate, "scores": {**scores, PRIOR: scores[SYSTEM] + cosine}}


def unjudged(line: Line) -> dict[str, Any]:
    """The line as an export of `labels` has it: every passage as relevant as any other, before the prior."""
    label = {"grade": 1, "p_relevant": 1.0, "expected_relevance": 1.0, "answer_nll": None, "human": False}
    said = {**label, "role": "", "hard": False, "reason": "unjudged"}
    return {**line, "passages": [{**each, **said} for each in line["candidates"]]}

"""What a query log says without a judge: every query wants a document, and every document a query.

    matching(q, d) = cos(q, d's nearest passage) + T log v(d)
    v(d)           = 1 / sum over the log's q of u(q) exp(cos(q, d) / T)
    u(q)           = 1 / sum over d of v(d) exp(cos(q, d) / T)

v and u are Sinkhorn's (Cuturi 2013, https://arxiv.org/abs/1306.0895): the log is matched with the whole collection,
so a document near many queries is nobody's first without need, and one that is near a single query is that query's.
One turn of it is the inverted softmax (Smith et al. 2017, https://arxiv.org/abs/1702.03859). T and the turns were
chosen on dev, where the first of a query's documents is right for 58 % by cosine, 79 % after one turn and 83 % after
eight, with its own queries in the log; T 0.02, 0.025, 0.03 and 0.05 have 84, 83, 83 and 74 %.

This needs a log that asks about most of the collection, as MedQuAD's does; it is of no use to forty queries. As
probabilities over four documents the scores are best at 0.01: a first document that has 0.7 or more, as in 72 % of
the lists, is right for 94 %.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qrelay.index.manifest import current_folder
from qrelay.index.store import PassageStore
from qrelay.index.stored import StoredVectors
from qrelay.models.embedder import Embedder

PRIOR: Final = "matching"
TEMPERATURE: Final = 0.025
DOCUMENTS: Final = 4
LOSS_TEMPERATURE: Final = 0.05
"""What bi_encoder.yaml divides a prior by."""
_SHARPNESS: Final = 0.01
_TURNS: Final = 8
_AT_ONCE: Final = 64

Line = dict[str, Any]
"""Of `qrelay feed --format candidates`: query_id, query, and candidates, each a passage with its scores."""


class Matching:
    """A log's queries matched with the documents of an index."""

    def __init__(self, collection: Path, embedder: Embedder, log: Sequence[dict[str, Any]]) -> None:
        """collection: the folder of its versions, built with the embedder. log: queries with `_id` and `text`."""
        folder = current_folder(collection)
        self._store, self._vectors, self._log = PassageStore(folder), StoredVectors.open(folder), log
        passages = self._store.passages(np.arange(len(self._vectors)))
        _, document = np.unique([passage.doc_id for passage in passages], return_inverse=True)
        self._rows = np.argsort(document, kind="stable")
        """Passages, a document's side by side."""
        self._starts = np.searchsorted(document[self._rows], np.arange(document.max() + 1))
        self._queries = embedder.encode([query["text"] for query in log], "query")

    def lists(self) -> Iterator[Line]:
        """Of each query the best passage of each of its four best documents, the best first."""
        dearth = TEMPERATURE * np.log(self._scales())
        for start in range(0, len(self._log), _AT_ONCE):
            near = self._cosines(start)
            found = self._of_documents(near) + dearth
            for query, cosines, scores in zip(self._log[start : start + _AT_ONCE], near, found, strict=True):
                best = np.argsort(-scores, kind="stable")[:DOCUMENTS]
                rows = self._rows[[self._nearest(cosines, document) for document in best]]
                candidates = [
                    {"passage_id": passage.passage_id, "doc_id": passage.doc_id, "title": passage.title,
                     "text": passage.text, "scores": {PRIOR: float(score) * LOSS_TEMPERATURE / _SHARPNESS}}
                    for passage, score in zip(self._store.passages(rows), scores[best], strict=True)
                ]  # fmt: skip
                yield {"query_id": query["_id"], "query": query["text"], "candidates": candidates}

    def _scales(self) -> NDArray[np.float32]:
        """v, [documents]."""
        blocks = [self._of_documents(self._cosines(start)) for start in range(0, len(self._log), _AT_ONCE)]
        kernel = np.concatenate(blocks)
        kernel -= 1  # a cosine is at most 1
        np.exp(np.divide(kernel, TEMPERATURE, out=kernel), out=kernel)
        scales: NDArray[np.float32] = np.ones(kernel.shape[1], np.float32)
        for _ in range(_TURNS):
            scales = np.reciprocal(kernel.T @ np.reciprocal(kernel @ scales))
        return scales

    def _cosines(self, start: int) -> NDArray[np.float32]:
        """Of 64 queries with every passage, in `_rows`'s order."""
        return self._vectors.similarities(self._queries[start : start + _AT_ONCE])[:, self._rows]

    def _of_documents(self, cosines: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = np.maximum.reduceat(cosines, self._starts, axis=1)
        return found

    def _nearest(self, cosines: NDArray[np.float32], document: int) -> int:
        first = self._starts[document]
        last = self._starts[document + 1] if document + 1 < len(self._starts) else len(cosines)
        return int(first + np.argmax(cosines[first:last]))


def surety(line: Line) -> float:
    """The probability of its first document beside the others'."""
    scores = np.array([candidate["scores"][PRIOR] for candidate in line["candidates"]]) / LOSS_TEMPERATURE
    return float(1 / np.exp(scores - scores[0]).sum())


def unjudged(line: Line) -> dict[str, Any]:
    """The line as an export of `labels` has it: every passage as relevant as any other, before the prior."""
    label = {"grade": 1, "p_relevant": 1.0, "expected_relevance": 1.0, "answer_nll": None, "human": False}
    said = {**label, "role": "", "hard": False, "reason": "unjudged"}
    passages = [{**each, **said} for each in line["candidates"]]
    return {"query_id": line["query_id"], "query": line["query"], "passages": passages}

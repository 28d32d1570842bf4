"""sentence-transformers in a script: negatives by `mine_hard_negatives`, a score a pair by `CrossEncoder.predict`.

It has no judge: the labels are the cross-encoder's scores, and the positive of a query, which it needs to be given,
is the passage that BM25 finds first. Vectors of the corpus are encoded once, before the first turn, and kept
(`cache_folder`), as a script that runs again would.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from typing import Any, Self

from benchmarks.peers.material import EMBEDDER, PAIRS, Label, Material
from qrelay.models.catalogue import resolve
from qrelay.text import passage_text
from qrelay.types import Query

NEGATIVES = 10


class Mining:
    """See the module."""

    def __init__(self, material: Material) -> None:
        self._material = material
        self._labels: dict[str, list[Label]] = {}

    def __enter__(self) -> Self:
        from sentence_transformers import CrossEncoder, SentenceTransformer

        self._encoder = SentenceTransformer(str(resolve(EMBEDDER).path), local_files_only=True)
        self._cross = CrossEncoder(str(self._material.cross_encoder), max_length=384, local_files_only=True)
        self._texts = [passage_text(each.title, each.text) for each in self._material.passages]
        self._ids = {text: each.passage_id for text, each in zip(self._texts, self._material.passages, strict=True)}
        self._kept = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *_: object) -> None:
        self._kept.cleanup()

    def cpu_seconds(self) -> dict[str, float]:
        """See Way."""
        return {"script": time.process_time()}

    def label(self, queries: Sequence[Query]) -> None:
        """See Way: PAIRS scores a query."""
        from datasets import Dataset
        from sentence_transformers.util import mine_hard_negatives

        first = [self._material.bm25.best(each.text, 1)[0][0] for each in queries]
        pairs = {"query": [each.text for each in queries], "answer": [self._texts[row] for row in first]}
        mined = mine_hard_negatives(
            Dataset.from_dict(pairs), self._encoder, corpus=self._texts, range_max=PAIRS, num_negatives=NEGATIVES,
            relative_margin=0.05, output_format="n-tuple", cache_folder=self._kept.name, verbose=False,
        )  # fmt: skip
        for query in queries:
            self._labels[query.query_id] = self._scored(query, mined)

    def labels(self, queries: Sequence[Query]) -> list[Label]:
        """See Way."""
        return [label for query in queries for label in self._labels[query.query_id]]

    def _scored(self, query: Query, mined: Any) -> list[Label]:
        """The PAIRS passages that BM25 finds first, scored; with the mined ones where they are others."""
        rows = [row for row, _ in self._material.bm25.best(query.text, PAIRS - NEGATIVES)]
        own = [row for row in mined if row["query"] == query.text]
        negatives = [text for row in own for name, text in row.items() if name.startswith("negative")]
        texts = list(dict.fromkeys([*(self._texts[row] for row in rows), *negatives]))
        scores = self._cross.predict([(query.text, text) for text in texts], show_progress_bar=False)
        return [Label(query.query_id, self._ids[t], float(score)) for t, score in zip(texts, scores, strict=True)]

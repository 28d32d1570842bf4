"""The dev set: what training is stopped by, and never trained on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from qrelay.formats.beir import Collection

METRIC: Final = "nDCG@10"
"""Of the measurement before and after training, where no early stop names another."""


@dataclass(frozen=True)
class DevSet:
    """queries: query_id -> text. corpus: document id -> text as the models read it; a subset of the collection is
    enough while it holds the hard documents. qrels: query_id -> document id -> grade."""

    queries: Mapping[str, str]
    corpus: Mapping[str, str]
    qrels: Mapping[str, Mapping[str, int]]

    @classmethod
    def of(cls, collection: Collection) -> Self:
        """A test collection as a dev set."""
        corpus = dict(zip(collection.doc_ids, collection.texts, strict=True))
        return cls(collection.queries, corpus, collection.qrels)

    @classmethod
    def read(cls, corpus: Path, queries: Path, qrels: Path) -> Self:
        """From files in BEIR's layout. Raises MalformedInput, as `qrelay.formats.beir.read_collection`."""
        from qrelay.formats.beir import read_collection

        return cls.of(read_collection(corpus, queries, qrels))

    @cached_property
    def collection(self) -> Collection:
        """As evaluation takes it."""
        from qrelay.formats.beir import Collection

        qrels = {query_id: dict(grades) for query_id, grades in self.qrels.items()}
        return Collection(list(self.corpus), list(self.corpus.values()), dict(self.queries), qrels)

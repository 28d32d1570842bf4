"""What all ways read: the demo's corpus and questions, its answer key, and one cross-encoder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol, Self

from benchmarks.references.__main__ import COLLECTION, build_index
from benchmarks.references.reranker import make_cross_encoder
from qrelay.demo.answers import SETS, Verdict, demo_documents, read_key
from qrelay.index.bm25 import Bm25
from qrelay.index.manifest import current_folder, read_manifest
from qrelay.index.store import PassageStore
from qrelay.types import Passage, Query

EMBEDDER = "all-MiniLM-L6-v2"
PAIRS, JUDGED, HEAD, PER_DOCUMENT = 40, 25, 10, 2
"""A query: pairs of the cross-encoder, passages of the judge, the best that it always sees, those of one document."""


@dataclass(frozen=True, slots=True)
class Label:
    """One pair, judged. p: of being relevant, 0 or 1 where a way gives no more; tokens: of the prompt, 0 where nobody
    counts them."""

    query_id: str
    passage_id: str
    p: float
    tokens: int = 0


class Way(Protocol):
    """Queries in, labels out; entered once, before the first turn."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def label(self, queries: Sequence[Query]) -> None:
        """The turn that is timed."""
        ...

    def labels(self, queries: Sequence[Query]) -> list[Label]:
        """What it gave these queries: not timed."""
        ...

    def cpu_seconds(self) -> Mapping[str, float]:
        """Of every process that works for it so far, the judge on this machine included; by name."""
        ...


class Material:
    """In a folder that is kept, so that a run can go on."""

    def __init__(self, folder: Path, index: Path | None) -> None:
        self.index = index or folder / "index"
        if not (self.index / COLLECTION).exists():
            build_index(self.index)
        self.cross_encoder = folder / "cross-encoder"
        if not (self.cross_encoder / "config.json").exists():
            make_cross_encoder(self.cross_encoder)

    @cached_property
    def passages(self) -> list[Passage]:
        """Of the whole corpus."""
        return list(PassageStore(current_folder(self.index / COLLECTION)).every_passage())

    @cached_property
    def bm25(self) -> Bm25:
        """Over the passages, in their order."""
        folder = current_folder(self.index / COLLECTION)
        return Bm25.load(folder / "bm25", read_manifest(folder).tokenize(folder))

    @cached_property
    def queries(self) -> list[Query]:
        """The demo's questions and the further ones."""
        lines = [line for folder in SETS.values() for line in (folder / "queries.jsonl").read_text().splitlines()]
        return [Query(each["query_id"], each["text"], COLLECTION) for each in map(json.loads, lines)]

    def right(self, labels: Sequence[Label]) -> list[bool | None]:
        """What the key says of each pair; None where nobody has read the passage."""
        documents = list(demo_documents())
        read = [read_key(folder, documents) for folder in SETS.values()]
        keys = {text: key for key in read for text in key.answers}
        texts = {query.query_id: query.text for query in self.queries}
        passages = {passage.passage_id: passage for passage in self.passages}
        found = (keys[t].verdict(t, passages[each.passage_id]) for each in labels for t in [texts[each.query_id]])
        return [None if verdict is Verdict.UNREAD else verdict is Verdict.RIGHT for verdict in found]

"""Candidates as one compressed value a query: columns in JSON, zstd-compressed.

    {"passage_id": [...], "doc_id": [...], "text_hash": [...], "sampled": [0 or 1, ...],
     "systems": {"bm25": [[score or null, ...], [rank or -1, ...]], ...}, "trace": [[...], ...]}

Where a passage has metadata, "metadata" is a list of objects. Of several rounds, `union.py` adds "rounds" and
"earlier". All lists run in the set's order. A rank of -1 says that
the system said nothing of this passage. Texts are not in it: `text_hash` names a row of `passages`, and is empty
where the candidate came with neither title nor text (the reranker drops the texts of those that it does not send to
the judge, and keeps their titles).
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

import orjson
import zstandard

from qrelay.identity import digest
from qrelay.labels.ledger.columns import SILENT, Columns
from qrelay.types import Candidate, Passage, Score, TraceStep

COLUMNS: Final = ("passage_id", "doc_id", "text_hash", "sampled")
_LEVEL: Final = 1
_own: Final = threading.local()
"""A compressor and a decompressor a thread: they may not be shared, and cost as much to make as to use."""


def hash_of(title: str, text: str) -> str:
    """The identity of what can be read of a passage: 128 bits of sha256 over title and text, hexadecimal;
    empty for a passage that came without both."""
    return digest(title, text)[:32] if text else _title_hash(title)


@lru_cache(4096)
def _title_hash(title: str) -> str:
    """Of a passage without text: a document's title comes with many of its passages."""
    return digest(title, "")[:32] if title else ""


def pack(columns: Columns, hashes: list[str]) -> bytes:
    """The packed candidates and trace of a set; `hashes` are its passages' text hashes, in order.

    A score that is not a finite number is stored as unknown (None).
    """
    document = {
        "passage_id": columns.passage_ids,
        "doc_id": columns.doc_ids,
        "text_hash": hashes,
        "sampled": columns.sampled,
        "systems": columns.systems,
        "trace": columns.trace,
    }
    if columns.metadata:
        document["metadata"] = columns.metadata
    return compress(document)


def compress(document: dict[str, Any]) -> bytes:
    """A document as it is stored."""
    if not hasattr(_own, "compressor"):
        _own.compressor = zstandard.ZstdCompressor(level=_LEVEL)
    packed: bytes = _own.compressor.compress(orjson.dumps(document))
    return packed


def unpack(packed: bytes) -> dict[str, Any]:
    """The document that `pack` wrote."""
    if not hasattr(_own, "decompressor"):
        _own.decompressor = zstandard.ZstdDecompressor()
    document = orjson.loads(_own.decompressor.decompress(packed))
    assert isinstance(document, dict), "packed candidates are not an object: this is a bug"
    return document


def candidates_of(document: Mapping[str, Any], texts: Mapping[str, tuple[str, str]]) -> tuple[Candidate, ...]:
    """The candidates of an unpacked document. `texts` maps a text hash to (title, text); a passage whose
    hash it lacks comes back without a text. A system's scores come back in the order of `systems`."""
    systems = [(name, scores, ranks) for name, (scores, ranks) in document["systems"].items()]
    return tuple(
        Candidate(
            Passage(passage_id, doc_id, *texts.get(hashed, ("", "")), metadata),
            tuple([Score(name, s[i], r[i]) for name, s, r in systems if r[i] != SILENT]),
            bool(sampled),
        )
        for i, (passage_id, doc_id, hashed, sampled, metadata) in enumerate(
            zip(*(document[name] for name in COLUMNS), metadata_in(document), strict=True)
        )
    )


def metadata_in(document: Mapping[str, Any]) -> list[dict[str, str]]:
    """Of each passage of an unpacked document, field to text."""
    return document.get("metadata") or [{} for _ in document["passage_id"]]


def trace_of(document: Mapping[str, Any]) -> tuple[TraceStep, ...]:
    """The trace of an unpacked document."""
    return tuple(TraceStep(*step) for step in document["trace"])

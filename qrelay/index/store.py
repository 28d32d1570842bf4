"""The passage store: texts on disk, reached by row; a passage's row is its place in the corpus.

    documents.bin, documents.npy   ids and titles, and int64 offsets [2 x documents + 1] into them
    texts.bin, texts.npy           passage texts, and int64 offsets [passages + 1]
    metadata.bin, metadata.npy     metadata as JSON, "" for none, and int64 offsets [documents + 1]; absent where no
                                   document has any
    passages.npy                   int32 [passages, 2]: document, and number within it
    hashes.npy                     uint64 [passages, 2]: 128 bits of sha256 over title and text
    order.npy                      int64 [passages]: place by (doc_id, number), which breaks ties

All of it is memory-mapped: a store costs the pages that queries touch.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, repeat
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qrelay.index.arrays import NpyWriter, RowBuffer, load_array
from qrelay.index.documents import Document, read_metadata, written_metadata
from qrelay.naming import passage_name
from qrelay.text import passage_text
from qrelay.types import Passage

Rows = NDArray[np.int64]
METADATA: Final = "metadata.bin"
METADATA_ENDS: Final = "metadata.npy"
_ORDER_BLOCK_ROWS: Final = 1 << 16
_BLOCK_PASSAGES: Final = 4096


class PassageWriter:
    """Writes a store, document by document; memory holds buffers of some MiB."""

    def __init__(self, folder: Path) -> None:
        self.documents = self.passages = self.with_metadata = 0
        self._folder = folder
        self._documents = (folder / "documents.bin").open("wb")
        self._texts = (folder / "texts.bin").open("wb")
        self._document_ends = RowBuffer(NpyWriter(folder / "documents.npy", np.int64))
        self._text_ends = RowBuffer(NpyWriter(folder / "texts.npy", np.int64))
        self._rows = RowBuffer(NpyWriter(folder / "passages.npy", np.int32, (2,)))
        self._hashes = RowBuffer(NpyWriter(folder / "hashes.npy", np.uint64, (2,)), row_bytes=16)
        self._metadata = (folder / METADATA).open("wb")
        self._metadata_ends = RowBuffer(NpyWriter(folder / METADATA_ENDS, np.int64))
        self._document_ends.add(0)
        self._text_ends.add(0)
        self._metadata_ends.add(0)

    def add(self, document: Document, windows: Sequence[str]) -> None:
        """Add a document as the passages `windows`."""
        for part in (document.doc_id, document.title):
            self._documents.write(part.encode())
            self._document_ends.add(self._documents.tell())
        self._metadata.write(written_metadata(document.metadata).encode())
        self._metadata_ends.add(self._metadata.tell())
        self.with_metadata += bool(document.metadata)
        for number, text in enumerate(windows):
            self._texts.write(text.encode())
            self._text_ends.add(self._texts.tell())
            self._rows.add((self.documents, number))
            self._hashes.add(_hash(passage_text(document.title, text)))
        self.documents += 1
        self.passages += len(windows)

    def close(self) -> None:
        for buffer in (self._document_ends, self._text_ends, self._metadata_ends, self._rows, self._hashes):
            buffer.close()
        for file in (self._documents, self._texts, self._metadata):
            file.close()
        if not self.with_metadata:
            for name in (METADATA, METADATA_ENDS):
                (self._folder / name).unlink()


def _hash(text: str) -> NDArray[np.uint64]:
    return np.frombuffer(hashlib.sha256(text.encode()).digest()[:16], dtype="<u8")


def write_order(folder: Path, positions_by_id: NDArray[np.int64]) -> None:
    """Write order.npy. Memory: about 32 bytes a document, and a block of passages."""
    rows = load_array(folder / "passages.npy")
    counts = np.zeros(len(positions_by_id), np.int64)
    for start in range(0, len(rows), _ORDER_BLOCK_ROWS):
        documents = rows[start : start + _ORDER_BLOCK_ROWS, 0]
        counts += np.bincount(documents, minlength=len(counts))
    first = np.empty_like(counts)
    sorted_counts = counts[positions_by_id]
    first[positions_by_id] = np.cumsum(sorted_counts) - sorted_counts
    with NpyWriter(folder / "order.npy", np.int64) as out:
        for start in range(0, len(rows), _ORDER_BLOCK_ROWS):
            block = rows[start : start + _ORDER_BLOCK_ROWS]
            out.append(first[block[:, 0]] + block[:, 1])


@dataclass(frozen=True, slots=True)
class StoredDocument:
    """A document as its passages hold it: the first of its rows, and the texts of all."""

    doc_id: str
    title: str
    first_row: int
    windows: tuple[str, ...]
    metadata: Mapping[str, str]


class PassageStore:
    """Reads a store. Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self._documents = _map(folder / "documents.bin")
        self._texts = _map(folder / "texts.bin")
        self._document_ends = load_array(folder / "documents.npy")
        self._text_ends = load_array(folder / "texts.npy")
        self._rows = load_array(folder / "passages.npy")
        self._metadata = _map(folder / METADATA) if (folder / METADATA).exists() else None
        self._metadata_ends = load_array(folder / METADATA_ENDS) if self._metadata else None

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def documents(self) -> int:
        """How many documents the passages come from."""
        return len(self._document_ends) // 2

    def passages(self, rows: Rows) -> list[Passage]:
        """The passages at `rows`, in that order."""
        documents, numbers = self._rows[rows].T.astype(np.int64)
        ids, titles = self._document_ends[documents * 2], self._document_ends[documents * 2 + 1]
        ends = self._document_ends[documents * 2 + 2]
        starts, stops = self._text_ends[rows], self._text_ends[rows + 1]
        columns = (numbers, ids, titles, ends, starts, stops)
        passages, metadata = [], self._metadata_of(documents)
        for number, id_at, title_at, end, start, stop in zip(*(c.tolist() for c in columns), strict=True):
            doc_id, title = self._documents[id_at:title_at].decode(), self._documents[title_at:end].decode()
            text = self._texts[start:stop].decode()
            passages.append(Passage(passage_name(doc_id, number), doc_id, title, text, next(metadata)))
        return passages

    def _metadata_of(self, documents: Rows) -> Iterator[dict[str, str]]:
        """Of each of the documents, by number."""
        if self._metadata is None or self._metadata_ends is None:
            return repeat({})
        spans = zip(self._metadata_ends[documents].tolist(), self._metadata_ends[documents + 1].tolist(), strict=True)
        return (read_metadata(self._metadata[start:stop].decode()) for start, stop in spans)

    def stored_documents(self) -> Iterator[StoredDocument]:
        """Every document, in the corpus's order."""
        row = 0
        for doc_id, group in groupby(self.every_passage(), key=lambda passage: passage.doc_id):
            passages = list(group)
            first, texts = passages[0], tuple(passage.text for passage in passages)
            yield StoredDocument(doc_id, first.title, row, texts, first.metadata)
            row += len(passages)

    def every_passage(self) -> Iterator[Passage]:
        """All of them, in order of their rows."""
        for start in range(0, len(self), _BLOCK_PASSAGES):
            yield from self.passages(np.arange(start, min(start + _BLOCK_PASSAGES, len(self))))

    def passage_texts(self, rows: Iterable[int]) -> list[str]:
        """What the embedder reads of the passages at `rows`."""
        found = self.passages(np.fromiter(rows, np.int64))
        return [passage_text(passage.title, passage.text) for passage in found]


def _map(path: Path) -> mmap.mmap:
    with path.open("rb") as stream:
        return mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)

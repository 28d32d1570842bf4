"""The first pass over a corpus: documents to disk, each id once, and the corpus's hash.

    documents.jsonl   a document a line, in the corpus's order
    ids.sqlite        doc_id -> (position, hash): finds duplicates, and sorts ids, without holding them

Memory: one document, and SQLite's page cache of 16 MiB.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qrelay.identity import digest
from qrelay.index.documents import Document, Reject, metadata_fields
from qrelay.parsing import json_document

DOCUMENTS: Final = "documents.jsonl"
IDS: Final = "ids.sqlite"


@dataclass(frozen=True, slots=True)
class SpoolSummary:
    """What a corpus held. `corpus_hash` covers ids, titles, texts, metadata and their order. replaced: NUL characters
    that are U+FFFD now. cut_titles: longer than `MAX_TITLE_CHARS`. left_out: fields of metadata."""

    documents: int
    duplicates: int
    corpus_hash: str
    replaced: int = 0
    cut_titles: int = 0
    left_out: int = 0


class Rejections:
    """Records left out: all to a file as JSON lines, the first `KEEP` to memory."""

    KEEP: Final = 20

    def __init__(self, path: Path, say: Callable[[str], None]) -> None:
        path.unlink(missing_ok=True)
        self._path, self._say = path, say
        self.count = 0
        self.examples: list[str] = []

    def __call__(self, where: str, why: str) -> None:
        self.count += 1
        with self._path.open("a", encoding="utf8") as out:
            out.write(json.dumps({"where": where, "why": why}) + "\n")
        if len(self.examples) < self.KEEP:
            self.examples.append(f"{where}: {why}")
            self._say(f"left out {where}: {why}")
        elif self.count == self.KEEP + 1:
            self._say(f"more were left out; all are listed in {self._path}")


def fill(folder: Path, documents: Iterable[Document], reject: Reject, advance: Callable[[int], None]) -> SpoolSummary:
    """Write the corpus into `folder`. A document that repeats another word for word is counted, whatever its
    metadata; one that has a used id and other words is rejected, and the first stays."""
    sha, count, duplicates, replaced, cut_titles, left_out = hashlib.sha256(), 0, 0, 0, 0, 0
    with _ids(folder) as ids, (folder / DOCUMENTS).open("w", encoding="utf8") as out:
        for document in documents:
            identity = digest(document.doc_id, document.title, document.text, *(document.windows or ()))
            first = _claim(ids, document.doc_id, count, identity)
            if first == identity:
                duplicates += 1
            elif first is not None:
                reject(document.where or document.doc_id, _repeated(document.doc_id))
            else:
                sha.update("".join((identity, *metadata_fields(document.metadata))).encode())
                out.write(line_of(document))
                count += 1
                replaced += document.replaced
                cut_titles += document.cut
                left_out += document.left_out
            advance(1)
        ids.commit()
    ids.close()
    return SpoolSummary(count, duplicates, sha.hexdigest(), replaced, cut_titles, left_out)


def _ids(folder: Path) -> sqlite3.Connection:
    ids = sqlite3.connect(folder / IDS)
    ids.execute("PRAGMA synchronous=OFF")
    ids.execute("PRAGMA journal_mode=OFF")
    ids.execute("PRAGMA cache_size=-16384")
    ids.execute("CREATE TABLE ids(doc_id TEXT PRIMARY KEY, position INT, hash TEXT) WITHOUT ROWID")
    return ids


def _claim(ids: sqlite3.Connection, doc_id: str, position: int, identity: str) -> str | None:
    """None where the id was free and is now taken, else the hash of the document that has it."""
    row = ids.execute("SELECT hash FROM ids WHERE doc_id = ?", (doc_id,)).fetchone()
    if row is None:
        ids.execute("INSERT INTO ids VALUES (?, ?, ?)", (doc_id, position, identity))
        return None
    return str(row[0])


def _repeated(doc_id: str) -> str:
    return f"the id {doc_id!r} was used before with another text; the first stays: give each document its own"


def read(folder: Path) -> Iterator[Document]:
    """The documents, in order."""
    with (folder / DOCUMENTS).open(encoding="utf8") as lines:
        yield from map(document_in, lines)


def line_of(document: Document) -> str:
    """The document as a line; of what is for messages only, what a build counts later."""
    each = document
    return json.dumps([each.doc_id, each.title, each.text, each.windows, each.metadata, each.left_out]) + "\n"


def document_in(line: str) -> Document:
    """The document that `line_of` wrote."""
    doc_id, title, text, windows, metadata, left_out = json_document(line)
    cut = None if windows is None else tuple(windows)
    return Document(doc_id, title, text, windows=cut, metadata=metadata, left_out=left_out)


def positions_by_id(folder: Path) -> NDArray[np.int64]:
    """Shape [documents]: the documents' positions, sorted by their ids' UTF-8 bytes."""
    ids = sqlite3.connect(f"file:{folder / IDS}?mode=ro", uri=True)
    try:
        rows = ids.execute("SELECT position FROM ids ORDER BY doc_id")
        return np.fromiter((row[0] for row in rows), np.int64)
    finally:
        ids.close()

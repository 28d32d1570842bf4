"""Texts by their id, for sets whose rows have ids alone: a temporary SQLite file, so that a corpus may be larger than
memory."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path

from qrelay.errors import BackendUnavailable
from qrelay.formats.lines import BadRecord, byte_lines, json_value, parsed, row_text
from qrelay.formats.records import document_fields, query_fields
from qrelay.naming import absent
from qrelay.types import Passage

_SHOWN = 100
"""Ids of which an error names the nearest."""


class Texts:
    """id -> (title, text). what: of what they are, for errors; place: their file. Use from one thread at a time."""

    def __init__(self, what: str, place: Path, found: Iterable[tuple[str, str, str]]) -> None:
        """found: (id, title, text); of an id that comes twice the first stands. Raises BackendUnavailable: no disk
        is left for them."""
        self._what, self._place = what, place
        # The empty name: a private file that SQLite deletes, and keeps in memory only up to its cache.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        try:
            self._database.execute("PRAGMA journal_mode=OFF")
            self._database.execute("CREATE TABLE texts (id TEXT PRIMARY KEY, title TEXT, text TEXT) WITHOUT ROWID")
            self._database.execute("BEGIN")
            self._database.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?, ?)", found)
        except sqlite3.Error as error:
            raise BackendUnavailable(
                f"cannot keep the texts of {place} in a temporary file: {error}; free the disk, or name a folder with"
                " more room in TMPDIR"
            ) from error

    def passage(self, identifier: object) -> Passage:
        """The document with this id. Raises BadRecord: there is none."""
        title, text = self._row(identifier)
        return Passage(str(identifier), str(identifier), title, text)

    def text(self, identifier: object) -> str:
        """Its text alone. Raises BadRecord: there is none, or it is blank."""
        found = self._row(identifier)[1]
        if not found.strip():
            raise BadRecord(f"the {self._what} {identifier!r} has an empty text in {self._place}")
        return found

    def _row(self, identifier: object) -> tuple[str, str]:
        if isinstance(identifier, bool) or not isinstance(identifier, str | int):
            raise BadRecord(f"the id of a {self._what} must be text, not {type(identifier).__name__}")
        found = self._database.execute("SELECT title, text FROM texts WHERE id = ?", (str(identifier),)).fetchone()
        if found is None:
            first = self._database.execute("SELECT id FROM texts LIMIT ?", (_SHOWN,))
            some = dict.fromkeys(row[0] for row in first)
            raise BadRecord(f"{self._what}: {absent(str(identifier), some, str(self._place))}")
        return str(found[0]), str(found[1])

    def close(self) -> None:
        """Frees the file. Safe to call twice."""
        self._database.close()


def corpus_texts(path: Path) -> Texts:
    """Of a corpus: JSONL with ids, titles and texts, or id<TAB>text, as MS MARCO has. Raises MalformedInput."""
    return Texts("document", path, _read(path, document_fields))


def query_texts(path: Path) -> Texts:
    """Of queries: JSONL with ids and texts, or TSV (id, text). Raises MalformedInput."""

    def fields(record: object) -> tuple[str, str, str]:
        query_id, text = query_fields(record)
        return query_id, "", text

    return Texts("query", path, _read(path, fields))


def _read(path: Path, fields: Callable[[object], tuple[str, str, str]]) -> Iterable[tuple[str, str, str]]:
    def row(line: bytes) -> tuple[str, str, str]:
        if line.lstrip().startswith(b"{"):
            return fields(json_value(line))
        identifier, tab, text = row_text(line).partition("\t")
        if not tab or not identifier.strip():
            raise BadRecord("neither JSON nor id<TAB>text: give a corpus in BEIR's layout, or MS MARCO's TSV")
        return identifier.strip(), "", text.strip()

    return (found for _, found in parsed(path, byte_lines(path), row))

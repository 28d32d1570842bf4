"""A map from keys to numbers that may be larger than memory: a temporary SQLite file, gone when it is closed.

It holds what must be unique over a whole export (passages of a corpus, groups of a split) in about 2 MB of memory,
however many there are; the file lies where the system keeps temporary files (TMPDIR), about 40 bytes a key.
"""

from __future__ import annotations

import sqlite3
from types import TracebackType
from typing import Self

from qrelay.errors import BackendUnavailable


class Spill:
    """First come, first kept. Use from one thread at a time."""

    def __init__(self) -> None:
        # The empty name: a private file that SQLite deletes, and keeps in memory only up to its cache.
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode=OFF")
        self._database.execute("PRAGMA cache_size=-2048")
        self._database.execute("CREATE TABLE kept (key BLOB PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID")
        self._database.execute("BEGIN")

    def put(self, key: bytes, value: int) -> int | None:
        """Keeps `value` (a signed 64-bit number) for a new `key`; for another, changes nothing. None where the key
        was new, else the value that stands for it.

        Raises:
            BackendUnavailable: the folder for temporary files is full.
        """
        try:
            added = self._database.execute("INSERT OR IGNORE INTO kept VALUES (?, ?)", (key, value))
            if added.rowcount == 1:
                return None
            return int(self._database.execute("SELECT value FROM kept WHERE key = ?", (key,)).fetchone()[0])
        except sqlite3.Error as error:
            raise BackendUnavailable(
                f"cannot keep an export's keys in a temporary file: {error}; free the disk, or name a folder with"
                " more room in TMPDIR"
            ) from error

    def close(self) -> None:
        """Frees the file. Safe to call twice."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

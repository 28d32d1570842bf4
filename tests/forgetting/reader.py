"""A reader of every store: raw bytes, and what they hold packed."""

from __future__ import annotations

import contextlib
import gzip
import re
import sqlite3
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import zstandard

_ZSTD = re.compile(re.escape(b"\x28\xb5\x2f\xfd"))


def holding(folder: Path, plant: str, *, but: tuple[str, ...] = ()) -> list[str]:
    """Where the plant stands in files of the folder, whatever packed it there, but for files with these names."""
    needle = plant.encode()
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in but)
    return [str(path.relative_to(folder)) for path in files if any(needle in each for each in _contents(path))]


def _contents(path: Path) -> Iterator[bytes]:
    data = path.read_bytes()
    yield data
    yield from _unpacked(data)
    if data.startswith(b"SQLite format 3"):
        with sqlite3.connect(path) as connection:
            for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                for row in connection.execute(f'SELECT * FROM "{table}"'):
                    yield from _values(row)
        connection.close()


def _values(row: Any) -> Iterator[bytes]:
    for value in row:
        if isinstance(value, bytes | memoryview):
            yield bytes(value)
            yield from _unpacked(bytes(value))
        elif value is not None:
            yield str(value).encode()


def _unpacked(data: bytes) -> Iterator[bytes]:
    for found in _ZSTD.finditer(data):  # a stream's file has many
        try:
            packed = zstandard.ZstdDecompressor().decompressobj()
            yield (inner := packed.decompress(data[found.start() :]))
            if found.start() or inner[:1] != data[:1]:
                yield from _unpacked(inner)
        except zstandard.ZstdError:
            pass
    for unpack in (gzip.decompress, zlib.decompress):
        with contextlib.suppress(OSError, EOFError, zlib.error):
            yield unpack(data)


def in_database(address: str, plant: str) -> list[str]:
    """Tables of a PostgreSQL database with a row that holds the plant."""
    needle, found = plant.encode(), []
    engine = sa.create_engine(address.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        for name in sa.inspect(connection).get_table_names():
            rows = connection.execute(sa.text(f'SELECT * FROM "{name}"'))
            if any(needle in each for row in rows for each in _values(row)):
                found.append(name)
    engine.dispose()
    return found

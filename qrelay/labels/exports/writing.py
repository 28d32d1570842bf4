"""Between formats and files: where a writer's bytes go, and the two kinds of writers that most formats are.

Sink      a file being written: counts and hashes what passes
Output    gives out sinks by name: one stream, or a file or folder on disk (`files.py`)
Writer    a format at work: items in, bytes into its output's sinks
Lines     a writer of text: bytes of one item after the other
Rows      a writer of Parquet: rows of one item after the other, in row groups of bounded size
"""

from __future__ import annotations

import hashlib
import importlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from qrelay.labels.examples import Example
from qrelay.labels.exports.catalogue import Format
from qrelay.labels.exports.request import Options

if TYPE_CHECKING:
    import pyarrow as pa

_GROUP_ROWS: Final = 8192
_GROUP_BYTES: Final = 8 * 2**20
"""A row group is written when it has so many rows, or about so many bytes of text, whichever comes first."""


class Writable(Protocol):
    """The part of a binary file that a sink needs."""

    def write(self, data: bytes, /) -> Any:
        """Appends `data`."""


class Sink:
    """A file being written: `size` bytes so far, with this `sha256`. Enough of a file object for pyarrow."""

    def __init__(self, target: Writable) -> None:
        self._target: Writable | None = target
        self._sha = hashlib.sha256()
        self.size = 0
        self.closed = False

    def write(self, data: Any) -> int:
        """Appends bytes, or a buffer of them; how many."""
        held = bytes(data)
        if self._target is not None:
            self._target.write(held)
        self._sha.update(held)
        self.size += len(held)
        return len(held)

    def tell(self) -> int:
        """Where the next byte goes."""
        return self.size

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        """The file is the output's to close."""

    def discard(self) -> None:
        """Let go of the file: what a writer that failed still says when it is destroyed goes nowhere."""
        self._target = None

    @property
    def sha256(self) -> str:
        """Of all bytes so far, hexadecimal."""
        return self._sha.hexdigest()


class Output(Protocol):
    """Where an export goes."""

    def open(self, name: str) -> Sink:
        """A new file; its path within the export. An export of one file calls it by an empty name."""


class Writer(Protocol):
    """A format at work."""

    notes: Counter[str]
    """What the manifest shall say beside rows: counts by a stable word."""

    def write(self, item: Example) -> int:
        """One query; the number of rows it gave."""

    def close(self, facts: Mapping[str, Any], /) -> None:
        """After the last query. `facts`: the manifest as far as it is known before the bytes are."""


def open_splits(output: Output, options: Options, suffix: str) -> dict[str, Sink]:
    """A sink a split, `<split><suffix>`; without splits, the one file of the export under the split ""."""
    return {name: output.open(f"{name}{suffix}") for name in options.splits} or {"": output.open("")}


class Lines:
    """A writer of text. `lines`: the lines of one item, each with its end; every one is a row."""

    def __init__(self, sinks: Mapping[str, Sink], lines: Callable[[Example], Iterable[bytes]]) -> None:
        self.notes: Counter[str] = Counter()
        self._sinks = sinks
        self._lines = lines

    def write(self, item: Example) -> int:
        """Writes the item's lines into its split."""
        found = list(self._lines(item))
        if found:
            self._sinks[item.split].write(b"".join(found))
        return len(found)

    def close(self, _facts: Mapping[str, Any], /) -> None:
        """Nothing follows the last line."""


class Rows:
    """A writer of Parquet (zstd). `rows`: the rows of one item, by column name. The same rows are the same bytes with
    the same pyarrow, whose version the file names."""

    def __init__(
        self, sinks: Mapping[str, Sink], schema: pa.Schema, rows: Callable[[Example], Iterable[Mapping[str, Any]]]
    ) -> None:
        import pyarrow.parquet as pq

        self.notes: Counter[str] = Counter()
        self._schema = schema
        self._rows = rows
        self._files = {split: pq.ParquetWriter(sink, schema, compression="zstd") for split, sink in sinks.items()}
        self._held: dict[str, list[Mapping[str, Any]]] = {split: [] for split in sinks}
        self._bytes = dict.fromkeys(sinks, 0)

    def write(self, item: Example) -> int:
        """Holds the item's rows until its split's row group is full."""
        held, count = self._held[item.split], 0
        for row in self._rows(item):
            held.append(row)
            count += 1
            self._bytes[item.split] += _size(row)
            if len(held) >= _GROUP_ROWS or self._bytes[item.split] >= _GROUP_BYTES:
                self._write_group(item.split)
        return count

    def close(self, _facts: Mapping[str, Any], /) -> None:
        """Writes what is held, and the files' footers."""
        for split, file in self._files.items():
            if self._held[split]:
                self._write_group(split)
            file.close()

    def _write_group(self, split: str) -> None:
        import pyarrow as pa

        held = self._held[split]
        self._files[split].write_table(pa.Table.from_pylist(held, schema=self._schema))
        held.clear()
        self._bytes[split] = 0


def _size(value: Any) -> int:
    """About the bytes that a row holds: its texts, and 8 for everything else."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, list):
        return sum(map(_size, value))
    return 8


def open_writer(format_: Format, output: Output, options: Options) -> Any:
    """The writer of a format; see `Writer`."""
    module = importlib.import_module(f"qrelay.labels.exports.formats.{format_.module}")
    if hasattr(module, "open_writer"):
        return module.open_writer(output, options)
    sinks = open_splits(output, options, format_.suffix)
    return Lines(sinks, module.lines) if format_.text else Rows(sinks, module.columns(), module.rows)

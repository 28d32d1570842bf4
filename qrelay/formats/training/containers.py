"""How rows lie in a file: JSONL, CSV and TSV under a header, TSV without one (MS MARCO's), Parquet.

Text files may be gzip. What is written is of the kind that was read; a data set of the hub or of a saved folder is
written as Parquet. Rows are read and written one after the other: memory is a row's, or a row group's.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, Protocol

from qrelay.errors import MalformedInput
from qrelay.formats.datasets import DOCUMENTS, Columns, is_dataset, read_rows
from qrelay.formats.lines import (
    BadRecord,
    all_lines,
    byte_lines,
    decoded,
    json_value,
    parsed,
    refuse_binary,
    row_text,
)
from qrelay.formats.training.example import Row

Kind = Literal["jsonl", "csv", "tsv", "plain-tsv", "parquet"]
TRIPLE: Final = ("query", "positive", "negative")
"""The columns of MS MARCO's triples, which have no header."""
_FIELD_BYTES: Final = 64 << 20
_GROUP_ROWS: Final = 1024
Numbered = Iterator[tuple[int, Row]]
"""(number from 1, row)."""


class Writable(Protocol):
    """The part of a binary file that a writer needs."""

    def write(self, data: bytes, /) -> Any:
        """Appends `data`."""


class RowWriter(Protocol):
    """Writes rows of one kind."""

    def write(self, row: Mapping[str, Any], /) -> None:
        """The next row."""

    def close(self) -> None:
        """After the last row."""


class _Every(Columns):
    """All columns, whatever they are called."""

    def among(self, names: Sequence[str], source: object) -> list[str]:  # noqa: ARG002
        """Each of them."""
        return list(names)


@dataclass(frozen=True)
class Container:
    """A file of rows, of one kind. compressed: whether it is gzip."""

    source: str
    kind: Kind
    compressed: bool = False

    def rows(self) -> Numbered:
        """Every row. Raises MalformedInput: the file cannot be read, or has one that is none."""
        path = Path(self.source)
        if self.kind == "parquet":
            yield from read_rows(self.source, _Every(DOCUMENTS))
        elif self.kind == "jsonl":
            yield from parsed(path, byte_lines(path), _object)
        elif self.kind == "plain-tsv":
            yield from parsed(path, byte_lines(path, check=refuse_binary), _triple)
        else:
            yield from _table(path, "\t" if self.kind == "tsv" else ",")

    def writer(self, sink: Writable, first: Row) -> RowWriter:
        """Writes to `sink` what has the fields of `first`."""
        if self.kind == "parquet":
            return _Parquet(sink, self.source, first)
        out = gzip.GzipFile(fileobj=_File(sink), mode="wb", mtime=0) if self.compressed else None
        return _Text(out or sink, self.kind, first, out.close if out else lambda: None)


def container_of(source: str) -> Container:
    """The kind of a file, by its name and its first line.

    Raises:
        MalformedInput: it cannot be read, or is empty.
    """
    if is_dataset(source):
        return Container(source, "parquet")
    path = Path(source)
    if path.is_dir():
        raise MalformedInput(f"{path} is a folder, but neither of BEIR's layout nor saved by `datasets`: name a file")
    first = next((line for _, line in byte_lines(path)), None)
    if first is None:
        raise MalformedInput(f"{path} is empty: give a training set with at least one row")
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    if first.lstrip()[:1] in (b"{", b"["):
        return Container(source, "jsonl", compressed)
    name = path.name.removesuffix(".gz")
    fields = first.split(b"\t")
    headed = {b"positive", b"pos", b"sentence1", b"label", b"score", b"anchor"} & {each.strip() for each in fields}
    kind: Kind = "csv" if name.endswith(".csv") or len(fields) == 1 else "tsv" if headed else "plain-tsv"
    return Container(source, kind, compressed)


def _object(line: bytes) -> Row:
    found = json_value(line)
    if not isinstance(found, dict):
        raise BadRecord(f"an object a line is expected, not {type(found).__name__}: write the set as JSONL")
    return found


def _triple(line: bytes) -> Row:
    fields = row_text(line).split("\t")
    if len(fields) != len(TRIPLE):
        raise BadRecord(f"{len(fields)} fields: a triple is query, positive and negative, separated by single tabs")
    return dict(zip(TRIPLE, fields, strict=True))


def _table(path: Path, delimiter: str) -> Numbered:
    """Rows under a header; a field in quotes may hold line ends."""
    csv.field_size_limit(_FIELD_BYTES)
    lines = (f"{decoded(line)}\n" for line in all_lines(path, check=refuse_binary))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        header = next(reader, [])
        if len({*header}) < len(header):
            raise BadRecord("two columns have one name: rename one of them")
        for fields in filter(None, reader):
            if len(fields) != len(header):
                raise BadRecord(f"{len(fields)} fields for {len(header)} columns: put fields with commas in quotes")
            yield reader.line_num, dict(zip(header, fields, strict=True))
    except (csv.Error, BadRecord) as error:
        raise MalformedInput(f"{path}:{reader.line_num}: {error}") from error


class _File(io.RawIOBase):
    """A sink as the file object that gzip wants."""

    def __init__(self, sink: Writable) -> None:
        self._sink = sink

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        self._sink.write(bytes(data))
        return len(data)


class _Text:
    """Lines of JSON, or of a table."""

    def __init__(self, sink: Writable, kind: Kind, first: Row, close: Callable[[], None]) -> None:
        self._sink, self._kind, self.close = sink, kind, close
        self._columns = list(first)
        if kind in ("csv", "tsv"):
            self.write(dict(zip(self._columns, self._columns, strict=True)))

    def write(self, row: Mapping[str, Any], /) -> None:
        self._sink.write(self._line(row).encode())

    def _line(self, row: Mapping[str, Any]) -> str:
        if self._kind == "jsonl":
            line = json.dumps(row, ensure_ascii=False)
            with suppress(UnicodeEncodeError):
                line.encode()
                return f"{line}\n"
            return f"{json.dumps(row)}\n"  # a field that we do not read holds half of a character
        if self._kind == "plain-tsv":
            return "\t".join(str(row[name]) for name in TRIPLE) + "\n"
        held = io.StringIO()
        delimiter = "\t" if self._kind == "tsv" else ","
        csv.writer(held, delimiter=delimiter, lineterminator="\n").writerow([row[name] for name in self._columns])
        return held.getvalue()


class _Parquet:
    """Row groups in the schema of what was read, with the columns that came in."""

    def __init__(self, sink: Writable, source: str, first: Row) -> None:
        import pyarrow.parquet as parquet

        self._source, self._schema = source, _schema(source, first)
        self._writer = parquet.ParquetWriter(_File(sink), self._schema)
        self._held: list[Mapping[str, Any]] = []

    def write(self, row: Mapping[str, Any], /) -> None:
        self._held.append(row)
        if len(self._held) >= _GROUP_ROWS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        import pyarrow

        if not self._held:
            return
        try:
            table = pyarrow.Table.from_pylist(self._held, schema=self._schema)
        except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
            raise MalformedInput(f"{self._source}: rows with fields of several kinds ({error}): mend them") from error
        self._writer.write_table(table)
        self._held.clear()


def _schema(source: str, first: Row) -> Any:
    """The source's own columns where it is a Parquet file, else as the first row has them; and those for scores."""
    import pyarrow
    import pyarrow.parquet as parquet

    mine = pyarrow.Table.from_pylist([dict(first)]).schema
    theirs = parquet.read_schema(source) if Path(source).suffix == ".parquet" else mine
    inside = any(_has_score(field.type) for field in mine)
    fields = [_with_score(field, mine.field(field.name).type, inside=inside) for field in theirs]
    numbers = {"scores": pyarrow.list_(pyarrow.float64()), "score": pyarrow.float64()}
    new = {name: mine.field(name).type for name in mine.names if name not in theirs.names}
    added = [pyarrow.field(name, numbers.get(name.split("_")[-1], kind)) for name, kind in new.items()]
    return pyarrow.schema(fields + added)


def _has_score(kind: Any) -> bool:
    import pyarrow

    objects = pyarrow.types.is_list(kind) and pyarrow.types.is_struct(kind.value_type)
    return bool(objects and kind.value_type.get_field_index("score") >= 0)


def _with_score(field: Any, ours: Any, *, inside: bool) -> Any:
    """The field; where scores stand `inside` passages, lists of objects have them; and a column of grades takes
    probabilities where `ours`, what is written, are some."""
    import pyarrow

    kind = field.type
    if inside and pyarrow.types.is_list(kind) and pyarrow.types.is_struct(kind.value_type) and not _has_score(kind):
        members = [kind.value_type.field(place) for place in range(kind.value_type.num_fields)]
        score = pyarrow.field("score", pyarrow.float64())
        return pyarrow.field(field.name, pyarrow.list_(pyarrow.struct([*members, score])))
    if pyarrow.types.is_integer(kind) and pyarrow.types.is_floating(ours):
        return pyarrow.field(field.name, pyarrow.float64())
    return field

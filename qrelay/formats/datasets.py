"""Rows of Parquet files and datasets, and which of their columns are what we need.

| source | what |
|---|---|
| `FILE.parquet` | one file |
| a folder written by `Dataset.save_to_disk` | `FOLDER:split` where it holds several |
| `hf:NAME[:SPLIT[:CONFIG]]` | a dataset of the hub, streamed; the split is `train` unless named |

A column is known by our name for it or by a usual synonym (`records.py`); `--column OURS=THEIRS` says which it is
where it has another. Only columns that mean something to us are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from qrelay.errors import BackendUnavailable, InputError, MalformedInput
from qrelay.formats.records import DOCUMENT_IDS, DOCUMENT_TEXTS, QUERY_IDS, QUERY_TEXTS
from qrelay.nearest import did_you_mean, listed

HUB: Final = "hf:"
_BATCH_ROWS: Final = 1024
_SAVED_MARKERS: Final = ("state.json", "dataset_dict.json")
_SHOWN: Final = 40
"""Columns that an error lists."""

Rows = Iterator[tuple[int, dict[str, Any]]]
"""(number from 1, column -> value)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """What rows are. fields: our name -> the names under which it is known. needed: of each group, one field must be
    there. hint: what else to do where one is not."""

    what: str
    fields: Mapping[str, Sequence[str]]
    needed: Sequence[Sequence[str]]
    hint: str = ""


DOCUMENTS: Final = Kind(
    "document",
    {"_id": DOCUMENT_IDS, "text": DOCUMENT_TEXTS, "title": ("title",), "metadata": ("metadata",)},
    (("_id",), ("text", "title")),
)
_ASKED: Final = {
    "query_id": QUERY_IDS,
    "text": QUERY_TEXTS,
    "attributes": ("attributes",),
    "reference_answers": ("reference_answers",),
}
QUERIES: Final = Kind(
    "query", _ASKED, (("query_id",), ("text",)), ", or --format plain, which makes ids of the texts"
)
QUESTIONS: Final = Kind("query", {name: _ASKED[name] for name in _ASKED if name != "query_id"}, (("text",),))
"""Queries without an id, or whose id does not matter."""


@dataclass(frozen=True, slots=True)
class Columns:
    """Where the fields of a kind of record stand. named: our name -> their column, where it was said."""

    kind: Kind
    named: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, told: Sequence[str], kind: Kind) -> Columns:
        """From `OURS=THEIRS` of the command line. Raises InputError: it is none, or a field occurs twice."""
        named: dict[str, str] = {}
        for each in told:
            ours, equals, theirs = each.partition("=")
            if not equals or not theirs or ours not in kind.fields:
                raise InputError(
                    f"--column {each[:80]!r}: write NAME=COLUMN; a {kind.what} has {listed(kind.fields)}."
                    f"{did_you_mean(ours, kind.fields)}"
                )
            if ours in named:
                raise InputError(f"--column {ours} is given twice: a {kind.what} has one, keep one of the two")
            named[ours] = theirs
        return cls(kind, named)

    def record(self, record: Any) -> Any:
        """A row, or an object of a line, with its fields under our names where they were said to have others."""
        if not self.named or not isinstance(record, dict):
            return record
        replaced = {name for ours in self.named for name in self.kind.fields[ours]}
        kept = {name: value for name, value in record.items() if name not in replaced}
        return {**kept, **{ours: record.get(theirs) for ours, theirs in self.named.items()}}

    def among(self, names: Sequence[str], source: object) -> list[str]:
        """The columns of a table with these names that are to be read. Raises MalformedInput: one is not there."""
        for ours, theirs in self.named.items():
            if theirs not in names:
                raise MalformedInput(
                    f"{source} has no column {theirs!r}; it has {_some(names)}: correct --column"
                    f" {ours}={theirs}.{did_you_mean(theirs, names)}"
                )
        found = {
            ours: [self.named[ours]] if ours in self.named else [name for name in known if name in names]
            for ours, known in self.kind.fields.items()
        }
        for group in self.kind.needed:
            if not any(found[ours] for ours in group):
                known = [name for name in self.kind.fields[group[0]] if name != group[0]]
                raise MalformedInput(
                    f"{source} has no column {group[0]} of a {self.kind.what} (nor {', '.join(known)}); it has"
                    f" {_some(names)}: say which it is with --column {group[0]}=COLUMN{self.kind.hint}"
                )
        return list(dict.fromkeys(name for columns in found.values() for name in columns))


DOCUMENT_COLUMNS: Final = Columns(DOCUMENTS)
QUERY_COLUMNS: Final = Columns(QUERIES)
"""By the names that we know."""


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return listed(names[:_SHOWN], "none") + more


def is_dataset(source: str) -> bool:
    """Whether `read_rows` reads it, by its name or by what stands there."""
    return source.startswith(HUB) or Path(source).suffix == ".parquet" or _saved(source) is not None


def read_rows(source: str, columns: Columns) -> Rows:
    """The rows of a dataset, in its order, as they are asked for: the columns that mean something to us, by their own
    names.

    Raises:
        MalformedInput: no such file or split, it is damaged, or lacks a column; the columns there are, are named.
        BackendUnavailable: the hub does not answer.
    """
    if source.startswith(HUB):
        return _hub(source, columns)
    if saved := _saved(source):
        return _saved_rows(*saved, columns)
    return _parquet(Path(source), columns)


def _saved(source: str) -> tuple[Path, str] | None:
    """(folder, split) of a folder saved by `datasets`."""
    folder, _, split = source.rpartition(":")
    for place, name in ((Path(source), ""), (Path(folder), split)):
        if str(place) and any((place / marker).is_file() for marker in _SAVED_MARKERS):
            return place, name
    return None


def _parquet(path: Path, columns: Columns) -> Rows:
    """`_BATCH_ROWS` rows in memory at a time."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        with parquet.ParquetFile(path) as file:
            wanted = columns.among(file.schema_arrow.names, path)
            batches = file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted)
            yield from enumerate((row for batch in batches for row in batch.to_pylist()), 1)
    except (pyarrow.ArrowException, ValueError, OverflowError, OSError) as error:
        raise MalformedInput(f"{path} cannot be read as Parquet: {error}") from error


def _saved_rows(folder: Path, split: str, columns: Columns) -> Rows:
    import datasets

    try:
        dataset = datasets.load_from_disk(str(folder))
    except Exception as error:  # whatever its readers of JSON and Arrow raise
        raise MalformedInput(f"{folder} is not a folder saved by `datasets`, or is damaged: {error!r}") from error
    if isinstance(dataset, datasets.DatasetDict):
        names = sorted(dataset)
        if not split and len(names) > 1:
            raise MalformedInput(f"{folder} holds the splits {', '.join(names)}: name one, {folder}:{names[0]}")
        if split and split not in names:
            raise MalformedInput(f"{folder} has no split {split!r}; it has {', '.join(names)}")
        dataset = dataset[split or names[0]]
    yield from _rows(dataset, folder, columns)


def _hub(source: str, columns: Columns) -> Rows:
    import datasets

    name, split, config, *more = [*source.removeprefix(HUB).split(":"), "", ""]
    if any(more) or not name:
        raise MalformedInput(f"{source} names no dataset: write {HUB}NAME, {HUB}NAME:SPLIT or {HUB}NAME:SPLIT:CONFIG")
    try:
        dataset = datasets.load_dataset(name, config or None, split=split or "train", streaming=True)
        yield from _rows(dataset, source, columns)
    except (OSError, ValueError, RuntimeError) as error:
        raise BackendUnavailable(
            f"cannot read {source}: {error}. Check the name, the split and the network, or save the dataset "
            "to a folder elsewhere and give that folder."
        ) from error


def _rows(dataset: Any, source: object, columns: Columns) -> Rows:
    """A dataset's; one that is streamed may know its columns only when its first row is there."""
    names = dataset.column_names or list(next(iter(dataset), {}))
    if names:
        yield from enumerate(dataset.select_columns(columns.among(names, source)), 1)

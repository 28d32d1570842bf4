"""Tables about pairs of query and passage: TSV in UTF-8, without quoting, and qrels. The first line says which:

query_id  passage_id  grade  …     under a header, by tabs, in any order and among others; for synonyms see _NAMES
query_id 0 passage_id grade        TREC, by blanks or tabs
query_id passage_id [grade]        the same without TREC's second column
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Final, TypeVar

from qrelay.errors import MalformedInput
from qrelay.formats.lines import BadRecord, byte_lines, parsed, row_text

Grade = TypeVar("Grade", int, float)
BEIR_HEADER: Final = ("query-id", "corpus-id", "score")
QREL: Final = ("query_id", "passage_id", "grade")
_NAMES: Final = {
    "query_id": ("query_id", "query-id", "qid", "query"),
    "passage_id": ("passage_id", "corpus-id", "doc_id", "docid", "pid", "id"),
    "grade": ("grade", "score", "relevance", "label"),
}
_BREAKS: Final = re.compile(r"[\t\n\v\f\r\x1c-\x1e\x85\u2028\u2029]+")


@dataclass(frozen=True, slots=True)
class Layout:
    """columns: their names, in our words. header: the first line as it stands; empty where it is a row already."""

    columns: tuple[str, ...]
    header: tuple[str, ...] = ()

    def fields(self, line: bytes) -> dict[str, str]:
        """Column -> field. Raises BadRecord: another number of fields, or no text."""
        return self._fields(row_text(line))

    def _fields(self, line: str) -> dict[str, str]:
        values = _split(line) if len(self.columns) > 2 else line.split("\t")
        if not self.header and len(values) != len(self.columns) > 2:
            values = line.split()
        if len(values) != len(self.columns):
            raise BadRecord(f"{len(values)} fields for {len(self.columns)} columns: separate them by single tabs")
        return dict(zip(self.columns, values, strict=True))


def read_table(path: Path, needed: Sequence[str] = QREL) -> tuple[Layout, Iterator[tuple[int, bytes]]]:
    """The layout, and (number, line) of the rows, blank lines left out; they are decoded with their fields.

    Raises:
        MalformedInput: the file cannot be read, or the first line does not say where the `needed` columns are.
    """
    lines = byte_lines(path)
    first = next(lines, None)
    if first is None:
        raise MalformedInput(f"{path} is empty: give a file with {', '.join(needed)}")
    ((_, head),) = parsed(path, [first], row_text)
    layout = _layout(head, needed)
    if lacking := [name for name in needed if name not in layout.columns]:
        raise MalformedInput(
            f"{path}:{first[0]}: no {', '.join(lacking)}: give a TSV under a header with {', '.join(needed)}"
            + (f", or with {', '.join(BEIR_HEADER)}, or TREC qrels" if {*needed} <= {*QREL} else "")
        )
    return layout, lines if layout.header else chain([first], lines)


def read_rows(path: Path, needed: Sequence[str] = QREL) -> Iterator[tuple[int, dict[str, str]]]:
    """(number, column -> field) of each row. Raises MalformedInput: also a row of another number of fields."""
    layout, lines = read_table(path, needed)
    return parsed(path, lines, layout.fields)


def grade_of(text: str, number: Callable[[str], Grade] = int) -> Grade:
    """A grade as a number. Raises BadRecord: also where it is not finite, or more than a database's INTEGER holds."""
    return finite(text, f"the grade {text[:40]!r}", number)


def finite(text: str, what: str, number: Callable[[str], Grade]) -> Grade:
    """A number in decimal digits. Raises BadRecord: something else, NaN, infinite or beyond 32 bits as an integer."""
    try:
        found = number(text)
    except ValueError as error:
        raise BadRecord(f"{what} is no {'integer' if number is int else 'number'}") from error
    if number is int and not -(2**31) <= found < 2**31:
        raise BadRecord(f"{what} is too large for a grade")
    if "_" in text or not math.isfinite(found):
        raise BadRecord(f"{what} is no finite number")
    return found


def tsv_line(fields: Iterable[str]) -> bytes:
    """A row; tabs and line breaks become blanks."""
    return ("\t".join(map(on_one_line, fields)) + "\n").encode("utf-8", "replace")


def on_one_line(field: str) -> str:
    """The field with blanks for its tabs and line breaks, as a row holds it."""
    return _BREAKS.sub(" ", field)


def _split(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else line.split()


def _layout(head: str, needed: Sequence[str]) -> Layout:
    """What the first line says; no columns where it says nothing. It is a row only where nothing else is needed."""
    names = tuple(name.strip() for name in _split(head))
    ours = {
        name: column for column, known in _NAMES.items() for name in [each for each in known if each in names][:1]
    }
    if {"query_id", "passage_id"} <= {*ours.values()} or not {*needed} <= {*QREL}:
        return Layout(tuple(ours.get(name, name) for name in names), names)
    if "\t" in head and len(names) == 2 and "grade" not in needed:
        return Layout(QREL[:2])
    if len(head.split()) == 4 or len(names) == 4:
        return Layout(("query_id", "0", "passage_id", "grade"))
    if len(names) == 3 and names[2].lstrip("-").replace(".", "", 1).isdecimal():
        return Layout(QREL)
    return Layout(())

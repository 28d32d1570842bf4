"""A file of people's grades as overrides: TREC qrels, BEIR's qrels, or TSV with named columns.

    trec   query_id 0 passage_id grade                     separated by blanks or tabs, no header
    beir   query-id  corpus-id  score                      TSV under this header
    tsv    query_id  passage_id  grade  [author]  [note]   TSV under a header, in any order and among others

Which one it is, the first line says (`qrelay.formats.tables`). What people filled in of `qrelay judge slice` is such
a TSV; its rows without a grade are left out and counted. Grades are on the scale that the caller names, as they
stand or through a map. With `documents` the ids are documents' (`targets.py`), and a grade below 0 (BEIR's -1, TREC's
spam) is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from qrelay.errors import InputError
from qrelay.formats.annotators import TOOLS, read_export
from qrelay.formats.tables import BEIR_HEADER, QREL, Layout, grade_of, read_table
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, Written, add, check, query_numbers
from qrelay.labels.targets import resolve
from qrelay.scales import peoples_bounds

TREC: Final = "trec"
BEIR: Final = "beir"
TSV: Final = "tsv"


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that cannot be an override. `number` counts from 1."""

    number: int
    problem: str


@dataclass(slots=True)
class Parsed:
    """A file's overrides by line number, its bad lines in order, and how many rows have no grade."""

    format: str
    overrides: dict[int, NewOverride] = field(default_factory=dict)
    bad: list[BadLine] = field(default_factory=list)
    ungraded: int = 0


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a file. `written` is None where bad lines kept all of it out. `unjudged`: lines of documents
    without a judged passage, which are left out."""

    format: str
    written: Written | None
    bad: tuple[BadLine, ...]
    ungraded: int
    unjudged: int = 0


def import_file(
    ledger: Ledger,
    collection: str,
    path: Path,
    *,
    scale: str,
    author: str,
    skip_bad: bool = False,
    documents: bool = False,
    scale_map: Mapping[int, int] | None = None,
) -> Imported:
    """Records a file's grades in one transaction: all of its lines, or with `skip_bad` those that are not bad. A line
    of a query that the ledger lacks is bad too, and one that names a document for a passage. `author`: of the lines
    that name none. documents: the file grades documents. scale_map: the file's grade -> the grade on `scale`.

    Raises:
        MalformedInput: the file cannot be read, or is none of the formats.
        InputError: a scale that is none.
    """
    parsed = parse(path, scale, author, scale_map=scale_map, from_zero=documents)
    with ledger.snapshot() as snapshot:
        known = query_numbers(snapshot.connection, collection, _query_ids(parsed))
    for number in [number for number, each in parsed.overrides.items() if each.query_id not in known]:
        query_id = parsed.overrides.pop(number).query_id
        parsed.bad.append(BadLine(number, f"the ledger holds no query {query_id[:80]!r} in collection {collection}"))
    with ledger.snapshot() as snapshot:
        resolved = resolve(snapshot.connection, parsed.overrides, known, documents=documents)
    parsed.bad += [BadLine(number, problem) for number, problem in resolved.bad.items()]
    bad = tuple(sorted(parsed.bad, key=lambda each: each.number))
    if bad and not skip_bad:
        return Imported(parsed.format, None, bad, parsed.ungraded, resolved.unjudged)
    written = Written(0, 0, 0)
    if resolved.found:
        with ledger.writing("record overrides") as connection:
            written = add(connection, collection, resolved.found, ledger.now_us(), act="import")
    return Imported(parsed.format, written, bad, parsed.ungraded, resolved.unjudged)


def parse_scale_map(text: str, scale: str) -> dict[int, int]:
    """`1=0,2=1,3=2,4=3`: the file's grade, and the grade on `scale` that it is.

    Raises:
        InputError: not such a list, a grade twice, or a grade outside the scale.
    """
    low, high = peoples_bounds(scale)
    found: dict[int, int] = {}
    for part in text.split(","):
        theirs, _, ours = part.partition("=")
        try:
            before, after = int(theirs), int(ours)
        except ValueError:
            raise InputError(f"--scale-map: {part!r} is not THEIRS=OURS: write 1=0,2=1,3=2,4=3") from None
        if before in found:
            raise InputError(f"--scale-map: the grade {before} is there twice: keep one")
        if not low <= after <= high:
            raise InputError(f"--scale-map: {part.strip()} is outside the scale {scale}")
        found[before] = after
    return found


def parse(
    path: Path, scale: str, author: str, *, scale_map: Mapping[int, int] | None = None, from_zero: bool = False
) -> Parsed:
    """The file's lines, without asking the ledger. The same pair twice is bad where the grades differ. from_zero:
    grades below 0 are 0, where the scale has it.

    Raises:
        MalformedInput: see `import_file`.
        InputError: a scale that is none.
    """
    lowest, _ = peoples_bounds(scale)
    read = partial(_grade, scale_map=scale_map, least=0 if from_zero and not lowest else None)
    name, rows = _rows(path)
    parsed, seen = Parsed(name), dict[tuple[str, ...], tuple[int, int]]()
    for number, fields in rows:
        try:
            override = _override(fields(), scale, author, read)
            if override is None or override.grade is None:
                parsed.ungraded += 1
                continue
            pair = (override.query_id, override.passage_id, *([override.author] if name in TOOLS else []))
            line, grade = seen.setdefault(pair, (number, override.grade))
            if grade != override.grade:
                raise InputError(f"the pair of line {line} again with another grade: keep one of the two")
            parsed.overrides[number] = override
        except InputError as error:
            parsed.bad.append(BadLine(number, str(error)))
    return parsed


def _rows(path: Path) -> tuple[str, Iterator[tuple[int, Callable[[], Mapping[str, str]]]]]:
    """The format, and (number, its fields when called, which raises InputError) of each row."""
    if export := read_export(path):
        return export.tool, enumerate(export.rows, 1)
    layout, lines = read_table(path)
    return _format(layout), ((number, partial(layout.fields, line)) for number, line in lines)


def _format(layout: Layout) -> str:
    if not layout.header:
        return TREC
    return BEIR if layout.header[:3] == BEIR_HEADER else TSV


def _override(fields: Mapping[str, str], scale: str, author: str, read: Callable[[str], int]) -> NewOverride | None:
    """One line; None where it has no grade yet."""
    query_id, passage_id, grade = (fields[name].strip() for name in QREL)
    if not grade:
        return None
    named, note = fields.get("author", "").strip(), fields.get("note", "").strip()
    found = NewOverride(query_id, passage_id, read(grade), scale, named or author, note)
    check(found)
    return found


def _grade(text: str, *, scale_map: Mapping[int, int] | None, least: int | None) -> int:
    grade = grade_of(text)
    if scale_map is None:
        return grade if least is None else max(grade, least)
    if grade not in scale_map:
        raise InputError(f"--scale-map says nothing of the grade {grade}: add {grade}=…")
    return scale_map[grade]


def _query_ids(parsed: Parsed) -> list[str]:
    return list(dict.fromkeys(each.query_id for each in parsed.overrides.values()))

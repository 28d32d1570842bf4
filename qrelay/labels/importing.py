"""A file of people's grades as overrides: TREC qrels, BEIR's qrels, or TSV with named columns.

    trec   query_id 0 passage_id grade                     separated by blanks or tabs, no header
    beir   query-id  corpus-id  score                      TSV under this header
    tsv    query_id  passage_id  grade  [author]  [note]   TSV under a header, in any order and among others

Which one it is, the first line says. A slice (`qrelay judge slice`) that people filled in is such a TSV; its rows
without a grade are left out and counted. Grades are on the scale that the caller names, as they stand or through a
map. With `documents` the ids are documents' (`targets.py`), and a grade below 0 (BEIR's -1, TREC's spam) is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from qrelay.errors import InputError, MalformedInput
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, Written, add, check, query_numbers
from qrelay.labels.targets import resolve
from qrelay.scales import bounds

TREC: Final = "trec"
BEIR: Final = "beir"
TSV: Final = "tsv"
_BEIR_NAMES: Final = {"query-id": "query_id", "corpus-id": "passage_id", "score": "grade"}
_NEEDED: Final = ("query_id", "passage_id", "grade")


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
            written = add(connection, collection, resolved.found, ledger.now_us())
    return Imported(parsed.format, written, bad, parsed.ungraded, resolved.unjudged)


def parse_scale_map(text: str, scale: str) -> dict[int, int]:
    """`1=0,2=1,3=2,4=3`: the file's grade, and the grade on `scale` that it is.

    Raises:
        InputError: not such a list, a grade twice, or a grade outside the scale.
    """
    low, high = bounds(scale)
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
    lowest, _ = bounds(scale)
    read = partial(_grade, scale_map=scale_map, least=0 if from_zero and not lowest else None)
    rows = _rows(path)
    form, columns, first = _format(path, rows[0][1] if rows else "")
    parsed, seen = Parsed(form), dict[tuple[str, str], tuple[int, int]]()
    for number, row in rows[first:]:
        try:
            override = _override(row, columns, scale, author, read)
            if override is None or override.grade is None:
                parsed.ungraded += 1
                continue
            line, grade = seen.setdefault((override.query_id, override.passage_id), (number, override.grade))
            if grade != override.grade:
                raise InputError(f"the pair of line {line} again with another grade: keep one of the two")
            parsed.overrides[number] = override
        except InputError as error:
            parsed.bad.append(BadLine(number, str(error)))
    return parsed


def _format(path: Path, head: str) -> tuple[str, tuple[str, ...], int]:
    """(format, the columns' names in our words; none: TREC, how many rows are the header)."""
    names = tuple(name.strip() for name in head.split("\t"))
    if names[:3] == tuple(_BEIR_NAMES):
        return BEIR, tuple(_BEIR_NAMES.get(name, name) for name in names), 1
    if all(name in names for name in _NEEDED):
        return TSV, names, 1
    if len(head.split()) == 4:
        return TREC, (), 0
    raise MalformedInput(
        f"{path}:1: neither TREC qrels (query_id 0 passage_id grade), nor a TSV under a header with query_id,"
        " passage_id and grade, nor BEIR's under query-id, corpus-id, score: the first line decides"
    )


def _override(
    row: str, columns: tuple[str, ...], scale: str, author: str, read: Callable[[str], int]
) -> NewOverride | None:
    """One line; None where it has no grade yet."""
    values = row.split("\t") if columns else row.split()
    names = columns or ("query_id", "0", "passage_id", "grade")
    if len(values) != len(names):
        raise InputError(f"{len(values)} fields for {len(names)} columns")
    fields = dict(zip(names, values, strict=True))
    grade = fields["grade"].strip()
    if columns and not grade:
        return None
    named, note = fields.get("author", "").strip(), fields.get("note", "").strip()
    found = NewOverride(fields["query_id"], fields["passage_id"], read(grade), scale, named or author, note)
    check(found)
    return found


def _grade(text: str, *, scale_map: Mapping[int, int] | None, least: int | None) -> int:
    try:
        grade = int(text)
    except ValueError as error:
        raise InputError(f"the grade {text[:40]!r} is no integer") from error
    if scale_map is None:
        return grade if least is None else max(grade, least)
    if grade not in scale_map:
        raise InputError(f"--scale-map says nothing of the grade {grade}: add {grade}=…")
    return scale_map[grade]


def _rows(path: Path) -> list[tuple[int, str]]:
    """(line number, line) of the lines that are not blank. Only line feeds end a line."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            return [(number, line) for number, line in enumerate(_stripped(file), 1) if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise MalformedInput(f"{path} cannot be read ({type(error).__name__}: {error}): give a UTF-8 file") from error


def _stripped(lines: Iterator[str]) -> Iterator[str]:
    for line in lines:
        yield line.removesuffix("\n").removesuffix("\r")


def _query_ids(parsed: Parsed) -> list[str]:
    return list(dict.fromkeys(each.query_id for each in parsed.overrides.values()))

"""A sample that people graded, or are to grade: qrels, or annotated pairs of `qrelay eval sample`.

Any table of pairs (`tables.py`) with one column more, where pairs and not whole queries were drawn:

    query_id  passage_id  grade  …  inclusion

`inclusion` is the probability with which the pair was drawn. An empty `grade` is one that is still to be given.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qrelay.errors import MalformedInput
from qrelay.formats.documents import Qrels
from qrelay.formats.lines import BadRecord, parsed
from qrelay.formats.tables import QREL, finite, grade_of, read_rows

INCLUSION: Final = "inclusion"


@dataclass(frozen=True)
class GradedSample:
    """grades: those that were given. open: query -> pairs that were drawn and have no grade yet. inclusion: query ->
    document -> probability with which the pair was drawn; empty where whole queries were, else of every pair."""

    grades: Qrels
    open: dict[str, set[str]] = field(default_factory=dict)
    inclusion: dict[str, dict[str, float]] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        """What was drawn by chance: "query", or "pair" within queries."""
        return "pair" if self.inclusion else "query"


def read_graded_sample(path: Path) -> GradedSample:
    """The sample in the file.

    Raises:
        MalformedInput: a line that is no pair, a pair twice, a grade below 0, a probability that is none, or one that
            only some of the pairs have; it names the line.
    """
    found = GradedSample({})
    seen: dict[tuple[str, str], int] = {}
    for number, (query_id, doc_id, grade, chance) in parsed(path, read_rows(path), _row):
        before = seen.setdefault((query_id, doc_id), number)
        if before != number:
            raise MalformedInput(f"{path}:{number}: the pair of line {before} again: keep one of the two")
        if grade is None:
            found.open.setdefault(query_id, set()).add(doc_id)
        else:
            found.grades.setdefault(query_id, {})[doc_id] = grade
        if chance is not None:
            found.inclusion.setdefault(query_id, {})[doc_id] = chance
    if found.inclusion and sum(map(len, found.inclusion.values())) < len(seen):
        raise MalformedInput(f"{path}: some pairs have an {INCLUSION} and others none: use the file as it was drawn")
    return found


def _row(fields: Mapping[str, str]) -> tuple[str, str, int | None, float | None]:
    query_id, doc_id, grade = (fields[name].strip() for name in QREL)
    if not query_id or not doc_id:
        raise BadRecord("the query's or the passage's id is empty: fill it in or remove the row")
    found = grade_of(grade) if grade else None
    if found is not None and found < 0:
        raise BadRecord(f"the grade {found} is below 0: grades count from 0, not relevant")
    told = fields.get(INCLUSION, "").strip()
    chance = finite(told, f"the {INCLUSION} {told[:40]!r}", float) if told else None
    if chance is not None and not 0.0 < chance <= 1.0:
        raise BadRecord(f"the {INCLUSION} {told} is no probability above 0 and up to 1")
    return query_id, doc_id, found, chance

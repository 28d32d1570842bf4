"""People as judges: an override that stands is a label like any other, for those who ask for overrides.

The label is of a *pseudo-judge*, one a scale: its identity is the same in every ledger (model "people", strategy
"human"), so manifests name it as they name judges, and its number is below 0, which no judge has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, Final

import sqlalchemy as sa

from qrelay.identity import judge_digest
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.overrides import bounds, latest
from qrelay.types import JudgeIdentity

HUMAN: Final = "human"
"""The strategy of people, as judges."""


@cache
def pseudo_judge(scale: str) -> tuple[int, str, JudgeIdentity]:
    """(number below 0, hash, identity) of people who grade on this scale: a function of the scale alone.

    Raises:
        InputError: no scale LOW-HIGH.
    """
    low, high = bounds(scale)
    identity = JudgeIdentity("people", "overrides", "", "", HUMAN, scale, "stage-scores=no")
    return -(low * 1000 + high), judge_digest(identity), identity


def pseudo_judges(connection: sa.Connection) -> list[tuple[int, str, JudgeIdentity]]:
    """Those of the scales that the ledger's overrides are on."""
    scales = connection.execute(sa.select(schema.overrides.c.scale).distinct()).scalars()
    return [pseudo_judge(scale) for scale in sorted(scales)]


def label_fields(
    connection: sa.Connection, numbers: Sequence[int], relevant_grades: Mapping[str, int] | None = None
) -> dict[int, list[tuple[Any, ...]]]:
    """query_no -> the fields of `reader.Label` of each override that stands. P(relevant) is 1 at or above the scale's
    relevant grade, else 0; a scale that `relevant_grades` does not name has its upper half's least grade (2 of 0-3).
    """
    found: dict[int, list[tuple[Any, ...]]] = {}
    for number, rows in latest(connection, numbers).items():
        graded = [row for row in rows.values() if row.grade is not None]
        found[number] = [_fields(row, relevant_grades or {}) for row in graded]
    return found


def relevant_grade(scale: str, relevant_grades: Mapping[str, int]) -> int:
    """The least grade by which people call a passage relevant: the named one, else that of the scale's upper half.

    Raises:
        InputError: another scale than the named ones, and no LOW-HIGH.
    """
    if scale in relevant_grades:
        return relevant_grades[scale]
    low, high = bounds(scale)
    return low + (high - low + 2) // 2


def _fields(row: Any, relevant_grades: Mapping[str, int]) -> tuple[Any, ...]:
    low, _ = bounds(row.scale)
    p_relevant = 1.0 if row.grade >= relevant_grade(row.scale, relevant_grades) else 0.0
    return row.passage_id, pseudo_judge(row.scale)[0], row.grade, low, p_relevant, None, 0.0, "", 0

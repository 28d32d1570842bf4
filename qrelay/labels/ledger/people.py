"""People as judges: an override that stands is a label like any other, for those who ask for overrides.

The label is of a *pseudo-judge*, one a scale: its identity is the same in every ledger (model "people", strategy
"human"), so manifests name it as they name judges, and its number is below 0, which no judge has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import sqlalchemy as sa

from qrelay.identity import judge_digest
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.overrides import latest
from qrelay.labels.ledger.precedence import HUMAN
from qrelay.scales import Scale, peoples_bounds
from qrelay.types import JudgeIdentity, retrieval_scores


@cache
def pseudo_judge(scale: str) -> tuple[int, str, JudgeIdentity]:
    """(number below 0, hash, identity) of people who grade on this scale: a function of the scale alone.

    Raises:
        InputError: no scale LOW-HIGH.
    """
    low, high = peoples_bounds(scale)
    identity = JudgeIdentity("people", "overrides", "", "", HUMAN, scale, retrieval_scores(uses=False))
    return -(low * 1000 + high), judge_digest(identity), identity


def pseudo_judges(connection: sa.Connection) -> list[tuple[int, str, JudgeIdentity]]:
    """Those of the scales that the ledger's overrides are on."""
    scales = connection.execute(sa.select(schema.overrides.c.scale).distinct()).scalars()
    return [pseudo_judge(scale) for scale in sorted(scales)]


def label_fields(
    connection: sa.Connection, numbers: Sequence[int], relevant_grades: Mapping[str, int]
) -> dict[int, list[tuple[Any, ...]]]:
    """query_no -> the fields of `reader.Label`, up to `expected`, of each override that stands. P(relevant) is 1
    where the grade is relevant (`Scale.halved`), else 0."""
    found: dict[int, list[tuple[Any, ...]]] = {}
    for number, rows in latest(connection, numbers).items():
        graded = [row for row in rows.values() if row.grade is not None]
        found[number] = [_fields(row, relevant_grades) for row in graded]
    return found


def _fields(row: Any, relevant_grades: Mapping[str, int]) -> tuple[Any, ...]:
    scale, grade = Scale.halved(row.scale, relevant_grades), row.grade
    number, p_relevant = pseudo_judge(row.scale)[0], float(scale.relevant(grade))
    return row.passage_id, number, grade, scale.min_grade, p_relevant, None, 0.0, "", 0, scale.share(grade)

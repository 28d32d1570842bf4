"""Worked examples for the prompt, taken from the pairs that people graded.

They are examples, not knowledge: a pair that is evaluated must be none of them, nor share its query with one.
`unseen` leaves such pairs out.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from qrelay.errors import ConfigError
from qrelay.formats.annotated_pairs import GradedPair, read_annotated_pairs, relevant_from
from qrelay.identity import digest
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies import make_strategy
from qrelay.judging.strategies.chat import ChatGrade, Shot
from qrelay.judging.strategies.grading import labels
from qrelay.scales import Scale
from qrelay.words import normalised

log = logging.getLogger(__name__)

_SEED: Final = "shots-1"
_DRAWN: Final = 16
"""Of so many pairs, as the lot orders them, the shortest comes first: every prompt pays for the examples."""


def read_shots(settings: JudgeSettings) -> tuple[Shot, ...]:
    """`settings.shots` examples of `settings.slice`; none for a strategy that asks for no grade.

    Raises:
        MalformedInput: the annotated pairs cannot be read.
        ConfigError: it has not enough queries.
    """
    if not settings.shots:
        return ()
    strategy = make_strategy(settings.strategy, settings.scale, rubric=settings.rubric)
    if not isinstance(strategy, ChatGrade):
        return ()
    return pick_shots(read_annotated_pairs(Path(settings.slice)), strategy.spec.scale, settings.shots)


def pick_shots(pairs: Sequence[GradedPair], scale: Scale, count: int) -> tuple[Shot, ...]:
    """`count` examples: the grades take turns, from both ends inwards; of each grade the shortest of a seeded draw;
    never two of one query. The same pairs give the same examples, in whatever order they come.

    Raises:
        MalformedInput: the pairs have fewer than two different grades.
        ConfigError: there are not enough queries.
    """
    replies = replies_of(pairs, scale)
    waiting = {grade: _drawn(pairs, grade) for grade in _inwards(replies)}
    taken: set[str] = set()
    shots: list[Shot] = []
    while len(shots) < count and any(waiting.values()):
        for grade, queue in waiting.items():
            fresh = next((pair for pair in queue if not taken & {pair.query_id, pair.query}), None)
            waiting[grade] = queue[queue.index(fresh) + 1 :] if fresh else []
            if fresh and len(shots) < count:
                taken |= {fresh.query_id, fresh.query}
                shots.append(Shot(fresh.query, fresh.title, fresh.text, replies[grade], fresh.metadata))
    if len(shots) < count:
        raise ConfigError(
            f"judge.slice gives {len(shots)} worked examples of different queries, judge.shots asks for {count}: "
            "lower judge.shots or annotate pairs of more queries"
        )
    return tuple(shots)


def unseen(pairs: Sequence[GradedPair], judges: Iterable[JudgeSettings]) -> list[GradedPair]:
    """Those of whose query no judge was shown an example: the others are no evidence.

    Raises:
        MalformedInput, ConfigError: see `read_shots`.
        ConfigError: none is left.
    """
    shown = {normalised(shot.query) for judge in judges for shot in read_shots(judge)}
    left = [pair for pair in pairs if normalised(pair.query) not in shown]
    if pairs and not left:
        raise ConfigError("every pair is of a query that judge.shots shows as an example: annotate pairs of others")
    return left


def replies_of(pairs: Iterable[GradedPair], scale: Scale) -> dict[int, str]:
    """The reply on `scale` that each grade found in the pairs deserves.

    On a scale of two, the upper half of the pairs' range is relevant; on one as long as that range, grades go by
    rank; on any other, linearly and rounded.

    Raises:
        MalformedInput: fewer than two different grades.
    """
    grades = sorted({pair.grade for pair in pairs if pair.grade is not None})
    relevant, names = relevant_from(grades), labels(scale)
    low, high = grades[0], grades[-1]
    if len(names) == 2:
        return {grade: names[grade >= relevant] for grade in grades}
    step = (len(names) - 1) / (high - low)
    return {grade: names[int((grade - low) * step + 0.5)] for grade in grades}


def _drawn(pairs: Sequence[GradedPair], grade: int) -> list[GradedPair]:
    """The grade's pairs that have a text in a seeded order, draw by draw, in each the shortest passage first."""
    usable = sorted((pair for pair in pairs if pair.grade == grade and pair.text.strip()), key=_lot)
    places = sorted(range(len(usable)), key=lambda n: (n // _DRAWN, len(usable[n].text.split()), n))
    return [usable[n] for n in places]


def _lot(pair: GradedPair) -> str:
    return digest(_SEED, pair.query_id, pair.passage_id)


def _inwards(grades: Iterable[int]) -> list[int]:
    """Lowest, highest, second lowest, …"""
    left = sorted(grades)
    return [left.pop(0 if n % 2 == 0 else -1) for n in range(len(left))]

"""On which scale people grade a collection, and what its grades mean."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Final

from qrelay.errors import ConfigError, InputError
from qrelay.judging.strategies.rubric import Rubric, load_rubric, shipped
from qrelay.scales import Scale, peoples_bounds
from qrelay.web.site import Site

USUAL: Final = "0-3"
SCALES: Final = ("0-1", "0-3", "1-4")
"""Those with a rubric that comes with qrelay."""
MOST_GRADES: Final = 10
"""A grade is one key."""


@dataclass(frozen=True, slots=True)
class Guide:
    """meanings: of each grade of `scale`, "" where nothing says; relevant_from: the least grade that is relevant;
    rubric: whose words these are."""

    scale: str
    meanings: dict[int, str]
    relevant_from: int
    rubric: str


def peoples_scale(chosen: str, decided: str, judges: Iterable[str]) -> str:
    """The scale to grade on: the `chosen` one, else the one of the collection's latest decision, else the first of
    the judges' that people can grade on, else 0-3. Raises InputError: the chosen one is none."""
    if chosen:
        return _usable(chosen)
    for each in (decided, *(name.partition(":")[0] for name in judges)):
        try:
            return _usable(each)
        except InputError:
            continue
    return USUAL


def guide(site: Site, scale: str) -> Guide:
    """The words of the installation's own rubric where it has this scale, else of one that comes with qrelay."""
    low, high = peoples_bounds(scale)
    rubric = next(
        (each for each in _rubrics(site.rubric) if sorted(each.scale.grades) == [*range(low, high + 1)]), None
    )
    meanings = {grade: rubric.scale.grades[grade].meaning if rubric else "" for grade in range(low, high + 1)}
    relevant = Scale.halved(scale, site.sink.rules.relevant_grades).relevant_grade
    return Guide(scale, meanings, relevant, rubric.strategy if rubric else "")


def _usable(scale: str) -> str:
    low, high = peoples_bounds(scale)
    if high > 9 or high - low >= MOST_GRADES:
        raise InputError(f"scale {scale[:40]!r} has grades that are no digit: grade on one within 0-9")
    return scale


@cache
def _rubrics(own: str) -> tuple[Rubric, ...]:
    """The installation's own, "" for none, and those that come with qrelay; as they are when first asked for."""
    names = [own, *(name for name in (*(f"graded-{scale}" for scale in SCALES), "binary") if name in shipped())]
    found = []
    for name in filter(None, names):
        with contextlib.suppress(ConfigError):  # the judge says so when it starts; people can grade without its words
            found.append(load_rubric(name))
    return tuple(each for each in found if isinstance(each, Rubric))

"""Scales of grades, and which grades on them mean relevant: decided here alone, for judges, people and files.

Scale.named("0-3").relevant(2)                      # True: 2 and 3 are relevant
Scale.named("stars", {"stars": 4}).relevant(3)      # False
Scale.named("0-4:2").relevant(2)                    # True: a rubric's scale says so itself
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from qrelay.errors import InputError

RELEVANT_GRADE: Final[Mapping[str, int]] = {"0-1": 1, "0-3": 2, "1-4": 3}
"""The least grade that counts as relevant, by scale; `sink.relevant_grades` adds scales and changes these."""
_NAME: Final = re.compile(r"(\d{1,3})-(\d{1,3})(?::(\d{1,3}))?")
"""LOW-HIGH, and the least relevant grade where the name says it."""


@dataclass(frozen=True, slots=True)
class Scale:
    """The grades of a judge or of people; those from `relevant_grade` on are relevant. `variants[i]`: the case-folded
    replies that stand for grade `min_grade + i`, the canonical one first; none where nobody replies in words."""

    name: str
    relevant_grade: int
    variants: tuple[tuple[str, ...], ...] = ()

    @classmethod
    def named(cls, name: str, relevant_grades: Mapping[str, int] = RELEVANT_GRADE) -> Scale:
        """A scale whose relevant grade is said.

        Raises:
            InputError: `relevant_grades` does not name it.
        """
        relevant = relevant_grades.get(name, _said(name))
        if relevant is None:
            raise InputError(
                f"scale {name!r} of a judge has no relevant grade: set sink.relevant_grades, which knows"
                f" {', '.join(sorted(relevant_grades))}"
            )
        return cls(name, relevant)

    @classmethod
    def of(cls, low: int, high: int, relevant_grade: int, variants: tuple[tuple[str, ...], ...] = ()) -> Scale:
        """The scale from `low` to `high`. Where its relevant grade is not the one that LOW-HIGH has everywhere, its
        name says it (`0-4:2`), so that two scales that differ in it have two names."""
        name = f"{low}-{high}"
        if RELEVANT_GRADE.get(name) != relevant_grade:
            name = f"{name}:{relevant_grade}"
        return cls(name, relevant_grade, variants)

    @classmethod
    def halved(
        cls,
        name: str,
        relevant_grades: Mapping[str, int] = RELEVANT_GRADE,
        variants: tuple[tuple[str, ...], ...] = (),
    ) -> Scale:
        """A scale whose upper half is relevant where `relevant_grades` does not say otherwise.

        Raises:
            InputError: it is neither named nor LOW-HIGH.
        """
        relevant = relevant_grades.get(name, _said(name))
        return cls(name, upper_half(*bounds(name)) if relevant is None else relevant, variants)

    @property
    def min_grade(self) -> int:
        """The worst grade. Raises InputError: the name is no LOW-HIGH."""
        return bounds(self.name)[0]

    @property
    def max_grade(self) -> int:
        """The best grade. Raises InputError: the name is no LOW-HIGH."""
        return bounds(self.name)[1]

    def share(self, grade: int) -> float:
        """The grade as a share of the way from the worst, 0, to the best, 1. Raises InputError: no LOW-HIGH."""
        return (grade - self.min_grade) / (self.max_grade - self.min_grade)

    def relevant(self, grade: int | None) -> bool:
        """Whether the grade means relevant; a missing one does not."""
        return grade is not None and grade >= self.relevant_grade


@lru_cache(256)
def bounds(scale: str) -> tuple[int, int]:
    """The least and the highest grade of a scale LOW-HIGH or LOW-HIGH:RELEVANT.

    Raises:
        InputError: it is not one.
    """
    found = _NAME.fullmatch(scale)
    if found is None or not int(found[1]) < int(found[3] or found[2]) <= int(found[2]):
        raise InputError(f"scale {scale[:40]!r} is not one: give its least and its highest grade, as 0-3 or 1-4")
    return int(found[1]), int(found[2])


def peoples_bounds(scale: str) -> tuple[int, int]:
    """The least and the highest grade of a scale that people grade on, LOW-HIGH.

    Raises:
        InputError: it is not one.
    """
    if ":" in scale:
        raise InputError(
            f"scale {scale[:40]!r} is a judge's: people grade on {scale[:40].partition(':')[0]}, and"
            " sink.relevant_grades says from which grade on that means relevant"
        )
    return bounds(scale)


def known(name: str, relevant_grades: Mapping[str, int] = RELEVANT_GRADE) -> bool:
    """Whether the scale's relevant grade is said: by `relevant_grades`, or by its name."""
    return name in relevant_grades or _said(name) is not None


def _said(name: str) -> int | None:
    """The least relevant grade that the scale's name says, if it says one."""
    found = _NAME.fullmatch(name)
    return int(found[3]) if found and found[3] and int(found[1]) < int(found[3]) <= int(found[2]) else None


def upper_half(low: int, high: int) -> int:
    """The least grade of the upper half of a range: 3 of 1 to 4, 2 of 0 to 3 and of 0 to 2, 1 of 0 to 1."""
    return low + (high - low + 2) // 2

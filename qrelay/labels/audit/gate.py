"""`--fail-on`: conditions on figures, parsed strictly and never executed.

    false_negative_rate>0.02, conflicts>0, judged@10<0.9

name, one of > >= < <=, and a number; joined by commas. A condition that holds is a violation. So is one on a figure
that was not measured: what nobody looked at has not passed.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from qrelay.errors import InputError
from qrelay.labels.audit.figures import FIGURES, Figure, rounded

_CONDITION: Final = re.compile(r"([a-z_]+(?:@\d+)?)\s*(>=|<=|>|<)\s*(\d{1,9}(?:\.\d{1,9})?)")
_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition under which the audit fails."""

    name: str
    operator: str
    bound: float

    def __str__(self) -> str:
        return f"{self.name}{self.operator}{self.bound:g}"


def parse_conditions(text: str) -> list[Condition]:
    """The conditions in `text`, in order; none where it is empty.

    Raises:
        InputError: a condition that is not understood, or on an unknown figure; names all figures.
    """
    return [_condition(part.strip()) for part in text.split(",")] if text.strip() else []


def _condition(part: str) -> Condition:
    found = _CONDITION.fullmatch(part)
    if found is None:
        raise InputError(
            f"fail-on: {part[:80]!r} is not understood: write NAME>NUMBER (also >= < <=), joined by commas, with"
            f" NAME one of {', '.join(FIGURES)}"
        )
    if found[1] not in FIGURES:
        raise InputError(f"fail-on: there is no figure {found[1]!r}; there are {', '.join(FIGURES)}")
    return Condition(found[1], found[2], float(found[3]))


def judge(conditions: list[Condition], figures: Mapping[str, Figure]) -> dict[str, Any]:
    """passed: no condition holds; conditions: as text; violations: each with condition, figure, value, low, high and
    why, which says why there is no value where there is none."""
    violations = [
        {
            "condition": str(each),
            "figure": each.name,
            **{name: rounded(getattr(figures[each.name], name)) for name in ("value", "low", "high")},
            "why": figures[each.name].why,
        }
        for each in conditions
        if _violated(each, figures[each.name])
    ]
    return {"passed": not violations, "conditions": [str(each) for each in conditions], "violations": violations}


def _violated(condition: Condition, figure: Figure) -> bool:
    return figure.value is None or _COMPARE[condition.operator](figure.value, condition.bound)

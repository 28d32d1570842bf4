"""Conditions are parsed strictly; what was not measured has not passed."""

from __future__ import annotations

import pytest

from qrelay.errors import InputError
from qrelay.labels.audit.figures import FIGURES, Figure, not_measured
from qrelay.labels.audit.gate import judge, parse_conditions


def test_every_figure_can_be_in_a_condition() -> None:
    for name in FIGURES:
        assert [str(each) for each in parse_conditions(f" {name} >= 0.5 ")] == [f"{name}>=0.5"]


@pytest.mark.parametrize(
    "text",
    ["conflicts", "conflicts>", "conflicts=0", "conflicts>zero", "conflicts>0,", "conflicts>0;leakage>0",
     "conflicts>-1", "__import__('os')>0", "conflicts>1e9"],
)  # fmt: skip
def test_what_is_not_a_condition_is_refused_with_the_names(text: str) -> None:
    with pytest.raises(InputError, match="conflicts_exported"):
        parse_conditions(text)


def test_an_unknown_figure_is_refused_with_the_names() -> None:
    with pytest.raises(InputError, match=r"no figure 'conflict'; there are .*false_negative_rate"):
        parse_conditions("conflict>0")


@pytest.mark.parametrize(
    ("text", "value", "passed"),
    [
        ("conflicts>2", 2, True),
        ("conflicts>2", 3, False),
        ("conflicts>=2", 2, False),
        ("conflicts<2", 2, True),
        ("conflicts<2", 1, False),
        ("conflicts<=2", 2, False),
    ],
)
def test_a_condition_that_holds_is_a_violation(text: str, value: float, passed: bool) -> None:
    assert judge(parse_conditions(text), {"conflicts": Figure(value)})["passed"] is passed


def test_every_violation_is_given_with_its_figure() -> None:
    figures = {"conflicts": Figure(4), "leakage": not_measured("no set"), "missing_share": Figure(0.1)}
    found = judge(parse_conditions("conflicts>0,leakage>0,missing_share>0.5"), figures)
    assert [(each["condition"], each["value"], each["why"]) for each in found["violations"]] == [
        ("conflicts>0", 4, ""),
        ("leakage>0", None, "no set"),
    ]

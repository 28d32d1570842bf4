"""Grades of a later period are compared with the first one's, judge by judge."""

from __future__ import annotations

import pytest

from qrelay.labels.audit.drift import homogeneity, stability
from qrelay.labels.ledger.ledger import Ledger
from qrelay.types import JudgedSet
from tests.labels.audit.sets import HASH, Row, commit, record, report, value
from tests.labels.builders import graded, later

WEEK_S = 7 * 24 * 3600


def graded_at(query_id: str, seconds: float, zeros: int, threes: int) -> JudgedSet:
    rows = [Row(f"d{i}", graded(0 if i < zeros else 3)) for i in range(zeros + threes)]
    return record(query_id, *rows, at=later(seconds))


def test_a_shift_of_grades_is_measured_against_the_first_period(ledger: Ledger) -> None:
    commit(ledger, graded_at("q1", 0, 20, 20), graded_at("q2", 500, 10, 30), graded_at("q3", 1000, 1, 1))
    found = report(ledger, periods=3)
    rows = found["checks"]["drift"]["judges"][HASH]
    assert [(row["period"], row["graded"], row["grades"]) for row in rows] == [
        (0, 40, {"0": 20, "3": 20}),
        (1, 40, {"0": 10, "3": 30}),
        (2, 2, {"0": 1, "3": 1}),
    ]
    # By hand: (10.5 - 20.5)/41 ln(10.5/20.5) + (30.5 - 20.5)/41 ln(30.5/20.5); chi-square = 80 * 400^2 / 2.4e6
    assert rows[1]["psi"] == value(found, "drift_psi") == pytest.approx(0.2601, abs=1e-4)
    assert rows[1]["p_value"] == pytest.approx(0.02092, abs=1e-5)
    assert (rows[0]["psi"], rows[2]["psi"]) == (None, None)


def test_weeks_are_counted_from_the_first_label(ledger: Ledger) -> None:
    commit(ledger, graded_at("q1", 0, 20, 20), graded_at("q2", 2.5 * WEEK_S, 20, 20))
    found = report(ledger, periods=None)
    assert [row["period"] for row in found["checks"]["drift"]["judges"][HASH]] == [0, 2]
    assert [start[:10] for start in found["checks"]["drift"]["periods"]] == ["2026-01-02", "2026-01-09", "2026-01-16"]
    assert value(found, "drift_psi") == 0.0
    assert value(found, "drift_p_value") == 1.0


def test_one_period_measures_no_drift(ledger: Ledger) -> None:
    commit(ledger, graded_at("q1", 0, 40, 40))
    figure = report(ledger)["figures"]["drift_psi"]
    assert (figure["value"], "two periods" in figure["why"]) == (None, True)


def test_the_least_p_is_corrected_for_the_number_of_comparisons(ledger: Ledger) -> None:
    sets = [graded_at("q1", 0, 20, 20), graded_at("q2", 500, 10, 30), graded_at("q3", 1000, 20, 20)]
    commit(ledger, *sets)
    assert value(report(ledger, periods=3), "drift_p_value") == pytest.approx(2 * 0.020921, abs=1e-5)


def test_a_single_grade_cannot_differ() -> None:
    assert homogeneity([30, 0], [50, 0]) == 1.0
    assert stability([30], [50]) == 0.0

"""One evaluation that several modules look at: its bootstraps take seconds."""

from __future__ import annotations

import numpy as np
import pytest

from qrelay.judging.qualification.systems import Evaluation, evaluate
from tests.judging.qualification.tables import P, made


@pytest.fixture(scope="session")
def judged_well() -> Evaluation:
    """12 queries of 6 passages, 2 relevant. Judge "sharp" is right; judge "shy" ranks as well, but never says more
    than 0.35; "dense" ranks at random."""
    rng = np.random.default_rng(3)
    grades = [[1, 1, 0, 0, 0, 0]] * 12

    def around(relevant: float, other: float) -> list[list[P]]:
        return [[float((relevant if g else other) + rng.uniform(-0.04, 0.04)) for g in row] for row in grades]

    judges = {"sharp": around(0.9, 0.1), "shy": around(0.31, 0.05)}
    return evaluate(made(grades, judges, {"dense": rng.random((12, 6)).tolist()}), {})

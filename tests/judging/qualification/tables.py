"""Made tables: labels whose P(relevant) the test chooses, beside grades that it chooses too."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from qrelay.formats.annotated_pairs import GradedPair
from qrelay.identity import judge_digest
from qrelay.judging.qualification.table import Table
from qrelay.types import Graded, JudgeIdentity, Judgment, Missing
from tests.judging.samples import NOW

P = float | None
"""P(relevant) of a made label; None: it is missing."""


def identity(name: str) -> JudgeIdentity:
    return JudgeIdentity(name, "1", "none", "p" * 64, "binary", "0-1", "made")


def outcome(p: P) -> Graded | Missing:
    return Missing("timeout", "made so") if p is None else graded(p)


def graded(p: float) -> Graded:
    entropy = -sum(q * math.log(q) for q in (p, 1 - p) if q)
    return Graded(int(p > 0.5), 0, (1 - p, p), p, entropy, p)


def pair(query: int, passage: int, grade: int | None) -> GradedPair:
    return GradedPair(f"q{query:03}", f"d{passage}", grade, f"question {query}?", "", f"passage {query} {passage}")


def made(
    grades: Sequence[Sequence[int | None]],
    judges: Mapping[str, Sequence[Sequence[P]]],
    stages: Mapping[str, Sequence[Sequence[float]]] | None = None,
    *,
    relevant_from: int = 1,
) -> Table:
    """A table from lists of lists: a row a query, a column a passage."""
    pairs = tuple(pair(q, d, grade) for q, row in enumerate(grades) for d, grade in enumerate(row))
    labels = {
        name: tuple(
            Judgment(f"d{d}", f"{name} {q} {d}", outcome(p), identity(name), NOW, prompt_tokens=10)
            for q, row in enumerate(ps)
            for d, p in enumerate(row)
        )
        for name, ps in judges.items()
    }
    scores = {name: np.concatenate([np.array(row, float) for row in rows]) for name, rows in (stages or {}).items()}
    return Table(pairs, relevant_from, labels, {name: judge_digest(identity(name)) for name in judges}, scores)


def noisy(seed: int = 0, queries: int = 12, top: int = 1, relevant_from: int = 1) -> Table:
    """Grades 0 to `top` by chance; a judge "a" that knows a good deal of them, "b" less, "dense" a little."""
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, top + 1, (queries, 6))

    def knowing(spread: float) -> list[list[P]]:
        logits = 4.0 * (grades / top - 0.5) + rng.normal(0, spread, grades.shape)
        return [[float(p) for p in row] for row in 1 / (1 + np.exp(-logits))]

    dense = grades / top + rng.normal(0, 1.0, grades.shape)
    shown = [[int(grade) for grade in row] for row in grades]
    judges = {"a": knowing(1.0), "b": knowing(2.0)}
    return made(shown, judges, {"dense": dense.tolist()}, relevant_from=relevant_from)

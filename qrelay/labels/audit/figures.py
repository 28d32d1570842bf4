"""The figures of an audit: their names, and a number that may not have been measured.

A figure that nothing measured has no value and says why; it is never 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from qrelay.errors import InternalError

JUDGED_AT: Final = (5, 10, 20)

FIGURES: Final = {
    "queries": "queries of the collection",
    "examples": "queries with a training example: a positive and a hard negative",
    "positives": "positives of these examples",
    "negatives": "negatives of these examples, hard and easy",
    "false_negative_rate": "share of sampled negatives that a second label calls relevant",
    "false_negative_rate_low": "lower bound of its 95% interval",
    "false_negative_rate_high": "upper bound of its 95% interval",
    "conflicts": "texts of a query with grades that contradict each other, by passages or by judges",
    "conflicts_exported": "of these, within the labels that exports take",
    "conflicts_between_judges": "of these, one passage graded differently by judges",
    "conflicts_relevance": "of these, relevant by one label and not by another",
    "near_duplicate_share": "share of distinct training passages that are near-duplicates of another one",
    "near_duplicate_negatives": "negatives that are near-duplicates of a positive of their query",
    "near_duplicate_conflicts": "near-duplicates within a query of which one is relevant and one is not",
    "leakage": "evaluation queries and passages found in the training data",
    "leaked_queries": "evaluation queries found among the queries of the collection",
    "leaked_passages": "evaluation passages found among positives and negatives",
    "drift_psi": "largest population stability index of a judge's grades against its first period",
    "drift_p_value": "least chi-square p-value of these comparisons, Bonferroni-corrected",
    **{f"judged@{k}": f"graded share of the top {k}, of the system where it is least" for k in JUDGED_AT},
    "missing_share": "share of labelled pairs whose label is missing",
    "cached_share": "share of measurements that came from the cache",
}
"""name -> what it is, for people and for the gate."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number with its interval where it is an estimate, and `n`, what it rests on. `value` None: not measured, and
    then `why` says why."""

    value: float | None
    n: int | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """value, low, high, n, why; numbers to six significant digits."""
        numbers = {name: rounded(getattr(self, name)) for name in ("value", "low", "high")}
        return {**numbers, "n": self.n, "why": self.why}


def not_measured(why: str) -> Figure:
    """A figure without a value."""
    return Figure(None, why=why)


def share(part: int, whole: int, why: str) -> Figure:
    """A census: all of `whole` was counted, so there is no interval. `why`: said where there is nothing to count."""
    return Figure(part / whole, whole) if whole else not_measured(why)


def estimate(successes: int, n: int) -> Figure:
    """A share of a random sample with Wilson's 95% interval."""
    from qrelay.stats.intervals import wilson

    if n < 1:
        raise InternalError("an estimate from no observation: this is a bug")
    return Figure(successes / n, n, *wilson(successes, n))


def rounded(number: float | None) -> float | None:
    """To six significant digits, as reports show it; whole numbers stay whole."""
    return float(f"{number:.6g}") if isinstance(number, float) else number

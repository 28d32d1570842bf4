"""The decision, from numbers alone: what each rule demands, what was found, and one sentence why.

    better     the candidate's mean is above the baseline's by more than `minimum_effect`: by the paired
               randomisation test (p at most alpha) and by the bootstrap bound, both one-sided
    no worse   on a guard: the one-sided bootstrap bound of the difference is above -max_drop

Tests: Smucker, Allan, Carterette, "A comparison of statistical significance tests for IR evaluation" (CIKM 2007), one
side of it; percentile bootstrap over queries (`qrelay.stats.paired`). "Better" needs a difference above
0, so that of two models at most one passes against the other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qrelay.errors import InputError
from qrelay.stats.intervals import percentile_interval
from qrelay.stats.paired import bootstrap_means

Values = npt.NDArray[np.float64]
BETTER: Final = "better"
NO_WORSE: Final = "no worse"
_RESAMPLES: Final = 10_000
_TIE: Final = 1e-12
_AT_ONCE: Final = 1000


@dataclass(frozen=True, slots=True)
class Row:
    """One rule. Figures are None where the rule has none. interval: of the difference, its lower bound one-sided at
    `alpha`. threshold: what was demanded, in words; `why`: one sentence on how it came out."""

    rule: str
    passed: bool
    why: str
    set: str = ""
    metric: str = ""
    queries: int | None = None
    baseline: float | None = None
    candidate: float | None = None
    difference: float | None = None
    interval: tuple[float, float] | None = None
    p: float | None = None
    threshold: str = ""


@dataclass(frozen=True, slots=True)
class Pair:
    """Both models' values on one set, query by query. baseline, candidate: [queries], in one order."""

    set: str
    metric: str
    baseline: Values
    candidate: Values


@dataclass(frozen=True, slots=True)
class Decision:
    """version against the version `against` (empty: the configured model, which `baseline` names)."""

    version: str
    slot: str
    against: str
    baseline: str
    rows: tuple[Row, ...]

    @property
    def passed(self) -> bool:
        """Every rule is met, and one of them says that it is better."""
        return any(row.rule == BETTER for row in self.rows) and all(row.passed for row in self.rows)

    @property
    def why(self) -> str:
        """One sentence: the first rule that it failed, or what it gained."""
        failed = [row for row in self.rows if not row.passed]
        if failed:
            more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
            return f"{failed[0].why}{more}"
        gained = [row.why for row in self.rows if row.rule == BETTER]
        guards = sum(row.rule == NO_WORSE for row in self.rows)
        held = f", and no worse on {guards} guard set(s)" if guards else ""
        return f"{gained[0]}{held}" if gained else "no rule says that it is better: this decides nothing"

    def as_json(self) -> dict[str, Any]:
        """The report that the registry records."""
        return {
            "version": self.version,
            "slot": self.slot,
            "against": self.against,
            "baseline": self.baseline,
            "passed": self.passed,
            "why": self.why,
            "rows": [asdict(row) for row in self.rows],
        }


def decision_of(report: Mapping[str, Any]) -> Decision:
    """The decision that `as_json` wrote. Raises InputError: it is none."""
    try:
        rows = tuple(Row(**{**row, "interval": row["interval"] and tuple(row["interval"])}) for row in report["rows"])
        return Decision(report["version"], report["slot"], report["against"], report["baseline"], rows)
    except (KeyError, TypeError) as error:
        raise InputError(f"not a report of the gate ({error}): run `qrelay models gate` again") from error


def better(pair: Pair, *, alpha: float, minimum_effect: float, min_queries: int, seed: int = 0) -> Row:
    """Whether the candidate is better by more than `minimum_effect`."""
    if too_few := _too_few(pair, BETTER, min_queries):
        return too_few
    found = _compared(pair, alpha, seed)
    p = randomisation_p(pair.candidate - pair.baseline - minimum_effect, seed=seed)
    low = found.interval[0]
    passed = bool(p <= alpha and low > minimum_effect and found.difference > minimum_effect)
    words = _words(found, "rose" if passed else "did not rise surely", f"p {p:.4f}, lower bound {low:+.4f}")
    threshold = f"difference > {minimum_effect:g}: p <= {alpha:g}, lower bound > {minimum_effect:g}"
    return _with(found, BETTER, passed, words, p, threshold)


def no_worse(pair: Pair, *, alpha: float, max_drop: float, min_queries: int, seed: int = 0) -> Row:
    """Whether the candidate is not worse by as much as `max_drop`."""
    if too_few := _too_few(pair, NO_WORSE, min_queries):
        return too_few
    found = _compared(pair, alpha, seed)
    low = found.interval[0]
    passed = bool(low > -max_drop)
    words = _words(found, "held" if passed else "may have fallen", f"lower bound {low:+.4f}")
    p = randomisation_p(pair.candidate - pair.baseline + max_drop, seed=seed)
    return _with(found, NO_WORSE, passed, words, p, f"lower bound > {-max_drop:g} at {alpha:g}")


def decide(version: str, slot: str, against: str, baseline: str, rows: Iterable[Row]) -> Decision:
    """All rows together."""
    return Decision(version, slot, against, baseline, tuple(rows))


def randomisation_p(differences: Values, *, n: int = _RESAMPLES, seed: int = 0) -> float:
    """One-sided p-value of the paired randomisation test: how often a mean as large comes about when each query's two
    values are swapped by a coin; (1 + as large) / (1 + n). With at most 2**13 swaps all of them are tried, and p is
    exact."""
    observed, size = float(differences.sum()), len(differences)
    if 2**size <= n:
        signs = 1 - 2 * ((np.arange(2**size)[:, None] >> np.arange(size)) & 1)
        return float(np.mean(signs @ differences >= observed - _TIE))
    random = np.random.default_rng(seed)
    as_large = 0
    for start in range(0, n, _AT_ONCE):
        signs = random.integers(0, 2, (min(_AT_ONCE, n - start), size), dtype=np.int8) * 2 - 1
        as_large += int((signs @ differences >= observed - _TIE).sum())
    return (1 + as_large) / (1 + n)


def _too_few(pair: Pair, rule: str, least: int) -> Row | None:
    """Refuses a set that is too small, or two columns that are not of the same queries."""
    n = len(pair.baseline)
    if n != len(pair.candidate):
        raise InputError(f"{pair.set}: {n} queries of the baseline and {len(pair.candidate)} of the candidate")
    if n >= least:
        return None
    why = f"{pair.set} has {n} queries and the rules demand {least}: take a larger set, or lower min_queries"
    return Row(rule, False, why, pair.set, pair.metric, n, threshold=f"{least} queries")


@dataclass(frozen=True, slots=True)
class _Compared:
    pair: Pair
    baseline: float
    candidate: float
    difference: float
    interval: tuple[float, float]


def _compared(pair: Pair, alpha: float, seed: int) -> _Compared:
    differences = pair.candidate - pair.baseline
    low, high = percentile_interval(bootstrap_means(differences[None], n=_RESAMPLES, seed=seed)[0], 1 - 2 * alpha)
    old, new = float(pair.baseline.mean()), float(pair.candidate.mean())
    return _Compared(pair, old, new, float(differences.mean()), (low, high))


def _words(found: _Compared, verb: str, figures: str) -> str:
    pair = found.pair
    return (
        f"{pair.metric} on {pair.set} {verb}: {found.baseline:.4f} to {found.candidate:.4f}"
        f" ({found.difference:+.4f}, {figures}, {len(pair.baseline)} queries)"
    )


def _with(found: _Compared, rule: str, passed: bool, why: str, p: float, threshold: str) -> Row:
    pair = found.pair
    return Row(
        rule, passed, why, pair.set, pair.metric, len(pair.baseline), found.baseline, found.candidate,
        found.difference, found.interval, p, threshold,
    )  # fmt: skip

"""Drift: whether a judge's grades are distributed as they were at first, period by period.

Each period is compared with the judge's first one that has at least LEAST graded measurements, by two figures:

- population stability index: sum over grades of (p - q) ln(p / q), with half a count added to each grade so that an
  empty one stays finite. By convention under 0.1 is stable and above 0.25 has shifted (Siddiqi 2006, Credit Risk
  Scorecards, section 9). Chance alone gives about (grades - 1) (1/n + 1/m) for n and m labels.
- Pearson's chi-square test of homogeneity: p is the probability of a difference as large where nothing changed.

The figures are the largest index and the least p times the number of comparisons (Bonferroni). Other queries give
other grades: drift says that something changed, not that the judge did.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from qrelay.labels.audit.figures import Figure, not_measured, rounded
from qrelay.labels.audit.judges import Judges
from qrelay.labels.audit.measurements import Measurements
from qrelay.labels.ledger.times import moment

LEAST: Final = 30
_WHY: Final = f"no judge has two periods with {LEAST} graded measurements each"


def drift(found: Measurements, judges: Judges) -> dict[str, Any]:
    """periods: their starts (ISO 8601); judges: by hash a list with, for each period that has labels, period, graded,
    grades (grade -> count), psi and p_value, which are None for the first and for periods too small to compare."""
    counts: dict[int, dict[int, Counter[int]]] = {}
    for group in found.groups:
        if group.grade is not None:
            counts.setdefault(group.judge_no, {}).setdefault(group.period, Counter())[group.grade] += group.count
    last = max((group.period for group in found.groups), default=-1)
    named = {judges.every[judge_no].judge_hash: _compared(of_judge) for judge_no, of_judge in counts.items()}
    return {
        "periods": [moment(found.start_us + i * found.width_us).isoformat() for i in range(last + 1)],
        "least": LEAST,
        "judges": dict(sorted(named.items())),
    }


def drift_figures(result: Mapping[str, Any]) -> dict[str, Figure]:
    """drift_psi and drift_p_value of what `drift` found; n: the comparisons."""
    compared = [each for of_judge in result["judges"].values() for each in of_judge if each["psi"] is not None]
    if not compared:
        return {"drift_psi": not_measured(_WHY), "drift_p_value": not_measured(_WHY)}
    least = min(each["p_value"] for each in compared)
    return {
        "drift_psi": Figure(max(each["psi"] for each in compared), len(compared)),
        "drift_p_value": Figure(min(1.0, least * len(compared)), len(compared)),
    }


def _compared(periods: Mapping[int, Counter[int]]) -> list[dict[str, Any]]:
    grades = sorted(set().union(*periods.values()))
    reference: list[int] | None = None
    rows = []
    for period, counter in sorted(periods.items()):
        counts = [counter[grade] for grade in grades]
        row: dict[str, Any] = {
            "period": period,
            "graded": sum(counts),
            "grades": {str(grade): count for grade, count in zip(grades, counts, strict=True)},
            "psi": None,
            "p_value": None,
        }
        if sum(counts) >= LEAST and reference is not None:
            row.update(psi=rounded(stability(reference, counts)), p_value=homogeneity(reference, counts))
        elif sum(counts) >= LEAST:
            reference = counts
        rows.append(row)
    return rows


def stability(reference: Sequence[int], counts: Sequence[int]) -> float:
    """The population stability index of two rows of counts by grade."""
    size = len(reference)
    p = [(each + 0.5) / (sum(counts) + 0.5 * size) for each in counts]
    q = [(each + 0.5) / (sum(reference) + 0.5 * size) for each in reference]
    return sum((a - b) * math.log(a / b) for a, b in zip(p, q, strict=True))


def homogeneity(reference: Sequence[int], counts: Sequence[int]) -> float:
    """p of the chi-square test that both rows come from one distribution; 1 where there is but one grade."""
    from scipy.stats import chi2_contingency

    columns = [pair for pair in zip(reference, counts, strict=True) if any(pair)]
    if len(columns) < 2:
        return 1.0
    return float(chi2_contingency(list(zip(*columns, strict=True)), correction=False).pvalue)

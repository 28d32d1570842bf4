"""Judges beside retrieval scores, and beside each other.

Rank correlations (Spearman) and AUCs are taken within each query and averaged over queries, for what a label trains
is an order within a query; intervals draw whole queries anew.
"""

from __future__ import annotations

from itertools import combinations
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qrelay.judging.check.evidence import Evidence, Floats
from qrelay.judging.check.figures import figure, mean
from qrelay.progress import step
from qrelay.stats.agreement import auc, kappa
from qrelay.types import COMBINED, JudgeIdentity

TOP: Final = 5
"""Of the judged passages of a query, so many that a system scores highest: where hard negatives come from."""
_LEAST: Final = 3
"""Fewer values have no rank correlation worth the name."""
_SHOWN: Final = 10
Rows = NDArray[np.int64]


def with_retrieval(evidence: Evidence) -> list[dict[str, Any]]:
    """One entry a judge and system: `rank_correlation` of P(relevant) and the score; `auc`: the chance that the
    system scores a passage that the judge calls relevant above one that it does not; `overturned`: the share of
    labels that turn the system's order round where it counts, see `_overturned`; `flat`: queries in which the judge
    says the same of every passage; `reads_scores`: whether the judge reads retrieval scores itself."""
    found = []
    with step("judges beside retrieval scores", total=len(evidence.judges) * len(evidence.scores)) as comparing:
        for hashed, judge in evidence.judges.items():
            for system, scores in evidence.scores.items():
                rows = np.flatnonzero(~np.isnan(evidence.p[hashed]) & ~np.isnan(scores))
                if len(rows):
                    about = {"judge": hashed, "system": system, "reads_scores": judge.uses_retrieval_scores}
                    found.append(about | _beside(evidence, hashed, scores, rows))
                comparing.advance(1)
    return found


def _beside(evidence: Evidence, hashed: str, scores: Floats, rows: Rows) -> dict[str, Any]:
    p, relevant, groups = evidence.p[hashed], evidence.relevant[hashed], evidence.groups(rows)
    turned = np.array([_overturned(relevant[group] == 1, scores[group]) for group in groups])
    sizes = np.array([len(group) for group in groups])
    return {
        "queries": len(groups),
        "pairs": len(rows),
        "flat": sum(len(group) >= _LEAST and not float(np.ptp(p[group])) for group in groups),
        "rank_correlation": mean([rank_correlation(p[group], scores[group]) for group in groups]),
        "auc": mean([auc(relevant[group], scores[group]) for group in groups]),
        "overturned": figure(lambda i: float(turned[i].sum() / sizes[i].sum()), np.arange(len(groups))),
    }


def _overturned(relevant: NDArray[np.bool_], scores: Floats) -> int:
    """How many of a query's labels turn the system's order round where hard examples are made of it: a passage among
    the system's TOP that is not relevant though one that scores less is, or the relevant one below it."""
    top = np.zeros(len(scores), bool)
    top[np.argsort(-scores, kind="stable")[:TOP]] = True
    misled = top & ~relevant & (scores > scores[relevant].min(initial=np.inf))
    missed = relevant & (scores < scores[misled].max(initial=-np.inf))
    return int(misled.sum() + missed.sum())


def between_judges(evidence: Evidence) -> list[dict[str, Any]]:
    """One entry a pair of judges that graded the same pairs: `kappa` of their decisions, `rank_correlation`,
    `disputed`: pairs that one calls relevant and the other not, and `most_disputed`, ids with both P(relevant);
    `akin`: why agreement would say little, or empty."""
    found = []
    for one, other in combinations(evidence.judges, 2):
        both = np.flatnonzero(~np.isnan(evidence.p[one]) & ~np.isnan(evidence.p[other]))
        if len(both):
            found.append({"judges": [one, other], **_together(evidence, one, other, both)})
    return found


def _together(evidence: Evidence, one: str, other: str, rows: Rows) -> dict[str, Any]:
    a, b = evidence.relevant[one][rows], evidence.relevant[other][rows]
    p, q = evidence.p[one], evidence.p[other]
    groups = evidence.groups(rows)
    disputed = rows[a != b]
    worst = disputed[np.argsort(-np.abs(p[disputed] - q[disputed]), kind="stable")][:_SHOWN]
    return {
        "queries": len(groups),
        "pairs": len(rows),
        "akin": _akin(evidence.judges[one], evidence.judges[other]),
        "kappa": figure(lambda i: _kappa(a[i], b[i]), evidence.query[rows]),
        "rank_correlation": mean([rank_correlation(p[group], q[group]) for group in groups]),
        "disputed": len(disputed),
        "most_disputed": [
            {
                **dict(zip(("query_id", "passage_id"), evidence.pair(row), strict=True)),
                "p": [float(p[row]), float(q[row])],
            }
            for row in worst
        ],
    }


def _kappa(a: Floats, b: Floats) -> float:
    """nan where neither says more than one thing."""
    return kappa(a, b) if np.ptp(a) or np.ptp(b) else float("nan")


def _akin(one: JudgeIdentity, other: JudgeIdentity) -> str:
    if one.strategy in COMBINED or other.strategy in COMBINED:
        return "one is made of other judges' labels"
    return "both are the same model" if one.fingerprint == other.fingerprint else ""


def rank_correlation(a: Floats, b: Floats) -> float:
    """Spearman's of two columns [n]; nan where one of them is constant, or they are too short."""
    from scipy.stats import rankdata

    if len(a) < _LEAST or not np.ptp(a) or not np.ptp(b):
        return float("nan")
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])

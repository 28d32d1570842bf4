"""Coverage: how much of what the systems returned has a graded label, what is missing and why, what was cached.

judged@k of a system is, of the passages that it ranked from 1 to k, the share with a graded label that counts, as a
mean over queries (ir-measures' Judged@k), each in its latest round. A ranked passage that the pipeline dropped before
the ledger is unjudged too: the divisor is k, or the system's worst rank in the set where that is less. All queries
are counted, so there is no interval.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from qrelay.labels.audit.figures import JUDGED_AT, Figure, not_measured, rounded, share
from qrelay.labels.audit.judges import Judges
from qrelay.labels.audit.measurements import Measurements
from qrelay.labels.examples import Example


class Judged:
    """judged@k by system."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, int], float] = {}
        self._queries: Counter[str] = Counter()

    def add(self, record: Example) -> None:
        """One query's candidates."""
        ranks: dict[str, list[tuple[int, bool]]] = {}
        for candidate in record.query.candidates:
            if candidate.passage.passage_id in record.query.earlier:
                continue
            label = record.labels.get(candidate.passage.passage_id)
            graded = label is not None and label.grade is not None
            for score in candidate.scores:
                if score.rank > 0:
                    ranks.setdefault(score.system, []).append((score.rank, graded))
        for system, found in ranks.items():
            self._queries[system] += 1
            worst = max(rank for rank, _ in found)
            for k in JUDGED_AT:
                graded_above = sum(graded for rank, graded in found if rank <= k)
                self._sums[system, k] = self._sums.get((system, k), 0.0) + graded_above / min(k, worst)

    def result(self) -> dict[str, dict[str, Any]]:
        """system -> queries, and "5", "10", "20" -> the mean share."""
        return {
            system: {"queries": n, **{str(k): rounded(self._sums[system, k] / n) for k in JUDGED_AT}}
            for system, n in sorted(self._queries.items())
        }

    def figures(self) -> dict[str, Figure]:
        """judged@k of the system where it is least."""
        found = self.result()
        if not found:
            return {f"judged@{k}": not_measured("no system ranked anything") for k in JUDGED_AT}
        least = {k: min(found.values(), key=lambda each: float(each[str(k)])) for k in JUDGED_AT}
        return {f"judged@{k}": Figure(each[str(k)], each["queries"]) for k, each in least.items()}


class MissingPairs:
    """Pairs whose label that counts is missing, by reason."""

    def __init__(self) -> None:
        self._pairs = 0
        self._reasons: Counter[str] = Counter()

    def add(self, record: Example) -> None:
        """One query's labels."""
        self._pairs += len(record.labels)
        self._reasons.update(str(each.missing_reason) for each in record.labels.values() if each.grade is None)

    def result(self) -> dict[str, Any]:
        """pairs with a label; missing; by_reason."""
        return {
            "pairs": self._pairs,
            "missing": self._reasons.total(),
            "by_reason": dict(sorted(self._reasons.items())),
        }

    def figure(self) -> Figure:
        """missing_share."""
        return share(self._reasons.total(), self._pairs, "no pair has a label")


def judge_table(found: Measurements, judges: Judges) -> dict[str, dict[str, Any]]:
    """judge hash -> strategy, scale, model, audited, and measurements, missing, cached of every generation."""
    rows: dict[str, dict[str, Any]] = {}
    for group in found.groups:
        judge = judges.every[group.judge_no]
        row = rows.setdefault(
            judge.judge_hash,
            {
                "strategy": judge.identity.strategy,
                "scale": judge.identity.scale,
                "model": judge.identity.model,
                "audited": group.judge_no in judges.audited,
                **dict.fromkeys(("measurements", "missing", "cached"), 0),
            },
        )
        row["measurements"] += group.count
        row["missing"] += group.count if group.grade is None else 0
        row["cached"] += group.count if group.cached else 0
    return dict(sorted(rows.items()))


def cached_share(found: Measurements) -> Figure:
    """Of all measurements."""
    cached = sum(group.count for group in found.groups if group.cached)
    return share(cached, sum(group.count for group in found.groups), "nothing was measured")

"""Measures from a sample of pairs: each pair of the judge's qrels was drawn with its own known probability.

P@k and DCG@k are weighted sums of what people's grades are worth. What they did not grade is predicted as its mean
among graded pairs with the same grade of the judge; what they did adds the error of that prediction, over the pair's
probability (Horvitz and Thompson 1952; the difference estimator of Särndal, Swensson and Wretman, Model Assisted
Survey Sampling, 1992, section 6.3; with probabilities of one's choice "Active statistical inference", Zrnic and
Candès, ICML 2024). Sums come out without bias, whatever the judge. Quotients do not: nDCG and recall divide by what
a sample of a query's pairs says badly (docs/log.md has the figures), so they need whole queries.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qrelay.errors import InputError
from qrelay.formats.beir import Run
from qrelay.formats.graded_sample import GradedSample
from qrelay.formats.runs import ranked
from qrelay.stats.columns import Floats
from qrelay.stats.powered import sampled_mean
from qrelay.training.evaluation.agreement import Judged
from qrelay.training.evaluation.measures import per_query
from qrelay.training.evaluation.powered import Wanted, combinations

_SUM: Final = re.compile(r"(P|DCG)@([1-9]\d*)")
_TOO_FAR: Final = 6.0
"""Standard deviations."""
_EVENLY: Final = 0.1
"""Of a sample: the share that is drawn without regard to influence."""


@dataclass(frozen=True, slots=True)
class Sum:
    """A measure that is a sum: P@depth of grades from `relevant_from`, or where that is 0 DCG@depth."""

    depth: int
    relevant_from: int = 0

    @classmethod
    def of(cls, measure: str, relevant_from: int) -> Sum:
        """Raises InputError: the measure is no sum."""
        found = _SUM.fullmatch(measure)
        if not found:
            raise InputError(
                f"{measure} cannot be had from a sample of pairs: use P@k or DCG@k, or a sample of whole queries"
            )
        return cls(int(found[2]), relevant_from if found[1] == "P" else 0)

    def worth(self, grades: NDArray[np.int64]) -> Floats:
        """Of each grade [pairs]."""
        return (grades >= self.relevant_from if self.relevant_from else grades).astype(np.float64)

    def weights(self, docs: Sequence[str], ranking: Sequence[str]) -> Floats:
        """[docs]: the factor of each document's worth."""
        place = {doc_id: rank for rank, doc_id in enumerate(ranking[: self.depth], 1)}
        return np.array([self._weight(place[doc_id]) if doc_id in place else 0.0 for doc_id in docs])

    def _weight(self, rank: int) -> float:
        return 1 / self.depth if self.relevant_from else 1 / math.log2(rank + 1)


@dataclass(frozen=True)
class Frame:
    """Every pair that the judge labelled, query after query: where each query's rows are, the documents, the judge's
    grades [pairs]; of those that were drawn people's grades, else -1, and the probabilities, else 1 [pairs]."""

    queries: tuple[str, ...]
    rows: tuple[slice, ...]
    docs: tuple[str, ...]
    said: NDArray[np.int64]
    graded: NDArray[np.int64]
    chance: Floats

    @classmethod
    def of(cls, llm: Mapping[str, Mapping[str, int]], people: GradedSample) -> Frame:
        """The judge's labels and what people graded of them."""
        queries = tuple(sorted(llm))
        ends = np.cumsum([0, *(len(llm[query_id]) for query_id in queries)]).tolist()
        pairs = [(query_id, doc_id) for query_id in queries for doc_id in sorted(llm[query_id])]
        return cls(
            queries,
            tuple(slice(start, end) for start, end in pairwise(ends)),
            tuple(doc_id for _, doc_id in pairs),
            np.array([llm[query_id][doc_id] for query_id, doc_id in pairs], np.int64),
            np.array([people.grades.get(query_id, {}).get(doc_id, -1) for query_id, doc_id in pairs], np.int64),
            np.array([people.inclusion.get(query_id, {}).get(doc_id, 1.0) for query_id, doc_id in pairs]),
        )

    def weights(self, measure: Sum, run: Run) -> Floats:
        """`Sum.weights` of every pair."""
        asked = zip(self.queries, self.rows, strict=True)
        found = [measure.weights(self.docs[rows], ranked(run.get(query_id, {}))) for query_id, rows in asked]
        return np.concatenate(found)

    def sums(self, pairs: Floats) -> Floats:
        """[queries]: of what pairs [pairs] have."""
        return np.array([pairs[rows].sum() for rows in self.rows])

    def corrected(self, measure: Sum) -> tuple[Floats, Floats]:
        """Each pair's worth as predicted and corrected [pairs]; the error of its prediction, 0 where people did not
        grade it [pairs]."""
        drawn = self.graded >= 0
        worth, stands_for = measure.worth(self.graded), drawn / self.chance
        predicted = np.full(len(worth), stands_for @ worth / stands_for.sum())
        for grade in np.unique(self.said[drawn]):
            same = self.said == grade
            predicted[same] = stands_for[same] @ worth[same] / stands_for[same].sum()
        errors = np.where(drawn, worth - predicted, 0.0)
        return predicted + stands_for * errors, errors

    def variances(self, errors: Floats) -> Floats:
        """[queries]: of the sums that weighted errors [pairs] correct; pairs were drawn independently (Poisson
        sampling)."""
        return self.sums((1 - self.chance) / self.chance**2 * errors**2)


def chances_of(influence: Floats, n: int) -> Floats:
    """Probabilities [pairs] that add up to `n` (at most 1 each): a share evenly, the rest by influence [pairs]."""
    if n >= len(influence):
        return np.ones(len(influence))
    if influence.max() <= 0:
        return np.full(len(influence), n / len(influence))
    floor, by_influence = _EVENLY * n / len(influence), influence / influence.mean() + 1e-9
    low, high = 0.0, 1.0 / float(by_influence.min())
    for _ in range(100):
        middle = (low + high) / 2
        total = float(np.minimum(1.0, floor + middle * by_influence).sum())
        low, high = (middle, high) if total < n else (low, middle)
    return np.asarray(np.minimum(1.0, floor + high * by_influence))


def influence(frame: Frame, relevant_from: int, runs: Mapping[str, Run], measures: Sequence[str]) -> Floats:
    """[pairs]: how far a pair's worth moves the measures of the runs, every measure with the same share."""
    total = np.zeros(len(frame.docs))
    for measure in measures:
        moved = sum(frame.weights(Sum.of(measure, relevant_from), run) for run in runs.values())
        total += moved / (np.sum(moved) or 1.0)
    return total


def by_pair(
    llm: Judged,
    people: GradedSample,
    runs: Mapping[str, Run],
    measures: Sequence[str],
    wanted: Wanted,
    *,
    relevant_from: int = 1,
) -> dict[str, Any]:
    """`qrelay.training.evaluation.powered.powered` where the unit is the pair. Raises InputError as it, and where a
    pair that was drawn is not the judge's, has no grade, or pairs are too few for their probabilities."""
    sums = {measure: Sum.of(measure, relevant_from) for measure in measures}
    _check(llm.qrels, people)
    frame = Frame.of(llm.qrels, people)
    moved = influence(frame, relevant_from, runs, measures)
    return {
        "unit": "pair",
        "target": wanted.target,
        "level": wanted.level,
        "queries": len(frame.queries),
        "pairs": len(frame.docs),
        "pairs_graded": int((frame.graded >= 0).sum()),
        "measures": {name: _rows(frame, moved, name, each, llm, runs, wanted) for name, each in sums.items()},
    }


def _rows(
    frame: Frame, moved: Floats, name: str, measure: Sum, llm: Judged, runs: Mapping[str, Run], wanted: Wanted
) -> list[dict[str, Any]]:
    worth, errors = frame.corrected(measure)
    weights = [frame.weights(measure, run) for run in runs.values()]
    said = [per_query(llm.qrels, run, [name], relevant_from=llm.relevant_from)[name] for run in runs.values()]
    rows = []
    for system, combined in combinations(list(runs)):
        mine = combined(weights)
        values, variances = frame.sums(mine * worth), frame.variances(mine * errors)
        interval = sampled_mean(values, variances, target=wanted.target, level=wanted.level)
        row = {"system": system, "judge_only": float(combined(said).mean()), **asdict(interval)}
        if wanted.width is not None:
            row["pairs_needed"] = _needed(frame, moved, mine * errors, values, wanted)
        rows.append(row)
    return rows


def _needed(frame: Frame, moved: Floats, errors: Floats, values: Floats, wanted: Wanted) -> int | None:
    """How many pairs must be graded in all, drawn as `qrelay eval sample` draws them for these measures and runs, for
    the width that is wanted; None where all of them would not do."""
    drawn = frame.graded >= 0

    def wide(n: int) -> bool:
        chances = chances_of(moved, n)
        later = frame.sums(np.where(drawn, (1 / chances - 1) / frame.chance * errors**2, 0.0))
        between = float(np.var(values, ddof=1)) - float(frame.variances(errors).mean())
        shrunk = (
            _respread(values, max(0.0, between) + float(later.mean())) if wanted.target == "population" else values
        )
        found = sampled_mean(shrunk, later, target=wanted.target, level=wanted.level)
        return wanted.width is not None and found.high - found.low > wanted.width

    low, high = 0, len(frame.docs)
    if wide(high):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if wide(middle) else (low, middle)
    return high


def _respread(values: Floats, variance: float) -> Floats:
    """The values about their mean with another variance."""
    own = float(np.var(values, ddof=1))
    return np.asarray(values.mean() + (values - values.mean()) * (math.sqrt(variance / own) if own > 0 else 0.0))


def _check(llm: Mapping[str, Mapping[str, int]], people: GradedSample) -> None:
    if people.open:
        lacking = sum(map(len, people.open.values()))
        raise InputError(
            f"{lacking} of the pairs that were drawn have no grade: have them graded, or draw fewer with a smaller"
            " --n and the same --seed, which are some of these"
        )
    for query_id, chances in people.inclusion.items():
        if strange := sorted(chances.keys() - llm[query_id].keys()):
            raise InputError(
                f"the pair {query_id} {strange[0]} has no label of the judge: use the qrels that it was drawn from"
            )
    drawn = [chance for each in people.inclusion.values() for chance in each.values()]
    total = sum(1 / chance for chance in drawn)
    spread = math.sqrt(sum((1 - chance) / chance**2 for chance in drawn))
    pairs = sum(map(len, llm.values()))
    if abs(total - pairs) > _TOO_FAR * spread + 1e-6 * pairs:
        raise InputError(
            f"the sample stands for about {total:.0f} pairs, and --qrels has {pairs}: use the qrels that it was drawn"
            " from, and all of its rows"
        )

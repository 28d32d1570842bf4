"""From a table to calibration maps, and to what they would say of queries that they were not fitted on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from qrelay.errors import InputError
from qrelay.judging.calibration import BEHIND_BEST, CalibrationMap, FittedOn
from qrelay.judging.domain import MOST_QUERIES, Domain, Profile, profile
from qrelay.judging.qualification.table import Table
from qrelay.scales import RELEVANT_GRADE, Scale, bounds
from qrelay.stats.agreement import best_kappa_threshold
from qrelay.stats.calibration import Isotonic, Logistic, group_folds
from qrelay.stats.priors import LogisticPrior, expected_kappa_threshold

FOLDS: Final = 100
"""Up to so many queries each is left out alone: with 50 queries in 5 folds, the split moved kappa by 0.02."""
_MIN_RELEVANT: Final = 5


@dataclass(frozen=True, slots=True)
class Predictions:
    """What a map says of rows: P(relevant), a score to rank by, relevant or not, and the grade; nan and the lowest
    where it cannot say. Shapes [rows]."""

    p: NDArray[np.float64]
    ranking: NDArray[np.float64]
    relevant: NDArray[np.bool_]
    grade: NDArray[np.int64]


def fit_map(
    table: Table,
    names: Sequence[str],
    rows: NDArray[np.int64],
    metrics: Mapping[str, object] | None = None,
    priors: Sequence[CalibrationMap] = (),
    domain: Domain | None = None,
) -> CalibrationMap:
    """A map of the inputs `names`, fitted on these rows of the table. priors: maps of the same inputs, of other
    collections; with them any number of rows will do, and without rows the first of them is the map. Their threshold
    is by all rows of the table, as it needs no label; where rows on a side of another grade are too few, its cut is
    the first prior's. domain: to be kept with the map (`domain_of`).

    Raises:
        InputError: without priors, too few relevant or not relevant rows to fit anything.
    """
    features, complete = np.column_stack([table.column(name) for name in names]), _complete(table, names)
    usable = rows[complete[rows]]
    x, y, grades = features[usable], table.relevant[usable], table.grades[usable]
    if priors and not len(usable):
        return priors[0]
    if not priors:
        _enough(y)
    model = _model(x, y, priors)
    p = np.asarray(model.predict(x[:, 0] if isinstance(model, Isotonic) else x), np.float64)
    low, high = _range(table, priors)
    scale = Scale.of(low, high, table.relevant_from).name
    threshold = (
        expected_kappa_threshold(model.predict(features[complete])) if priors else float(best_kappa_threshold(y, p))
    )
    known = priors[0] if priors and priors[0].scale == scale else None
    finer = [_finer(p, grades >= grade, known, grade - low - 1) for grade in range(low + 1, high + 1)]
    relevant = table.relevant_from - low - 1
    cuts = [threshold if number == relevant else cut for number, (cut, _) in enumerate(finer)]
    return CalibrationMap(
        inputs=table.inputs(names),
        model=model,
        scale=scale,
        min_grade=low,
        cuts=_rising(cuts, relevant),
        cumulative=tuple(each for _, each in finer),
        threshold=threshold,
        fitted_on=FittedOn(
            table.sha256, len(usable), len(set(table.queries[usable])), int(y.sum()), table.relevant_from
        ),
        metrics=dict(metrics or {}) | ({"priors": [each.hash for each in priors]} if priors else {}),
        domain=domain or Domain(),
    )


def _model(x: NDArray[np.float64], y: NDArray[np.bool_], priors: Sequence[CalibrationMap]) -> Isotonic | Logistic:
    if priors:
        return LogisticPrior.of([each.model for each in priors]).fit(x, y)
    return Isotonic.fit(x[:, 0], y) if x.shape[1] == 1 else Logistic.fit(x, y)


def domain_of(table: Table, names: Sequence[str]) -> Domain:
    """What the table's queries look like to a map of these inputs; of many queries evenly spaced ones."""
    found = profiles(table, names)
    kept = np.linspace(0, len(found) - 1, min(len(found), MOST_QUERIES)).astype(int)
    return Domain(table.collection, tuple(found[number] for number in kept))


def profiles(table: Table, names: Sequence[str]) -> tuple[Profile, ...]:
    """The profiles of the table's queries, of those that have enough judged passages."""
    x = np.column_stack([table.column(name) for name in names])
    found = [profile(x[table.queries == query].tolist()) for query in np.unique(table.queries)]
    return tuple(each for each in found if each is not None)


def apply_map(fitted: CalibrationMap, table: Table) -> Predictions:
    """What the map says of every row, the inputs being found in the table by name."""
    names = [each.label for each in fitted.inputs]
    usable = np.flatnonzero(_complete(table, names))
    x = np.column_stack([table.column(name) for name in names])[usable]
    p, ranking = np.full((2, len(table.pairs)), np.nan)
    p[usable] = fitted.probability(x.tolist())
    ranking[usable] = x[:, 0] if isinstance(fitted.model, Isotonic) else fitted.model.weigh(x)
    return _predictions(fitted, p, ranking)


def cross_validated(table: Table, names: Sequence[str], priors: Sequence[CalibrationMap] = ()) -> Predictions:
    """Out-of-fold predictions: each fold's queries are judged by a map that was fitted without them, queries that
    people graded nothing of by the map of all. `ranking` of a fold's rows leaves the map's intercept out: it follows
    the base rate of the other folds, which is low just where this fold has much that is relevant."""
    rows = table.graded
    p, ranking = np.full((2, len(table.pairs)), np.nan)
    relevant = np.zeros(len(table.pairs), np.bool_)
    grade = np.full(len(table.pairs), _range(table, priors)[0], np.int64)
    others = np.flatnonzero(~np.isin(table.queries, table.queries[rows]))
    parts = [
        (train, np.flatnonzero(np.isin(table.queries, table.queries[test]))) for train, test in _folds(table, rows)
    ]
    for train, test in [*parts, (rows, others)] if len(others) else parts:
        said = apply_map(fit_map(table, names, train, priors=priors), table)
        p[test], relevant[test], grade[test] = said.p[test], said.relevant[test], said.grade[test]
        ranking[test] = said.ranking[test]
    return Predictions(p, ranking, relevant, grade)


def _folds(table: Table, rows: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """(rows to fit on, rows to predict): a fold a query, or `FOLDS` folds of queries where there are more."""
    queries = table.queries[rows]
    if len(np.unique(queries)) <= FOLDS:
        return [(rows[queries != query], rows[queries == query]) for query in np.unique(queries)]
    folds = group_folds(queries, table.relevant[rows], FOLDS)
    return [(rows[folds != number], rows[folds == number]) for number in range(FOLDS)]


def _predictions(fitted: CalibrationMap, p: NDArray[np.float64], ranking: NDArray[np.float64]) -> Predictions:
    known = ~np.isnan(p)
    grade = np.full(len(p), fitted.min_grade, np.int64)
    grade[known] += (p[known, None] >= np.array(fitted.cuts)[None, :]).sum(1)
    return Predictions(p, ranking, known & (np.nan_to_num(p, nan=-1.0) >= fitted.threshold), grade)


def _complete(table: Table, names: Sequence[str]) -> NDArray[np.bool_]:
    """Rows in which no judge's label is missing; a retrieval score may be, its mean stands in."""
    complete = np.ones(len(table.pairs), np.bool_)
    for name in names:
        if name.removesuffix(BEHIND_BEST) not in table.stages or len(names) == 1:
            complete &= ~np.isnan(table.column(name))
    return complete


def _finer(
    p: NDArray[np.float64], at_least: NDArray[np.bool_], known: CalibrationMap | None, number: int
) -> tuple[float, Isotonic]:
    """The cut of a grade and P(at least it): those of the map `known` where rows on a side are too few."""
    if known and min(at_least.sum(), (~at_least).sum()) < _MIN_RELEVANT:
        return known.cuts[number], known.cumulative[number]
    return _cut(p, at_least), Isotonic.fit(p, at_least)


def _cut(p: NDArray[np.float64], at_least: NDArray[np.bool_]) -> float:
    """The p from which a row is said to have at least this grade: best kappa for that question."""
    if at_least.all() or not at_least.any():
        return 0.0 if at_least.all() else 1.0 + 1e-9
    return float(best_kappa_threshold(at_least, p))


def _rising(cuts: Sequence[float], relevant: int) -> tuple[float, ...]:
    """The cuts made rising, the one of the relevant grade kept as it is."""
    middle = cuts[relevant]
    below = [min(cut, middle) for cut in cuts[:relevant]]
    above = [max(cut, middle) for cut in cuts[relevant + 1 :]]
    return (*np.minimum.accumulate(below[::-1])[::-1].tolist(), middle, *np.maximum.accumulate(above).tolist())


def same_relevance(prior: CalibrationMap, table: Table) -> bool:
    """Whether relevant means the same to a map and here: the same grade of one scale, or what each of two scales of
    `RELEVANT_GRADE` calls so."""
    if _one_scale(prior, table):
        return True
    return len(table.graded) > 0 and ":" not in prior.scale + Scale.of(*_range(table), table.relevant_from).name


def _one_scale(prior: CalibrationMap, table: Table) -> bool:
    """Few grades, or none, do not show how far their scale goes: a prior with this relevant grade says it."""
    low = min(table.grades[table.graded], default=prior.min_grade)
    return prior.fitted_on.relevant_from == table.relevant_from and prior.min_grade <= low


def _range(table: Table, priors: Sequence[CalibrationMap] = ()) -> tuple[int, int]:
    grades = [pair.grade for pair in table.pairs if pair.grade is not None]
    low, high = min(grades), max(grades)
    if priors and _one_scale(priors[0], table):
        return priors[0].min_grade, max(high, priors[0].min_grade + len(priors[0].cuts))
    known = map(bounds, RELEVANT_GRADE)
    return next(((a, b) for a, b in known if a <= low and high <= b and a < table.relevant_from <= b), (low, high))


def _enough(relevant: NDArray[np.bool_]) -> None:
    yes, no = int(relevant.sum()), int((~relevant).sum())
    if min(yes, no) < _MIN_RELEVANT:
        raise InputError(
            f"{yes} relevant and {no} other graded pairs are too few to calibrate on: have at least {_MIN_RELEVANT} "
            "of each, better 15 relevant ones, graded (`qrelay judge slice` picks pairs worth grading)"
        )

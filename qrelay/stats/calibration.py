"""Calibration: from scores to probabilities, and how good those are.

Every fitted map is a frozen dataclass of plain numbers: `dataclasses.asdict` makes it JSON, its class makes it again.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from qrelay.errors import InputError
from qrelay.stats.columns import Floats, Ints, codes, finite, probabilities, same_length, yes_or_no


def brier(labels: ArrayLike, p: ArrayLike) -> float:
    """Mean squared difference of probability and outcome (Brier, Monthly Weather Review 78, 1950); both [n]."""
    y, q = _outcomes(labels, p)
    return float(np.mean((q - y) ** 2))


def reliability_curve(labels: ArrayLike, p: ArrayLike, bins: int = 10) -> list[tuple[float, float, int]]:
    """(mean p, share of relevant, rows) of each of at most `bins` bins of about equally many rows, by rising p.

    Rows of equal p stay together, as an isotonic map makes many: bins may then be fewer and uneven, but do not depend
    on the order of the rows.
    """
    y, q = _outcomes(labels, p)
    if bins < 1:
        raise InputError(f"{bins} bins: use at least 1, usually 10")
    order = np.argsort(q, kind="stable")
    equal = q[order][(np.arange(1, bins) * len(q)) // bins]
    starts = np.unique(np.searchsorted(q[order], equal))
    parts = [part for part in np.split(order, starts) if len(part)]
    return [(float(q[part].mean()), float(y[part].mean()), len(part)) for part in parts]


def ece(labels: ArrayLike, p: ArrayLike, bins: int = 10) -> float:
    """Expected calibration error: |share of relevant - mean p| of each bin, weighted by rows (Naeini et al., AAAI
    2015) over bins of equal mass (Nguyen and O'Connor, EMNLP 2015), as `reliability_curve` makes them. Chance alone
    gives a perfect calibration about 0.03 with 1,000 rows in 10 bins at a base rate of 0.2."""
    curve = reliability_curve(labels, p, bins)
    return sum(n * abs(share - mean) for mean, share, n in curve) / sum(n for *_, n in curve)


@dataclass(frozen=True, slots=True)
class Isotonic:
    """A rising, piecewise linear map of one score to a probability: knots (x[i], y[i]), constant beyond them. y is
    kept within [1/(n+2), 1-1/(n+2)]: from n rows nothing is certain (Laplace's rule of succession)."""

    x: tuple[float, ...]
    y: tuple[float, ...]

    @classmethod
    def fit(cls, scores: ArrayLike, labels: ArrayLike) -> Isotonic:
        """Pool adjacent violators (Zadrozny and Elkan, KDD 2002; scikit-learn's) on scores [n] and labels [n].

        Raises:
            InputError: empty, nan, or labels that are not yes or no.
        """
        from sklearn.isotonic import IsotonicRegression

        s, t = finite(scores), yes_or_no(labels)
        same_length(s, t)
        edge = 1.0 / (len(s) + 2)
        model = IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(s, t.astype(np.float64))
        return cls(tuple(model.X_thresholds_.tolist()), tuple(model.y_thresholds_.tolist()))

    def predict(self, scores: ArrayLike) -> Floats:
        """P of each score [n]. Raises InputError for a score that is not finite."""
        return np.asarray(np.interp(finite(scores), self.x, self.y), np.float64)


@dataclass(frozen=True, slots=True)
class Logistic:
    """A logistic model of k inputs: p = 1 / (1 + exp(-(sum of weights * (input - means) / scales + intercept))). An
    input that is nan counts as its mean. All of `means`, `scales` and `weights` are [k]."""

    means: tuple[float, ...]
    scales: tuple[float, ...]
    weights: tuple[float, ...]
    intercept: float

    @classmethod
    def fit(cls, features: ArrayLike, labels: ArrayLike, l2: float = 1.0) -> Logistic:
        """Fit on features [n, k], nan where one is missing, and labels [n]. `l2`: strength of the penalty
        l2/2 * |weights|^2 on weights of standardised inputs. An input that is missing everywhere, or constant, gets
        weight 0.

        Raises:
            InputError: one class only, infinite features, or columns that do not fit.
        """
        from sklearn.linear_model import LogisticRegression

        x, y = _table(features), yes_or_no(labels)
        same_length(x, y)
        if y.all() or not y.any():
            raise InputError("all rows have the same label: a model of several inputs needs both, grade more pairs")
        if not l2 > 0:
            raise InputError(f"l2 {l2}: use a penalty above 0, such as 1")
        means, scales = _moments(x)
        model = LogisticRegression(C=1.0 / l2, max_iter=1000).fit(_filled(x, means, means) / scales, y)
        weights, intercept = model.coef_[0], float(model.intercept_[0])
        return cls(tuple(means.tolist()), tuple(scales.tolist()), tuple(weights.tolist()), intercept)

    def predict(self, features: ArrayLike) -> Floats:
        """P of each row of features [n, k], always above 0 and below 1."""
        logits = self.weigh(features) - self.weigh([self.means]) + self.intercept
        return np.asarray(1.0 / (1.0 + np.exp(-np.clip(logits, -30.0, 30.0))), np.float64)

    def weigh(self, features: ArrayLike) -> Floats:
        """The weighted, not standardised features [n, k] of each row: ranks as `predict` does, without the means and
        the intercept, which differ from fold to fold."""
        x, means = _table(features), np.array(self.means)
        if x.shape[1] != len(means):
            raise InputError(
                f"{x.shape[1]} inputs a row, the model was fitted on {len(means)}: give it the same ones"
            )
        return np.asarray(_filled(x, means) @ (np.array(self.weights) / np.array(self.scales)), np.float64)


def group_folds(groups: ArrayLike, labels: ArrayLike, k: int = 5, seed: int = 0) -> Ints:
    """A fold number 0..k-1 a row [n]; no group is in two folds, and folds have about equal shares of the rows and of
    the positives (scikit-learn's StratifiedGroupKFold). The same seed gives the same folds.

    Raises:
        InputError: fewer groups than folds, or too few rows to spread.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    g, y = codes(groups), yes_or_no(labels).astype(np.int64)
    same_length(g, y)
    there = int(g.max()) + 1
    if there < k or max(y.sum(), len(y) - y.sum()) < k:
        raise InputError(f"{there} queries, {len(g)} rows cannot be cross-validated in {k} folds: grade more queries")
    if k < 2:
        raise InputError(f"{k} folds: use at least 2, usually 5")
    folds = np.zeros(len(g), np.int64)
    splitter: Any = StratifiedGroupKFold(k, shuffle=True, random_state=seed)
    for number, (_, test) in enumerate(splitter.split(np.zeros(len(g)), y, g)):
        folds[test] = number
    return folds


def _outcomes(labels: ArrayLike, p: ArrayLike) -> tuple[Floats, Floats]:
    y, q = yes_or_no(labels).astype(np.float64), probabilities(p)
    same_length(y, q)
    return y, q


def _table(features: ArrayLike) -> Floats:
    """Features as doubles [n, k], nan allowed."""
    x = np.asarray(features, np.float64)
    if x.ndim != 2 or not x.size or np.isinf(x).any():
        raise InputError(
            f"features of shape {x.shape}: give finite numbers (nan: missing), a row a pair, a column an input"
        )
    return x


def _moments(x: Floats) -> tuple[Floats, Floats]:
    """Means and standard deviations [k] of what is there; 0 and 1 where nothing is, or nothing varies."""
    known = ~np.isnan(x)
    rows = np.maximum(known.sum(0), 1)
    means = np.where(known, x, 0.0).sum(0) / rows
    scales = np.sqrt((np.where(known, x - means, 0.0) ** 2).sum(0) / rows)
    return means, np.where(scales > 1e-12 * (1.0 + np.abs(means)), scales, 1.0)


def _filled(x: Floats, means: Floats, minus: Floats | float = 0.0) -> Floats:
    return np.asarray(np.where(np.isnan(x), means, x) - minus, np.float64)

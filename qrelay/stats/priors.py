"""Logistic models from few rows: a Gaussian prior made of models that were fitted elsewhere (empirical Bayes).

Models of other collections are draws of what this one's may be. Their mean is the prior's centre m. What is known of
its covariance is little, with two or three of them, so what they show is mixed with an assumption (the mean of an
inverse Wishart posterior): DIRECTION**2 * I + SCALE**2 * m m', that is, that the balance of the inputs hardly changes
from collection to collection, and how steep the whole is does. Measured with LiveQA-Med and LLMJudge
(docs/judge.md): there steepness differs by a factor of three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike

from qrelay.errors import InputError
from qrelay.stats.calibration import Isotonic, Logistic
from qrelay.stats.columns import Floats, same_length, yes_or_no

DIRECTION: Final = 0.1
SCALE: Final = 1.0
INTERCEPT: Final = 1.0
"""Spreads, of weights for inputs of standard deviation 1, and of log-odds."""
ASSUMED: Final = 2
"""So many models more, of the assumed spread, are mixed with those that were fitted."""


@dataclass(frozen=True, slots=True)
class LogisticPrior:
    """centre: the model before any row was seen. weights: covariance [k, k] of its weights; intercept: the variance
    of its intercept."""

    centre: Logistic
    weights: Floats
    intercept: float

    @classmethod
    def of(cls, fitted: Sequence[Logistic | Isotonic]) -> LogisticPrior:
        """The prior that models of other collections make, all of the same inputs in the same order; an isotonic one
        counts as the line that its log-odds are nearest to. Raises InputError: none, or of other numbers of inputs.
        """
        lines = [_line(each) if isinstance(each, Isotonic) else each for each in fitted]
        if len({len(each.means) for each in lines}) != 1:
            raise InputError("a prior needs models of the same inputs: name files of the same judges and scores")
        means, scales = (np.mean([getattr(each, name) for each in lines], 0) for name in ("means", "scales"))
        weights = np.array([np.array(each.weights) * scales / np.array(each.scales) for each in lines])
        intercepts = np.array([float(_logit(each.predict([means])[0])) for each in lines])
        middle, n = weights.mean(0), len(lines)
        assumed = DIRECTION**2 * np.eye(len(middle)) + SCALE**2 * np.outer(middle, middle)
        seen = (weights - middle).T @ (weights - middle)
        spread = (ASSUMED * INTERCEPT**2 + float(((intercepts - intercepts.mean()) ** 2).sum())) / (ASSUMED + n - 1)
        centre = lines[0] if n == 1 else _model(means, scales, middle, float(intercepts.mean()))
        return cls(centre, (ASSUMED * assumed + seen) / (ASSUMED + n - 1), spread)

    def fit(self, features: ArrayLike, labels: ArrayLike) -> Logistic:
        """The likeliest model after features [n, k], nan where one is missing, and labels [n], of any class."""
        from scipy.optimize import minimize

        y = np.where(yes_or_no(labels), 1.0, -1.0)
        means, scales = np.array(self.centre.means), np.array(self.centre.scales)
        x = np.asarray(features, np.float64).reshape(len(y), len(means))
        same_length(x, y)
        z = np.column_stack([np.where(np.isnan(x), 0.0, (x - means) / scales), np.ones(len(y))])
        start = np.array([*self.centre.weights, self.centre.intercept])
        precision = np.zeros((len(start), len(start)))
        precision[:-1, :-1], precision[-1, -1] = np.linalg.inv(self.weights), 1.0 / self.intercept

        def cost(at: Floats) -> tuple[float, Floats]:
            margin, away = y * (z @ at), precision @ (at - start)
            slope = -y / (1.0 + np.exp(np.clip(margin, -30.0, 30.0)))
            return float(np.logaddexp(0.0, -margin).sum() + (at - start) @ away / 2), z.T @ slope + away

        found: Any = minimize(cost, start, jac=True, method="BFGS")
        return _model(means, scales, found.x[:-1], float(found.x[-1]))


def expected_kappa_threshold(p: ArrayLike) -> float:
    """The threshold of probabilities [n] at which kappa is highest if they hold: it needs no label, so a few labels
    do not move it as they move the best threshold for them."""
    values, counts = np.unique(np.asarray(p, np.float64), return_counts=True)
    values, counts = values[::-1], counts[::-1]
    said, n = np.cumsum(counts), int(counts.sum())
    right = np.cumsum(values * counts)
    relevant = right[-1]
    agreed = (right + (n - said) - (relevant - right)) / n
    chance = (said * relevant + (n - said) * (n - relevant)) / n**2
    kappa = np.where(chance < 1.0, (agreed - chance) / np.maximum(1.0 - chance, 1e-12), 0.0)
    best = int(kappa.argmax())
    return float(values[best] if best + 1 == len(values) else (values[best] + values[best + 1]) / 2)


def _line(fitted: Isotonic) -> Logistic:
    x = np.array(fitted.x)
    slope, height = np.polyfit(x, _logit(fitted.y), 1) if len(set(fitted.x)) > 1 else (0.0, _logit(fitted.y).mean())
    mean, scale = float(x.mean()), float(x.std()) or 1.0
    return Logistic((mean,), (scale,), (float(slope) * scale,), float(height + slope * mean))


def _model(means: Floats, scales: Floats, weights: Floats, intercept: float) -> Logistic:
    return Logistic(tuple(means.tolist()), tuple(scales.tolist()), tuple(weights.tolist()), intercept)


def _logit(p: ArrayLike) -> Floats:
    values = np.asarray(p, np.float64)
    return np.asarray(np.log(values / (1.0 - values)), np.float64)

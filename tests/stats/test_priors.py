"""Models from few rows: they begin as the others' mean, move with every row, and end as their own."""

from __future__ import annotations

import numpy as np
import pytest

from qrelay.errors import InputError
from qrelay.stats.agreement import auc, kappa
from qrelay.stats.calibration import Isotonic, Logistic
from qrelay.stats.priors import LogisticPrior, expected_kappa_threshold


def world(seed: int, n: int, steep: float = 1.0, cut: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Rows of three inputs, of which the third knows nothing, and labels."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0.0, [1.0, 3.0, 1.0], (n, 3))
    p = 1 / (1 + np.exp(-steep * (x @ [1.0, 0.5, 0.0] - cut)))
    return x, rng.random(n) < p


def coefficients(model: Logistic) -> np.ndarray:
    return np.array(model.weights) / np.array(model.scales)


def test_it_begins_as_the_model_of_the_other_collection() -> None:
    other = Logistic.fit(*world(0, 500))
    assert LogisticPrior.of([other]).centre == other


def test_of_several_it_is_their_mean_and_what_they_agree_on_moves_less() -> None:
    fitted = [Logistic.fit(*world(seed, 500, steep)) for seed, steep in ((1, 0.5), (2, 1.0), (3, 2.0))]
    prior = LogisticPrior.of(fitted)
    assert coefficients(prior.centre) == pytest.approx(np.mean([coefficients(each) for each in fitted], 0), rel=0.01)
    spread = np.sqrt(np.diag(prior.weights))
    assert spread[2] < spread[0] / 3


def test_few_rows_of_another_steepness_mend_the_probabilities_and_keep_the_order() -> None:
    prior = LogisticPrior.of([Logistic.fit(*world(0, 500, 3.0))])
    x, y = world(5, 32, 0.5, cut=2.0)
    fitted = prior.fit(x, y)
    there, labels = world(6, 2000, 0.5, cut=2.0)
    truth = 1 / (1 + np.exp(-0.5 * (there @ [1.0, 0.5, 0.0] - 2.0)))
    before, after = (np.abs(model.predict(there) - truth).mean() for model in (prior.centre, fitted))
    assert after < before / 2
    assert auc(labels, fitted.weigh(there)) > auc(labels, Logistic.fit(x, y).weigh(there))


def test_with_many_rows_it_is_their_own_model() -> None:
    x, y = world(7, 20_000, 0.5, cut=1.0)
    fitted = LogisticPrior.of([Logistic.fit(*world(0, 500, 3.0))]).fit(x, y)
    assert fitted.predict(x[:50]) == pytest.approx(Logistic.fit(x, y).predict(x[:50]), abs=0.02)


def test_rows_of_one_class_and_without_an_input_move_it_and_break_nothing() -> None:
    prior = LogisticPrior.of([Logistic.fit(*world(0, 500))])
    x, _ = world(8, 12)
    x[:, 1] = np.nan
    lower = prior.fit(x, np.zeros(12, bool))
    assert lower.predict(x).mean() < prior.centre.predict(x).mean()
    assert np.isfinite(lower.predict(x)).all()


def test_an_isotonic_model_counts_as_a_line() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0.0, 1.0, 4000)
    y = rng.random(4000) < 1 / (1 + np.exp(-(2.0 * x - 1.0)))
    centre = LogisticPrior.of([Isotonic.fit(x, y)]).centre
    assert centre.predict([[0.5], [1.0]]) == pytest.approx([0.5, 0.73], abs=0.1)
    flat = LogisticPrior.of([Isotonic((0.0,), (0.25,))]).centre
    assert flat.predict([[-5.0], [5.0]]) == pytest.approx([0.25, 0.25])


def test_models_of_other_inputs_are_refused() -> None:
    one, two = Logistic((0.0,), (1.0,), (1.0,), 0.0), Logistic((0.0, 0.0), (1.0, 1.0), (1.0, 1.0), 0.0)
    for models in ([], [one, two]):
        with pytest.raises(InputError, match="same inputs"):
            LogisticPrior.of(models)


def test_the_threshold_is_the_best_one_if_the_probabilities_hold() -> None:
    rng = np.random.default_rng(0)
    p = rng.beta(0.5, 2.0, 20_000)
    y = rng.random(len(p)) < p
    threshold = expected_kappa_threshold(p)
    best = max(kappa(y, p >= at) for at in np.linspace(0.02, 0.98, 49))
    assert kappa(y, p >= threshold) > best - 0.005


@pytest.mark.parametrize(
    ("p", "threshold"), [([0.3], 0.3), ([0.2, 0.2, 0.2], 0.2), ([1.0, 1.0], 1.0), ([0.0, 0.0, 1.0], 0.5)]
)
def test_few_or_equal_probabilities_have_a_threshold_too(p: list[float], threshold: float) -> None:
    assert expected_kappa_threshold(p) == threshold

"""Labels x losses: chosen on one half of MedQuAD's dev questions, measured on the other and on LiveQA-Med."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.utility.head import Vectors, run, train
from benchmarks.utility.measuring import MEASURES, Columns
from qrelay.formats.beir import Collection, Run
from qrelay.stats.paired import compare
from qrelay.training.data import Example
from qrelay.training.evaluation.evaluate import evaluate
from qrelay.training.experiment import Experiment, load_experiment

LOSSES: Final = {"kl": "kl_only", "kl + margin": "kl_margin", "sum_marginal": "sum_marginal"}
"""A loss and the shipped experiment that has it."""
RATES: Final = (1e-4, 3e-4, 1e-3)
TEACHERS: Final = (0.5, 1.0, 2.0)
"""Temperatures of labels whose standard deviation within a question is 1."""
SEEDS: Final = 10
CHOOSING: Final = 2
FOLDS: Final = 5


def options(loss: str, documents: int) -> Iterator[Experiment]:
    """The settings among which one is chosen."""
    teachers = TEACHERS if loss != "sum_marginal" else TEACHERS[:1]
    for rate, teacher in product(RATES, teachers):
        changed = [f"learning_rate={rate}", f"teacher_temperature={teacher}", f"documents={documents}",
                   f"max_positives={documents - 1}", "target=answer_nll"]  # fmt: skip
        yield load_experiment(LOSSES[loss], changed)


def measured(collection: Collection, found: Run) -> Columns:
    """measure -> a value a question."""
    return evaluate(collection, "", found, MEASURES).values


def chosen(examples: Sequence[Example], known: Vectors, loss: str, dev: Collection, documents: int) -> Experiment:
    """The option that ranks best there by RR@5, over a few seeds."""

    def value(experiment: Experiment) -> float:
        layers = [train(examples, known, experiment, seed) for seed in range(CHOOSING)]
        return float(np.mean([measured(dev, run(dev, known, layer))["RR@5"].mean() for layer in layers]))

    return max(options(loss, documents), key=value)


def over_seeds(columns: Sequence[Columns]) -> dict[str, Any]:
    """Each question's mean over the seeds, and how far the seeds' means lie apart."""
    means: dict[str, NDArray[np.float64]] = {name: np.mean([each[name] for each in columns], axis=0) for name in MEASURES}
    spread = {name: float(np.std([each[name].mean() for each in columns])) for name in MEASURES}
    return {"columns": means, "spread": spread}


def cross_trained(
    examples: Sequence[Example], known: Vectors, experiment: Experiment, collection: Collection, seed: int
) -> Run:
    """Every question ranked by a layer that was trained on the other folds' questions."""
    asked = sorted(collection.queries)
    found: Run = {}
    for fold in range(FOLDS):
        held = set(asked[fold::FOLDS])
        layer = train([each for each in examples if each.query_id not in held], known, experiment, seed)
        found |= {query: docs for query, docs in run(collection, known, layer).items() if query in held}
    return found


def tests(old: Columns, new: Columns) -> dict[str, Any]:
    """New less old, paired by question."""
    return {
        test.measure: {"old": test.old, "new": test.new, "difference": test.difference, "low": test.low,
                       "high": test.high, "p": test.p_fisher}
        for test in compare(old, new)
    }  # fmt: skip

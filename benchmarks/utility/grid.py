"""Labels x losses: chosen on one half of MedQuAD's dev questions, measured on the other and on LiveQA-Med."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, Final

import numpy as np

from benchmarks.utility.head import Vectors, run, train
from benchmarks.utility.measuring import MEASURES, Columns
from qrelay.formats.beir import Collection, Run
from qrelay.stats.paired import compare
from qrelay.training.data import Example
from qrelay.training.evaluation.evaluate import evaluate
from qrelay.training.experiment import Experiment, load_experiment

LOSSES: Final = {"kl": "kl_only", "kl + margin": "kl_margin", "sum_marginal": "sum_marginal"}
"""A loss and the shipped experiment that has it."""
RATES: Final = (1e-4, 3e-4)
TEACHERS: Final = (0.25, 1.0)
"""Temperatures of labels whose standard deviation within a question is 1."""
SEEDS: Final = 5
CHOOSING: Final = 2
"""Seeds by which settings are chosen."""
FOLDS: Final = 5
DEV, TRANSFER, CROSSED = "medquad dev", "liveqa-med, from medquad", "liveqa-med, cross-trained"


@dataclass(frozen=True)
class Places:
    """choosing and dev: halves of MedQuAD's dev questions; known: every text's vector."""

    choosing: Collection
    dev: Collection
    liveqa: Collection
    known: Vectors

    def of(self, where: str) -> Collection:
        """What is ranked there."""
        return self.dev if where == DEV else self.liveqa

    def base(self) -> dict[str, Run]:
        """The untrained model's ranking of each place."""
        return {where: run(self.of(where), self.known, None) for where in (DEV, TRANSFER, CROSSED)}


def ranked(
    places: Places, loss: str, medquad: Sequence[Example], liveqa: Sequence[Example]
) -> tuple[Experiment, dict[str, list[Run]]]:
    """What was chosen for labels of one kind, and for each place a run a seed: MedQuAD's labels on both collections,
    LiveQA-Med's by cross-training."""
    experiment = chosen(places, loss, medquad)
    layers = [train(medquad, places.known, experiment, seed) for seed in range(SEEDS)]
    wide = experiment.model_copy(update={"documents": 24, "max_positives": 12})
    found = {where: [run(places.of(where), places.known, layer) for layer in layers] for where in (DEV, TRANSFER)}
    found[CROSSED] = [cross_trained(places, wide, liveqa, seed) for seed in range(SEEDS)]
    return experiment, found


def options(loss: str) -> Iterator[Experiment]:
    """The settings among which one is chosen, for questions of five passages."""
    teachers = TEACHERS if loss != "sum_marginal" else TEACHERS[:1]
    for rate, teacher in product(RATES, teachers):
        changed = [f"learning_rate={rate}", f"teacher_temperature={teacher}", "target=answer_nll"]
        yield load_experiment(LOSSES[loss], [*changed, "documents=5", "max_positives=4"])


def chosen(places: Places, loss: str, examples: Sequence[Example]) -> Experiment:
    """The option that ranks best by RR@5 on the half to choose on."""

    def value(experiment: Experiment) -> float:
        layers = [train(examples, places.known, experiment, seed) for seed in range(CHOOSING)]
        runs = [run(places.choosing, places.known, layer) for layer in layers]
        return float(np.mean([measured(places.choosing, each, MEASURES[:1])[MEASURES[0]] for each in runs]))

    return max(options(loss), key=value)


def cross_trained(places: Places, experiment: Experiment, examples: Sequence[Example], seed: int) -> Run:
    """Every question ranked by a layer that was trained on the other folds' questions."""
    asked = sorted(places.liveqa.queries)
    found: Run = {}
    for fold in range(FOLDS):
        held = set(asked[fold::FOLDS])
        others = [each for each in examples if each.query_id not in held]
        layer = train(others, places.known, experiment, seed)
        found |= {query: docs for query, docs in run(places.liveqa, places.known, layer).items() if query in held}
    return found


def measured(collection: Collection, found: Run, measures: Sequence[str] = MEASURES) -> Columns:
    """measure -> a value a question."""
    return evaluate(collection, "", found, measures).values


def means(collection: Collection, runs: Sequence[Run]) -> tuple[Columns, dict[str, float]]:
    """Each question's mean over the seeds, and the standard deviation of the seeds' means."""
    columns = [measured(collection, each) for each in runs]
    over = {name: np.mean([each[name] for each in columns], axis=0) for name in MEASURES}
    return over, {name: float(np.std([each[name].mean() for each in columns])) for name in MEASURES}


def tests(old: Columns, new: Columns) -> dict[str, Any]:
    """New less old, paired by question."""
    return {
        test.measure: {
            "old": test.old, "new": test.new, "difference": test.difference, "low": test.low, "high": test.high,
            "p": test.p_fisher,
        }
        for test in compare(old, new)
    }  # fmt: skip


def results(places: Places, runs: Mapping[tuple[str, str, str], Sequence[Run]]) -> dict[str, Any]:
    """place -> loss -> kind of label: less the untrained model, and answers' labels less the questions'. runs: by
    place, loss and kind."""
    base = {where: measured(places.of(where), each) for where, each in places.base().items()}
    columns = {key: means(places.of(key[0]), each) for key, each in runs.items()}
    found: dict[str, Any] = {}
    for (where, loss, kind), (over, spread) in columns.items():
        row = {"spread": spread, "less base": tests(base[where], over)}
        if kind == "answer":
            row["less query"] = tests(columns[where, loss, "query"][0], over)
        found.setdefault(where, {}).setdefault(loss, {})[kind] = row
    return found

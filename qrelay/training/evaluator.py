"""A dev set, which stops training and is never trained on, as an evaluator of sentence-transformers: one metric, by
the same code as `qrelay eval`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sentence_transformers.base.evaluation import BaseEvaluator

from qrelay.formats.beir import Collection, Run
from qrelay.training.evaluation.measures import per_query

Ranker = Callable[[Any], Run]
"""A model's run over the dev set."""


class DevEvaluator(BaseEvaluator):  # type: ignore[misc]
    """The metric's mean over the dev queries, under its own name."""

    def __init__(self, dev: Collection, metric: str, rank: Ranker) -> None:
        """
        Raises:
            InputError: a metric that ir-measures does not know.
        """
        super().__init__()
        per_query(dev.qrels, {}, [metric])
        self._dev = dev
        self._rank = rank
        self.primary_metric = metric

    def __call__(self, model: Any, *_: Any, **__: Any) -> dict[str, float]:
        """The trainer logs it as `eval_<metric>`; where and when it asks (the rest) is its own affair."""
        was_training = model.training
        model.eval()
        values = per_query(self._dev.qrels, self._rank(model), [self.primary_metric])
        model.train(was_training)
        return {self.primary_metric: float(values[self.primary_metric].mean())}

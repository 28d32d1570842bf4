"""Cross-encoders: query and passage read together, the library's losses, sentence-transformers' CrossEncoderTrainer.

Any encoder can be the body, a bi-encoder's too: it gets a new head with one output, drawn by the experiment's seed.

bce        pointwise: binary cross-entropy against the soft target (BinaryCrossEntropyLoss)
mse        pointwise: squared distance of sigmoid(score) to the soft target (MSELoss)
pairwise   RankNet: log(1 + e^(s_j - s_i)) of every pair that the targets order (RankNetLoss)
           (Burges et al. 2005, https://icml.cc/Conferences/2005/proceedings/papers/012_LearningToRank_BurgesEtAl.pdf)
listwise   LambdaLoss with the NDCGLoss2++ weights (LambdaLoss)
           (Wang et al. 2018, https://dl.acm.org/doi/10.1145/3269206.3271784)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from qrelay.formats.beir import Collection
from qrelay.training.data import Document, Example
from qrelay.training.evaluator import Ranker
from qrelay.training.experiment import Experiment
from qrelay.training.rows import as_lists, as_pairs, portions, with_random_negatives
from qrelay.training.weights import loading

_POINTWISE: Final = ("bce", "mse")
_EDGE: Final = 1e-3
"""Of a mean target: 0 and 1 have no log-odds."""


class CrossEncoderKind:
    """How `qrelay.training.stages` trains a cross-encoder; see `qrelay.training.stages.Kind`."""

    def load(self, experiment: Experiment, path: Path) -> Any:
        """A CrossEncoder with one output from a folder, with the experiment's length and attention."""
        from sentence_transformers import CrossEncoder

        return CrossEncoder(str(path), num_labels=1, max_length=experiment.max_length, **loading(experiment))

    def dataset(self, examples: Sequence[Example], experiment: Experiment) -> Any:
        """Columns query, document, label for pointwise losses; query, docs, labels for the others."""
        lists = with_random_negatives(_lists(examples, experiment), experiment.strangers, seed=experiment.seed)
        if _loss_name(experiment) in _POINTWISE:
            return as_pairs(lists, seed=experiment.seed)
        return as_lists(lists, seed=experiment.seed)

    def begin(self, experiment: Experiment, model: Any, dataset: Any) -> None:
        """A new head's bias starts at the log-odds of the mean target where the loss fits targets: else the first
        hundreds of steps go into it, and the body learns to say the mean whatever it reads (Lin et al. 2017, section
        4.1, https://arxiv.org/abs/1708.02002)."""
        import torch

        head = [part for part in model.modules() if isinstance(part, torch.nn.Linear)][-1]
        if _loss_name(experiment) in _POINTWISE and head.bias is not None and not head.bias.any():
            mean = sum(dataset["label"]) / len(dataset)
            torch.nn.init.constant_(head.bias, math.log(max(mean, _EDGE) / max(1 - mean, _EDGE)))

    def loss(self, experiment: Experiment, model: Any) -> Any:
        """The library's loss of that name."""
        from sentence_transformers.cross_encoder import losses
        from torch import nn

        name, size = _loss_name(experiment), experiment.mini_batch_size or -1
        if name == "bce":
            return losses.BinaryCrossEntropyLoss(model)
        if name == "mse":
            return losses.MSELoss(model, activation_fn=nn.Sigmoid())
        if name == "pairwise":
            return losses.RankNetLoss(model, mini_batch_size=size)
        return losses.LambdaLoss(model, mini_batch_size=size)

    def arguments(self, **values: Any) -> Any:
        """The trainer's arguments."""
        from sentence_transformers.cross_encoder import CrossEncoderTrainingArguments

        return CrossEncoderTrainingArguments(**values)

    def trainer(self, model: Any, **values: Any) -> Any:
        """The trainer."""
        from sentence_transformers.cross_encoder import CrossEncoderTrainer

        return CrossEncoderTrainer(model=model, **values)

    def ranker(self, dev: Collection) -> Ranker:
        """BM25's top 100 of each dev query in the model's order."""
        from qrelay.training.evaluation.systems import bm25_run, cross_encoder_run

        first = bm25_run(dev)
        return lambda model: cross_encoder_run(dev, model, first)


def _loss_name(experiment: Experiment) -> str:
    (name,) = experiment.terms
    return name


def _lists(examples: Sequence[Example], experiment: Experiment) -> Iterator[tuple[str, list[Document]]]:
    """The rows of `qrelay.training.rows`, without padding; a text once a row."""
    for example in examples:
        for judged in portions(example, experiment.documents, experiment.max_positives, experiment.every_label):
            once = {document.text: document for document, _ in reversed(judged)}
            yield example.query, list(reversed(once.values()))

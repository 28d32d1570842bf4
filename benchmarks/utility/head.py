"""A bi-encoder in seconds: a linear layer on a model's vectors, trained by the experiments' own losses.

The model stays as it is, so texts are embedded once and many trainings cost nothing: losses, labels, seeds.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray

from qrelay.formats.beir import Collection, Run
from qrelay.training.data import Example, Reading, load_examples
from qrelay.training.experiment import Experiment
from qrelay.training.losses.batch import Batch
from qrelay.training.losses.combined import weighted_terms
from qrelay.training.losses.terms import LossRules
from qrelay.training.rows import Row, rows_of

EPOCHS: Final = 10
DEPTH: Final = 10
Vectors = Mapping[str, NDArray[np.float32]]
"""text -> vector."""


def read(path: Path) -> list[Example]:
    """The examples of a file of labels."""
    return load_examples([path], Reading(target="answer_nll", others=True, need_positive=False))[0]


def train(examples: Sequence[Example], vectors: Vectors, experiment: Experiment, seed: int) -> torch.nn.Linear:
    """The layer; from the identity. seed: of the examples drawn with replacement, as many as there are, so that
    seeds differ by the data as much as by the order."""
    drawn = random.Random(seed).choices(examples, k=len(examples))
    rows = list(rows_of(drawn, documents=experiment.documents, max_positives=experiment.max_positives))
    queries, documents, targets = _tensors(rows, vectors)
    layer = torch.nn.Linear(queries.shape[-1], queries.shape[-1], bias=False)
    torch.nn.init.eye_(layer.weight)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=experiment.learning_rate, weight_decay=0.0)
    rules = LossRules(experiment.temperature, experiment.teacher_temperature, experiment.margin)
    order = torch.Generator().manual_seed(seed)
    for _ in range(EPOCHS):
        for some in torch.split(torch.randperm(len(rows), generator=order), experiment.batch_size):
            optimiser.zero_grad()
            batch = Batch.of(layer(queries[some]), layer(documents[some]), targets[some])
            torch.autograd.backward(list(weighted_terms(batch, experiment.terms, rules).values()))
            optimiser.step()
    return layer.requires_grad_(False)


def _tensors(rows: Sequence[Row], vectors: Vectors) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(R, D) queries, (R, N, D) documents with zeros for padding, (R, 3 N) labels."""
    asked, texts, targets = zip(*rows, strict=True)
    empty = np.zeros_like(vectors[asked[0]])
    shown = np.stack([[vectors[each] if each else empty for each in row] for row in texts])
    return (
        torch.from_numpy(np.stack([vectors[each] for each in asked])),
        torch.from_numpy(shown),
        torch.tensor(targets),
    )


def run(collection: Collection, vectors: Vectors, layer: torch.nn.Linear | None) -> Run:
    """The first documents of each query by cosine; None: the model as it is."""
    ids = collection.doc_ids
    corpus = _unit(np.stack([vectors[each] for each in collection.texts]), layer)
    asked = _unit(np.stack([vectors[each] for each in collection.queries.values()]), layer)
    found: Run = {}
    for query_id, scores in zip(collection.queries, asked @ corpus.T, strict=True):
        found[query_id] = {ids[row]: float(scores[row]) for row in np.argsort(-scores, kind="stable")[:DEPTH]}
    return found


def _unit(rows: NDArray[np.float32], layer: torch.nn.Linear | None) -> NDArray[np.float32]:
    moved: NDArray[np.float32] = rows if layer is None else layer(torch.from_numpy(rows)).numpy()
    return np.asarray(moved / np.linalg.norm(moved, axis=1, keepdims=True), np.float32)

"""A weighted sum of terms as one loss of sentence-transformers, with or without GradCache.

The trainer hands over the features of the columns (query, document_0 … document_{N-1}) and the labels of
`batch.BLOCKS`. Each term comes back under its own name, so that the trainer logs them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from torch import Tensor, nn

from qrelay.training.losses.batch import Batch
from qrelay.training.losses.embedding import embed
from qrelay.training.losses.terms import TERMS, LossRules


def weighted_terms(batch: Batch, weights: Mapping[str, float], rules: LossRules) -> dict[str, Tensor]:
    """name -> weight * term."""
    return {name: weight * TERMS[name](batch, rules) for name, weight in weights.items()}


class _Weighted(nn.Module):
    """What both have: the model, the terms' weights, their numbers."""

    def __init__(self, model: Any, weights: Mapping[str, float], rules: LossRules) -> None:
        super().__init__()
        self.model = model
        self.weights = dict(weights)
        self.rules = rules

    def get_config_dict(self) -> dict[str, Any]:
        """For the model card."""
        return {"weights": self.weights, **vars(self.rules)}


class RetrievalLoss(_Weighted):
    """All embeddings of the batch at once: memory grows with batch size times documents a query."""

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> dict[str, Tensor]:
        """features: the query's, then each document's; labels: (B, 3 N)."""
        queries, *documents = embed(self.model, list(sentence_features))
        return weighted_terms(Batch.of(queries, torch.stack(documents, 1), labels), self.weights, self.rules)


class CachedRetrievalLoss(CachedLossMixin, _Weighted):  # type: ignore[misc]  # the library has no types
    """The same loss in memory of `mini_batch_size` texts, by GradCache (Gao et al. 2021,
    https://arxiv.org/abs/2101.06983), at the price of a second forward pass."""

    def __init__(
        self, model: Any, weights: Mapping[str, float], rules: LossRules, *, mini_batch_size: int = 32
    ) -> None:
        super().__init__(model, weights, rules)
        self.mini_batch_size = mini_batch_size
        self.mini_batch_num_tokens = None
        self.show_progress_bar = False

    def forward(self, sentence_features: Iterable[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """As `RetrievalLoss.forward`; one number, for the gradients are cached for the sum."""
        loss: Tensor = super().forward_cached(sentence_features, labels)
        return loss

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """The loss of embeddings that came in mini-batches: reps[column][mini-batch] is (b, D)."""
        assert labels is not None, "a retrieval loss without labels: this is a bug"
        queries, *documents = [torch.cat(column) for column in reps]
        terms = weighted_terms(Batch.of(queries, torch.stack(documents, 1), labels), self.weights, self.rules)
        loss = torch.stack(list(terms.values())).sum()
        if with_backward:
            torch.autograd.backward(loss)
            loss = loss.detach()
        return loss

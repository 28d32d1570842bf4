"""What a loss term sees: one batch of queries with all of its documents, scored.

Every query brings N documents of its own, and every document of the batch is scored against every query, so that the
documents of the others serve as in-batch negatives. A document is *masked* for a query where it must not count as a
negative: padding, and a document with the key (the identity of its text) of one of the query's own documents. So a
text that is relevant to the query is never pushed away because another query of the batch brought it too.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from qrelay.training.rows import NOT_RELEVANT, PADDING

BLOCKS: Final = ("relevance", "target", "key")
"""The blocks of a row's labels, each N numbers: 1 for relevant, 0 for not, -1 for labelled but neither (its soft
target alone counts); the soft target (expected relevance in 0..1, or whatever the experiment chose); the number of
its text, exact in float32 below 2**24."""


@dataclass(frozen=True)
class Batch:
    """scores: (B, M) similarities, M = B * N; column j belongs to the query j // N. relevance, target, key:
    (B, N)."""

    scores: Tensor
    relevance: Tensor
    target: Tensor
    key: Tensor

    @classmethod
    def of(cls, queries: Tensor, documents: Tensor, labels: Tensor) -> Batch:
        """queries: (B, D), documents: (B, N, D), both of any length; labels: (B, 3 N), see BLOCKS. Cosine scores.

        Raises:
            ValueError: shapes that do not fit together.
        """
        size, width, _ = documents.shape
        if labels.shape != (size, len(BLOCKS) * width) or len(queries) != size:
            raise ValueError(
                f"labels of shape {tuple(labels.shape)} do not fit {len(queries)} queries with {width} documents"
                f" each: expected ({size}, {len(BLOCKS) * width})"
            )
        unit = torch.nn.functional.normalize
        scores = unit(queries, dim=-1) @ unit(documents.flatten(0, 1), dim=-1).T
        relevance, target, key = labels.to(scores.device).float().view(size, len(BLOCKS), width).unbind(1)
        return cls(scores, relevance, target, key)

    @cached_property
    def own_scores(self) -> Tensor:
        """(B, N): each query against its own documents."""
        size, width = self.relevance.shape
        return self.scores.view(size, size, width)[torch.arange(size), torch.arange(size)]

    @cached_property
    def present(self) -> Tensor:
        """(B, N) bool: documents that are there."""
        return self.key != PADDING

    @cached_property
    def positive(self) -> Tensor:
        """(B, N) bool: the query's own relevant documents."""
        return self.present & (self.relevance > 0)

    @cached_property
    def own_negative(self) -> Tensor:
        """(B, N) bool: the query's own documents that are not relevant, and not the text of one that is. What is
        neither is none of them."""
        return self.not_positive & (self.relevance == NOT_RELEVANT)

    @cached_property
    def not_positive(self) -> Tensor:
        """(B, N) bool: the query's own documents that are not relevant, or neither, and not the text of one that
        is."""
        same = self.key.unsqueeze(2) == self.key.unsqueeze(1)
        twin_of_positive = (same & self.positive.unsqueeze(1)).any(2)
        return self.present & ~self.positive & ~twin_of_positive

    @cached_property
    def negative(self) -> Tensor:
        """(B, M) bool: the columns that count as the query's negatives: its own, and those of the other queries whose
        text is none of its own."""
        size, width = self.relevance.shape
        keys = self.key.flatten()
        own_text = (keys.view(1, -1, 1) == self.key.view(size, 1, width)).any(2)
        others = (keys != PADDING).expand(size, -1) & ~own_text
        block = torch.arange(size * width, device=keys.device) // width
        own = block.view(1, -1) == torch.arange(size, device=keys.device).view(-1, 1)
        spread = torch.zeros_like(own)
        spread[own] = self.own_negative.flatten()
        return torch.where(own, spread, others)

"""Embedding a batch's columns with as little padding as may be."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

Features = dict[str, Any]
_MASK = "attention_mask"


def embed(model: Any, columns: Sequence[Features]) -> list[Tensor]:
    """Each column's embeddings (B, D).

    A column alone is padded to its longest text. Here the texts of all columns are sorted by length first and then
    cut into as many batches as there were columns, each padded to its own longest: as many forward passes and the
    same result, on fewer tokens. Features that are not simply (B, L), padded on the right, or that differ by
    column in anything else (the length of a prompt), go column by column.
    """
    if not all(_sortable(each) and _others(each) == _others(columns[0]) for each in columns):
        return [model(each)["sentence_embedding"] for each in columns]
    sizes = [len(each[_MASK]) for each in columns]
    rows = _stacked(columns)
    lengths = rows[_MASK].sum(1)
    order = lengths.argsort(stable=True)
    parts = []
    for chosen in order.tensor_split(len(columns)):
        if len(chosen):
            part = {key: value[chosen][:, : int(lengths[chosen].max())] for key, value in rows.items()}
            parts.append(model(_others(columns[0]) | part)["sentence_embedding"])
    back = torch.empty_like(order).scatter(0, order, torch.arange(len(order), device=order.device))
    return list(torch.cat(parts)[back].tensor_split(list(accumulate(sizes))[:-1]))


def _sortable(features: Features) -> bool:
    tensors = [value for value in features.values() if isinstance(value, Tensor)]
    mask = features.get(_MASK)
    if mask is None or mask.ndim != 2 or any(each.shape != mask.shape for each in tensors):
        return False
    return bool(mask[:, 0].all())


def _others(features: Features) -> Features:
    return {key: value for key, value in features.items() if not isinstance(value, Tensor)}


def _stacked(columns: Sequence[Features]) -> dict[str, Tensor]:
    """(all texts, longest) of every tensor. What is filled up is cut off, or masked."""
    width = max(each[_MASK].shape[1] for each in columns)
    keys = [key for key, value in columns[0].items() if isinstance(value, Tensor)]

    def widened(value: Tensor) -> Tensor:
        return torch.nn.functional.pad(value, (0, width - value.shape[1]))

    return {key: torch.cat([widened(each[key]) for each in columns]) for key in keys}

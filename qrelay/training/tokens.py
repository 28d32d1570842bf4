"""Each text of a stage tokenised once: epochs and rows that share a text reuse its tokens.

It stands in for a model's `preprocess` in the data collator. Kept: the ids of a text, 4 bytes a token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

_MASK, _IDS, _TYPES = "attention_mask", "input_ids", "token_type_ids"


class TokenCache:
    """`preprocess` of a model that pads on the right and gives ids, mask and types of one segment, as BERT's does;
    any other model's output is handed through, never cached."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._ids: dict[str, Tensor] = {}
        self._keys: tuple[str, ...] = ()
        self._rest: dict[str, Any] = {}

    def __call__(self, texts: Sequence[str], **options: Any) -> dict[str, Any]:
        """As `model.preprocess(texts, **options)`: ids, mask (B, L), and whatever else the model gives."""
        if any(options.values()):
            found: dict[str, Any] = self._model.preprocess(list(texts), **options)
            return found
        unknown = list(dict.fromkeys(text for text in texts if text not in self._ids))
        if unknown:
            fresh = self._model.preprocess(unknown)
            if not _plain(fresh):
                return fresh if len(unknown) == len(texts) else dict(self._model.preprocess(list(texts)))
            self._keep(unknown, fresh)
        return self._padded([self._ids[text] for text in texts])

    def _keep(self, texts: Sequence[str], fresh: dict[str, Any]) -> None:
        self._keys = tuple(fresh)
        self._rest = {key: value for key, value in fresh.items() if not isinstance(value, Tensor)}
        for text, ids, mask in zip(texts, fresh[_IDS], fresh[_MASK], strict=True):
            self._ids[text] = ids[: int(mask.sum())].to(torch.int32)

    def _padded(self, rows: list[Tensor]) -> dict[str, Any]:
        padding = getattr(self._model.tokenizer, "pad_token_id", None) or 0
        ids = pad_sequence(rows, batch_first=True, padding_value=padding).long()
        lengths = torch.tensor([len(row) for row in rows])
        mask = (torch.arange(ids.shape[1]) < lengths.unsqueeze(1)).long()
        made = {_IDS: ids, _MASK: mask, _TYPES: torch.zeros_like(ids)}
        return {key: made.get(key, self._rest.get(key)) for key in self._keys}


def _plain(features: dict[str, Any]) -> bool:
    """Whether ids alone tell the rest: one segment, padding on the right, no other tensor."""
    tensors = {key: value for key, value in features.items() if isinstance(value, Tensor)}
    if not {_IDS, _MASK} <= tensors.keys() <= {_IDS, _MASK, _TYPES}:
        return False
    right = bool(tensors[_MASK][:, 0].all())
    return right and not (_TYPES in tensors and bool(tensors[_TYPES].any()))

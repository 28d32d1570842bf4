"""A cross-encoder's scores of many pairs, whatever queries they are of.

    pairs -> tokens of all -> sorted by their number -> batches of so many tokens -> scores in the pairs' order

The library's `predict` sorts by characters, which tell tokens within a fifth, and pads each batch to its longest
pair; pairs of some hundred queries then cost a tenth more. Here they are tokenised first. One call's pairs are
tokenised while another's are computed.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qrelay.models.batches import batches, tokens_on

_AT_ONCE: Final = 4096
"""Pairs that are tokenised together: 40 MB of 384 tokens each."""


class PairModel:
    """A CrossEncoder of sentence-transformers. May be called from several threads."""

    def __init__(self, model: Any, most_pairs: int) -> None:
        """most_pairs: of a batch."""
        self.model = model
        self._most_pairs = most_pairs
        self._tokenising = threading.Lock()  # the library sets padding on a tokenizer that calls share
        self._computing = threading.Lock()

    def scores(self, pairs: Sequence[tuple[str, str]], activation: Any = None) -> npt.NDArray[np.float32]:
        """(query, passage) -> scores, [pairs] of a model with one output, else [pairs, outputs]. activation: in place
        of the model's own."""
        parts = [self._part(pairs[at : at + _AT_ONCE], activation) for at in range(0, len(pairs), _AT_ONCE)]
        return np.concatenate(parts) if parts else np.empty(0, np.float32)

    def _part(self, pairs: Sequence[tuple[str, str]], activation: Any) -> npt.NDArray[np.float32]:
        import torch

        model = self.model
        with self._tokenising:
            features = model.preprocess(list(pairs), prompt=model.prompts.get(model.default_prompt_name))
        there = features["attention_mask"].bool()
        order: list[int] = []
        said = []
        with self._computing, torch.inference_mode():
            model.eval()
            for places in batches(there.sum(1).tolist(), tokens_on(model.device.type), self._most_pairs):
                scores = model(_part_of(features, there, places, model.device))["scores"].float()
                said.append((activation or model.activation_fn)(scores))
                order += places
            computed = torch.cat(said).cpu().numpy()  # at the end: a GPU need not wait between batches
        found = np.empty_like(computed)
        found[order] = computed
        return found.reshape(len(pairs)) if model.num_labels == 1 else found


def _part_of(features: Any, there: Any, places: list[int], device: Any) -> dict[str, Any]:
    """The tokens of these pairs, without the columns in which none has one."""
    columns = there[places].any(0)
    return {
        name: values[places][:, columns].to(device) if getattr(values, "shape", ())[:2] == there.shape else values
        for name, values in features.items()
    }

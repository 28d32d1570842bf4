"""A causal language model as an OpenVINO model with 8-bit weights, made once a model home.

The graph holds the head too, computed at the positions that are read and nowhere else. Inputs: `input_ids` and
`position_ids` of shape (rows, width), `attention_mask` of (rows, 1, width, width), true where a token (third) sees
another (fourth), and `places`, indices into the flattened rows. Output: log-probabilities of shape (places,
vocabulary). So a row can hold several sequences that begin alike.

Models that do not take such a mask (a sliding window, a state, positions in the attention itself) are found out by
asking them, before they are converted. Their graph has no `position_ids`, and a mask of shape (rows, width).

The model is unpacked to 16 bits, and each layer becomes 8-bit ones before the next, so a 1.5B takes 5.7 GB at its
peak and leaves a copy of 1.8 GB.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, Final

from qrelay.llm.weights_folder import load_unpacked, weights_in
from qrelay.models.prepared import Room, prepared
from qrelay.progress import step

GRAPH: Final = "model.xml"
ATTENTION_MASK: Final = "attention_mask"
POSITIONS: Final = "position_ids"
"""The inputs that differ: see the module."""
_KIND: Final = "openvino-int8-rows"
_NEAR: Final = 0.05
"""Of a hidden state's length: how far one may be from itself when it is computed in another row, in 16 bits."""
_LIBRARIES_BYTES = 1.2e9


def openvino_folder(path: Path, revision: str, *, smaller: str = "") -> Path:
    """The folder with `GRAPH` and the tokenizer of the model at `path` (a GGUF or a Hugging Face folder), made where
    it is absent. revision: of its bytes. smaller: what to do where memory or disk are too small.

    Raises:
        ModelError: it cannot be read or converted, OpenVINO is not installed, or there is no room.
    """
    weights = weights_in(path)
    size = path.stat().st_size if path.is_file() else 0
    room = Room(disk_bytes=1.1 * weights, memory_bytes=2 * weights + size + _LIBRARIES_BYTES)
    make = functools.partial(_convert, path)
    return prepared(_name(revision), make, room, f"{path.stem} in 8 bits for OpenVINO", smaller=smaller)


def _name(revision: str) -> str:
    return f"{revision}-{_KIND}"


def _convert(path: Path, target: Path) -> None:
    import torch

    from qrelay.models.openvino import library
    from qrelay.models.openvino_copies import quantise_weights, save_traced

    library()  # says what is missing before the minute that unpacking takes
    model, tokenizer = load_unpacked(path, "float16")
    packs = reads_packed_rows(model)
    parts = torch.nn.ModuleList([model.base_model, model.get_output_embeddings()])
    total = sum(values.numel() for values in parts.parameters())
    with step(f"quantising {path.stem} to 8 bits", total=total / 1e6, unit="million weights") as quantising:
        quantise_weights(parts, lambda weights: quantising.advance(weights / 1e6))
    with step(f"writing {path.stem} for OpenVINO"):
        tokenizer.save_pretrained(target)
        save_traced(_Likelihoods(*parts, packs=packs), _example(packs), target / GRAPH)


def reads_packed_rows(model: Any) -> bool:
    """Whether the model, of transformers, reads two continuations in one row, each blind to the other, as it reads
    each alone."""
    import torch
    from transformers import DynamicCache

    from qrelay.llm.forward import is_plain

    one, other = torch.tensor([[1, 2, 3, 4, 5, 6]]), torch.tensor([[1, 2, 3, 7, 8]])
    both = {
        "input_ids": torch.cat([one, other[:, 3:]], dim=1),
        "position_ids": torch.tensor([[*range(6), 3, 4]]),
        "attention_mask": torch.ones(1, 1, 8, 8, dtype=torch.bool).tril(),
    }
    both["attention_mask"][..., 6:, 3:6] = False
    try:
        if not is_plain(DynamicCache(config=model.config)):
            return False
        with torch.inference_mode():
            alone = [model.base_model(input_ids=ids, use_cache=False)[0][0, 3:] for ids in (one, other)]
            packed = model.base_model(**both, use_cache=False)[0][0, 3:]
    except Exception:  # whatever an architecture raises at such a mask: it does not take one
        return False
    lengths = torch.cat(alone).float().norm(dim=-1)
    apart = (packed - torch.cat(alone)).float().norm(dim=-1)
    return bool((apart <= _NEAR * lengths).all())


def _example(packs: bool) -> dict[str, Any]:
    import torch

    ids = torch.ones((2, 8), dtype=torch.long)
    places = torch.tensor([3, 9])
    if not packs:
        return {"input_ids": ids, ATTENTION_MASK: ids, "places": places}
    mask = torch.ones((2, 1, 8, 8), dtype=torch.bool).tril()
    return {"input_ids": ids, POSITIONS: torch.arange(8).repeat(2, 1), ATTENTION_MASK: mask, "places": places}


def _Likelihoods(body: Any, head: Any, *, packs: bool) -> Any:  # noqa: N802 (a class that needs torch, which loads late)
    import torch

    class Likelihoods(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = body, head

        def read(self, places: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
            hidden = self.body(**inputs, use_cache=False)[0]
            return torch.log_softmax(self.head(hidden.reshape(-1, hidden.shape[-1])[places]), dim=-1)

    class OfWholeRows(Likelihoods):
        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, places: torch.Tensor
        ) -> torch.Tensor:
            return self.read(places, input_ids=input_ids, attention_mask=attention_mask)

    class OfPackedRows(Likelihoods):
        def forward(
            self,
            input_ids: torch.Tensor,
            position_ids: torch.Tensor,
            attention_mask: torch.Tensor,
            places: torch.Tensor,
        ) -> torch.Tensor:
            return self.read(places, input_ids=input_ids, position_ids=position_ids, attention_mask=attention_mask)

    return OfPackedRows() if packs else OfWholeRows()

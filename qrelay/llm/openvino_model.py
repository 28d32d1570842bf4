"""A causal language model as an OpenVINO model with 8-bit weights, made once a model home.

The graph holds the head too, computed at the positions that are read and nowhere else: inputs `input_ids` and
`attention_mask` of shape (rows, width) and `places`, indices into the flattened rows; output log-probabilities of
shape (places, vocabulary).

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
_KIND: Final = "openvino-int8"
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
    parts = torch.nn.ModuleList([model.base_model, model.get_output_embeddings()])
    total = sum(values.numel() for values in parts.parameters())
    with step(f"quantising {path.stem} to 8 bits", total=total / 1e6, unit="million weights") as quantising:
        quantise_weights(parts, lambda weights: quantising.advance(weights / 1e6))
    ids = torch.ones((2, 8), dtype=torch.long)
    example = {"input_ids": ids, "attention_mask": ids, "places": torch.tensor([3, 9])}
    with step(f"writing {path.stem} for OpenVINO"):
        tokenizer.save_pretrained(target)
        save_traced(_Likelihoods(*parts), example, target / GRAPH)


def _Likelihoods(body: Any, head: Any) -> Any:  # noqa: N802 (a class that needs torch, which loads late)
    import torch

    class Likelihoods(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = body, head

        def forward(
            self, input_ids: torch.Tensor, attention_mask: torch.Tensor, places: torch.Tensor
        ) -> torch.Tensor:
            hidden = self.body(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
            read = hidden.reshape(-1, hidden.shape[-1])[places]
            return torch.log_softmax(self.head(read), dim=-1)

    return Likelihoods()

"""sentence-transformers' bi-encoders and cross-encoders, their bodies computed by OpenVINO in 8-bit integers.

Tokens, pooling, norms and activations of scores stay the library's own: only the body of its first module, a
transformer, is replaced. The quantised body is made once, of the model's bytes and `calibration.txt` (see
`prepared`); every machine makes the same up to the rounding of float32.
"""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any, Final

import torch

from qrelay.errors import ModelError
from qrelay.models.engines import QUANTISATION
from qrelay.models.openvino import Compiled, library
from qrelay.models.openvino_copies import traced
from qrelay.models.prepared import Room, prepared
from qrelay.models.records import ResolvedModel
from qrelay.models.static_int8 import calibration_texts, quantise
from qrelay.progress import step

GRAPH: Final = "body.xml"
_INPUTS: Final = ("input_ids", "attention_mask", "token_type_ids")
_OUTPUTS: Final = ("last_hidden_state", "logits")


def use_openvino(model: Any, resolved: ResolvedModel, *, pairs: bool, threads: int) -> None:
    """Let OpenVINO compute the body of a SentenceTransformer or (pairs) a CrossEncoder that is on the CPU.

    threads: of the CPU; 0 takes the number of physical cores that this process may use. One call at a time.

    Raises:
        ModelError: OpenVINO is not installed or cannot convert the body, or memory or disk are too small for it.
    """
    library()
    part = model[0]
    output, inputs = _output(part, resolved.name), _inputs(model)
    size = sum(values.numel() * 4 for values in part.model.parameters())
    folder = prepared(
        f"{resolved.revision}-openvino-{QUANTISATION}",
        partial(_make, model, resolved.name, inputs, output, pairs),
        Room(disk_bytes=size, memory_bytes=3 * size + 3e8),
        f"{resolved.name} in 8 bits",
        smaller="set its engine to torch",
    )
    part.model = _Body(Compiled(folder / GRAPH, threads=threads), part.model.config, inputs, output)


def _output(part: Any, name: str) -> str:
    """The body's output that the library reads."""
    found = part.modality_config["text"]["method_output_name"] if hasattr(part, "modality_config") else ""
    output = found if isinstance(found, str) else next(iter(found or ()), "")
    if output not in _OUTPUTS:
        raise ModelError(f"the engine openvino cannot compute {name}, which has no transformer: set the engine torch")
    return output


def _inputs(model: Any) -> tuple[str, ...]:
    """What the tokenizer gives and the body takes."""
    given, taken = model.preprocess(["a"]), inspect.signature(model[0].model.forward).parameters
    return tuple(name for name in _INPUTS if name in given and name in taken)


def _make(model: Any, name: str, inputs: tuple[str, ...], output: str, pairs: bool, folder: Path) -> None:
    texts = calibration_texts()
    samples: list[Any] = list(zip(texts, texts[1:] + texts[:1], strict=True)) if pairs else texts
    with step(f"converting {name} to 8 bits", total=len(samples), unit="passages") as converting:

        def feeds() -> Any:
            for sample in samples:
                features = model.preprocess([sample])
                yield {each: features[each].numpy() for each in inputs}
                converting.advance(1)

        example = {each: torch.ones(2, 8, dtype=torch.long) for each in inputs}
        graph = traced(_Traced(model[0].model.float(), output), example)
        if not quantise(graph, feeds()):
            raise ModelError(f"the engine openvino finds nothing to quantise in {name}: set the engine torch")
        library().save_model(graph, folder / GRAPH, compress_to_fp16=False)


class _Traced(torch.nn.Module):
    """The body with names for its inputs and one output."""

    def __init__(self, body: torch.nn.Module, output: str) -> None:
        super().__init__()
        self.body, self._output = body.eval(), output

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor,
        token_type_ids: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Tensors of shape (texts, tokens)."""
        types = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        found = self.body(input_ids=input_ids, attention_mask=attention_mask, return_dict=True, **types)
        values: torch.Tensor = found[self._output]
        return values


class _Body(torch.nn.Module):
    """Stands in the library's module for the transformer."""

    def __init__(self, compiled: Compiled, config: Any, inputs: tuple[str, ...], output: str) -> None:
        super().__init__()
        self._compiled, self.config, self._inputs, self._output = compiled, config, inputs, output
        self.register_parameter(
            "_none", torch.nn.Parameter(torch.empty(0), requires_grad=False)
        )  # says device, dtype

    def forward(self, **features: Any) -> dict[str, torch.Tensor]:
        """features: the tokenizer's tensors of shape (texts, tokens), and what the library adds."""
        answer = self._compiled({name: features[name].numpy() for name in self._inputs})
        return {self._output: torch.from_numpy(answer)}

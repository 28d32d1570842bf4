"""PyTorch modules as OpenVINO models with 8-bit weights. Needs torch; nothing is run, so it is quick and small.

`quantise_weights` puts 8-bit layers in the place of a module's linear and embedding layers, one after the other, so
that a model never lies in memory twice: symmetric, one scale a row (output channel), as
`nncf.compress_weights(INT8_SYM)` does it. `save_traced` writes the OpenVINO model; weights stay 8-bit constants, and
OpenVINO shares the module's own memory while it writes. Whatever torch.jit can trace is converted.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import torch

from qrelay.errors import ModelError

QUANTISATION: Final = "int8"
_ROWS_AT_ONCE: Final = 4096


class _Int8(torch.nn.Module):
    """A matrix of shape (rows, columns) as int8, and a float32 scale a row."""

    values: torch.Tensor
    scales: torch.Tensor

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        values = torch.empty(weight.shape, dtype=torch.int8)
        scales = torch.empty(weight.shape[0], 1)
        for start in range(0, len(weight), _ROWS_AT_ONCE):
            rows = weight[start : start + _ROWS_AT_ONCE].float()
            scale = rows.abs().amax(1, keepdim=True).clamp_min(1e-12) / 127
            scales[start : start + _ROWS_AT_ONCE] = scale
            values[start : start + _ROWS_AT_ONCE] = (rows / scale).round_().to(torch.int8)
        self.register_buffer("values", values)
        self.register_buffer("scales", scales)


class Int8Linear(_Int8):
    """x @ weight.T + bias."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight)
        self.bias = None if bias is None else torch.nn.Parameter(bias.float(), requires_grad=False)


class Int8Embedding(_Int8):
    """Rows of the weight."""


def quantise_weights(module: torch.nn.Module, told: Callable[[int], None] = lambda _: None) -> None:
    """Put 8-bit layers in the place of every Linear and Embedding below `module`, each freed once its copy is made;
    the rest becomes float32. told: after each layer, how many weights it had."""
    with torch.no_grad():
        for name, child in list(module.named_children()):
            new = _quantised(child)
            if new is None:
                quantise_weights(child, told)
                continue
            setattr(module, name, new)
            told(new.values.numel())
            del child.weight
        for _, values in module.named_parameters(recurse=False):
            values.data = values.data.float()


def _quantised(layer: torch.nn.Module) -> _Int8 | None:
    if isinstance(layer, torch.nn.Linear):
        return Int8Linear(layer.weight.data, None if layer.bias is None else layer.bias.data)
    if type(layer) is torch.nn.Embedding:
        return Int8Embedding(layer.weight.data)
    return None


def save_traced(module: torch.nn.Module, example: dict[str, torch.Tensor], file: Path) -> None:
    """Write the module as `file` (.xml) and its weights beside it (.bin); see `traced`."""
    from qrelay.models.openvino import library

    library().save_model(traced(module, example), file, compress_to_fp16=False)


def traced(module: torch.nn.Module, example: dict[str, torch.Tensor]) -> Any:
    """The module as an OpenVINO model. example: inputs by name, whose sizes mean nothing: every dimension is free.

    Raises:
        ModelError: OpenVINO is not installed, or does not know an operation of the module.
    """
    from qrelay.models.openvino import library

    openvino = library()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # of tracing: which branches were taken
            return openvino.convert_model(module, example_input=example, extension=_extensions())
    except Exception as error:  # the converter raises whatever the module provokes
        raise ModelError(
            f"OpenVINO cannot convert this model ({type(error).__name__}: {str(error).splitlines()[0][:200]}): "
            "choose another engine for it"
        ) from error


def _extensions() -> list[Any]:
    """What stands for the 8-bit layers in the graph; while tracing they are not computed."""
    import numpy as np
    from openvino import opset15 as ops
    from openvino.frontend.pytorch import ConversionExtension, ModuleExtension

    def dense(context: Any) -> Any:
        return ops.multiply(ops.convert(context.get_input(1), "f32"), context.get_input(2))

    def linear(context: Any) -> Any:
        return ops.matmul(context.get_input(0), dense(context), False, True).outputs()

    def embedding(context: Any) -> Any:
        return ops.gather(dense(context), context.get_input(0), ops.constant(np.int64(0))).outputs()

    def traced_linear(layer: Int8Linear, operation: Any, x: torch.Tensor) -> Any:
        product = operation(x, layer.values, layer.scales)
        return product if layer.bias is None else product + layer.bias

    return [
        ModuleExtension(Int8Linear, "qrelay::linear", convert=traced_linear,
                        evaluate=lambda layer, x, *_: torch.zeros(*x.shape[:-1], len(layer.values))),
        ModuleExtension(Int8Embedding, "qrelay::embedding",
                        convert=lambda layer, operation, ids: operation(ids, layer.values, layer.scales),
                        evaluate=lambda layer, ids, *_: torch.zeros(*ids.shape, layer.values.shape[1])),
        ConversionExtension("qrelay::linear", linear),
        ConversionExtension("qrelay::embedding", embedding),
    ]  # fmt: skip

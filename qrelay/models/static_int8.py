"""8-bit integers for the weights and the activations of an OpenVINO model, whose ranges are measured once.

    quantise(model, [{"input_ids": …, "attention_mask": …}, …])

Every product of a sequence with a constant matrix is quantised: its weights symmetrically with a scale a row, its
activations with one scale and one zero point. What leads up to few large channels, as in every transformer, is
evened out between the two beforehand (SmoothQuant, alpha 0.8): each channel of the activations is divided, and the
weights that read it multiplied, by (largest activation)^0.8 / (largest weight)^0.2. Attention, norms, embeddings
and heads over one vector a text stay float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
_LEVELS: Final = 256
_ALPHA: Final = 0.8
"""Cosine of MiniLM's vectors with float32's, on average, in a trial: 0.9975; 0.9884 with 0.5, 0.9947 with none."""
_TINY: Final = np.float32(1e-5)


@dataclass(frozen=True, slots=True)
class _Site:
    """One tensor of activations (texts, tokens, channels), and the products with constant matrices that read it."""

    activations: Any
    products: tuple[Any, ...]


def calibration_texts() -> list[str]:
    """The shipped passages, one a line of the file: prose, questions, instructions, code, some not in English."""
    text = resources.files("qrelay.models").joinpath("calibration.txt").read_text(encoding="utf-8")
    return text.splitlines()


def quantise(model: Any, feeds: Iterable[Mapping[str, npt.NDArray[Any]]]) -> int:
    """Change the model in place. feeds: inputs by name, of typical texts. Returns how many products are in 8 bits."""
    from qrelay.models.openvino import apart

    sites = _sites(model)
    ranges = apart(lambda: _ranges(model, sites, feeds))
    for site, (low, high) in zip(sites, ranges, strict=True):
        _quantise_site(site, low, high)
    model.validate_nodes_and_infer_types()
    return sum(len(site.products) for site in sites)


def _sites(model: Any) -> list[_Site]:
    found: dict[tuple[str, int], list[Any]] = {}
    for operation in model.get_ordered_ops():
        if operation.get_type_name() != "MatMul" or operation.get_attributes()["transpose_a"]:
            continue
        source, weight = operation.input_value(0), operation.input_value(1)
        constant = weight.get_node().get_type_name() == "Constant"
        if constant and len(weight.get_partial_shape()) == 2 and len(source.get_partial_shape()) == 3:
            found.setdefault((source.get_node().get_name(), source.get_index()), []).append(operation)
    return [_Site(products[0].input_value(0), tuple(products)) for products in found.values()]


def _ranges(
    model: Any, sites: list[_Site], feeds: Iterable[Mapping[str, npt.NDArray[Any]]]
) -> list[tuple[Floats, Floats]]:
    """Of each site the least and the largest value of each channel, shape [channels] each."""
    from qrelay.models.openvino import library

    openvino = library()
    watched = openvino.Model([site.activations for site in sites], model.get_parameters())
    request = (
        openvino.Core().compile_model(watched, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}).create_infer_request()
    )
    found: list[tuple[Floats, Floats]] = []
    for feed in feeds:
        answers = request.infer(dict(feed))
        seen = [answers[number].reshape(-1, answers[number].shape[-1]) for number in range(len(sites))]
        fresh = [(values.min(0), values.max(0)) for values in seen]
        found = fresh if not found else [
            (np.minimum(old[0], new[0]), np.maximum(old[1], new[1])) for old, new in zip(found, fresh, strict=True)
        ]  # fmt: skip
    return found


def _quantise_site(site: _Site, low: Floats, high: Floats) -> None:
    from openvino import opset13 as ops

    weights = [_rows(product) for product in site.products]
    largest = np.max([np.abs(weight).max(0) for weight in weights], axis=0)
    reached = np.maximum(np.maximum(-low, high), _TINY)
    even = (reached**_ALPHA / np.maximum(largest, _TINY) ** (1 - _ALPHA)).astype(np.float32)
    evened = ops.multiply(site.activations, ops.constant((1 / even)[None, None]))
    start, end = (ops.constant(np.float32(bound)) for bound in _bounds(float((low / even).min()),
                                                                       float((high / even).max())))  # fmt: skip
    rounded = ops.fake_quantize(evened, start, end, start, end, _LEVELS)
    for product, weight in zip(site.products, weights, strict=True):
        scaled = weight * even
        scale = np.maximum(np.abs(scaled).max(1, keepdims=True), np.float32(1e-12)) / np.float32(127)
        whole = ops.convert(ops.constant(np.rint(scaled / scale).astype(np.int8)), "f32")
        replaced = ops.matmul(rounded, ops.multiply(whole, ops.constant(scale)), False, True)
        product.output(0).replace(replaced.output(0))


def _rows(product: Any) -> Floats:
    """The weights with a row an output channel."""
    weight: Floats = product.input_value(1).get_node().get_data().astype(np.float32)
    return weight if product.get_attributes()["transpose_b"] else weight.T


def _bounds(low: float, high: float) -> tuple[float, float]:
    """The range in 255 equal steps, moved by less than a step so that 0 is one of them."""
    low, high = min(low, 0.0), max(high, 1e-6)
    width = (high - low) / (_LEVELS - 1)
    zero = round(-low / width)
    return -zero * width, (_LEVELS - 1 - zero) * width

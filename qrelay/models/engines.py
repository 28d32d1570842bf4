"""What computes an encoder: `torch`, or `openvino` in 8-bit integers, and how many numbers of its vectors are kept.
Fingerprints name both, where it is not torch, and not all."""

from __future__ import annotations

import re
from typing import Final, Literal, get_args

from qrelay.errors import ModelError

EncoderEngine = Literal["torch", "openvino"]
Api = Literal["openai", "tei"]
"""How an endpoint is asked for vectors: see `embedding_endpoint`."""
ENDPOINT_NAME: Final = "endpoint"
"""The embedder that is asked over HTTP."""
ENDPOINT_MARK: Final = "+endpoint-"
"""What its fingerprints hold."""
ENGINES: Final[tuple[EncoderEngine, ...]] = get_args(EncoderEngine)
QUANTISATION: Final = "int8-static1"
"""Weights and activations in 8 bits, the activations' ranges measured once over `calibration.txt`. Its number goes up
whenever other bytes are made of the same model."""
_SUFFIX: Final = f"+openvino-{QUANTISATION}"
_DIM: Final = re.compile(r"@.*\+dim-(\d{1,9})(?=\+|$)")


def fingerprint(model: str, engine: EncoderEngine) -> str:
    """The identity of vectors and scores. model: as model@revision, which is all that torch's have."""
    return model + (_SUFFIX if engine == "openvino" else "")


def engine_of(fingerprint: str) -> EncoderEngine:
    """The engine that a fingerprint names.

    Raises:
        ModelError: none that this version of qrelay has.
    """
    model, plus, _ = fingerprint.rpartition("+openvino-")
    if not plus:
        return "torch"
    if model + _SUFFIX != fingerprint:
        raise ModelError(f"{fingerprint} is of an engine that this version of qrelay does not have; it has {_SUFFIX}")
    return "openvino"


def of_dim(model: str, dim: int) -> str:
    """The identity of a model's vectors of which the first `dim` numbers are kept; 0: all."""
    return f"{model}+dim-{dim}" if dim else model


def dim_of(fingerprint: str) -> int:
    """How many numbers of a vector are kept, as the fingerprint says; 0: all."""
    found = _DIM.search(fingerprint)
    return int(found[1]) if found else 0

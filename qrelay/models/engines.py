"""What computes an encoder: `torch`, or `openvino` in 8-bit integers. Fingerprints name it where it is not torch."""

from __future__ import annotations

from typing import Final, Literal, get_args

from qrelay.errors import ModelError

EncoderEngine = Literal["torch", "openvino"]
ENGINES: Final[tuple[EncoderEngine, ...]] = get_args(EncoderEngine)
QUANTISATION: Final = "int8-static1"
"""Weights and activations in 8 bits, the activations' ranges measured once over `calibration.txt`. Its number goes up
whenever other bytes are made of the same model."""
_SUFFIX: Final = f"+openvino-{QUANTISATION}"


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

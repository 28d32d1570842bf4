"""How fast each engine embeds on this machine, measured in some seconds on the shipped passages."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from qrelay.models.embedder import load_embedder
from qrelay.models.engines import EncoderEngine
from qrelay.models.static_int8 import calibration_texts
from qrelay.progress import step

_TURNS: Final = 3


def measure_embedder(name: str, engines: Sequence[EncoderEngine], *, threads: int) -> dict[str, float]:
    """Texts a second by engine; copies are made where they are absent. The engines take turns, so that a busy machine
    slows all of them alike, and each one's best turn counts.

    Raises:
        ModelError: an engine cannot be had; nothing is measured.
    """
    embedders = {engine: load_embedder(name, engine=engine, threads=threads, device="cpu") for engine in engines}
    texts, best = calibration_texts(), dict.fromkeys(engines, float("inf"))
    with step(f"measuring {name}", total=len(embedders) * (_TURNS + 1), unit="turns") as measuring:
        for turn in range(_TURNS + 1):
            for engine, embedder in embedders.items():
                began = time.perf_counter()
                embedder.encode(texts, "document")
                if turn:  # the first one lays out memory
                    best[engine] = min(best[engine], time.perf_counter() - began)
                measuring.advance(1)
    return {engine: len(texts) / seconds for engine, seconds in best.items()}

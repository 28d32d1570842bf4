"""How fast this processor reads prompts with each engine, measured in some seconds without any model's files.

What is measured is two layers of a 0.5B model's shape with random weights, over six prompts of 160 tokens. Engines
take turns, so that a busy or throttled machine slows all of them alike; the best of each engine's turns counts. What
a larger model does is estimated from its number of weights, which explains its time within some 10%.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import psutil

from qrelay.errors import ModelError
from qrelay.progress import step

TRANSFORMERS, OPENVINO = "transformers", "openvino"
_SHAPE: Final = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 2,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}
_PROMPTS, _TOKENS, _TURNS = 6, 160, 3


class Others:
    """What other programs take of the processors while something is measured."""

    def __init__(self) -> None:
        self._began = self._seconds()

    def share(self) -> float:
        """Of all processors' time since the beginning, from 0 to 1."""
        total, idle, own = (now - then for now, then in zip(self._seconds(), self._began, strict=True))
        return min(1.0, max(0.0, total - idle - own) / total) if total > 0 else 0.0

    @staticmethod
    def _seconds() -> tuple[float, float, float]:
        times, own = psutil.cpu_times()._asdict(), psutil.Process().cpu_times()
        inside = times.get("guest", 0.0) + times.get("guest_nice", 0.0)  # counted as the user's as well
        idle = times["idle"] + times.get("iowait", 0.0)
        return sum(times.values()) - inside, idle, own.user + own.system


def weights_per_second(threads: int = 0) -> dict[str, float]:
    """By engine, tokens a second times weights: `transformers` in the processor's own dtype (bfloat16 where it
    computes in it, else float32), and `openvino` with 8-bit weights, left out where it is not installed.

    threads: of the CPU, 0: the engines' choice.
    """
    import torch

    torch.manual_seed(0)
    ids = torch.randint(0, _SHAPE["vocab_size"], (_PROMPTS, _TOKENS))
    weights = sum(values.numel() for values in _layers().parameters())
    with tempfile.TemporaryDirectory() as folder:
        runs = {TRANSFORMERS: _with_torch(ids, threads)}
        with contextlib.suppress(ModelError):  # not installed: the other engine it is
            runs[OPENVINO] = _with_openvino(ids, Path(folder), threads)
        return {engine: ids.numel() * weights / seconds for engine, seconds in _by_turns(runs).items()}


def _by_turns(runs: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each run's best turn."""
    best = dict.fromkeys(runs, float("inf"))
    with step("measuring this processor", total=len(runs) * (_TURNS + 1), unit="turns") as measuring:
        for turn in range(_TURNS + 1):
            for engine, run in runs.items():
                began = time.perf_counter()
                run()
                if turn:  # the first one lays out memory
                    best[engine] = min(best[engine], time.perf_counter() - began)
                measuring.advance(1)
    return best


def _layers() -> Any:
    from transformers import Qwen2Config, Qwen2Model
    from transformers.utils import logging

    logging.set_verbosity_error()  # it warns of a loss, which nobody wants of it
    return Qwen2Model(Qwen2Config(**_SHAPE)).eval()


def _with_torch(ids: Any, threads: int) -> Callable[[], object]:
    import torch

    from qrelay.models.dtypes import native_dtype

    if threads:
        torch.set_num_threads(threads)
    layers = _layers().to(getattr(torch, native_dtype("cpu")))

    def run() -> object:
        with torch.inference_mode():
            return layers(input_ids=ids, use_cache=False)

    return run


def _with_openvino(ids: Any, folder: Path, threads: int) -> Callable[[], object]:
    import torch

    from qrelay.models.openvino import Compiled
    from qrelay.models.openvino_copies import quantise_weights, save_traced

    class Hidden(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = _layers()

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            hidden: torch.Tensor = self.layers(input_ids=input_ids, attention_mask=attention_mask, use_cache=False)[0]
            return hidden

    module, mask = Hidden(), torch.ones_like(ids)
    quantise_weights(module)
    save_traced(module, {"input_ids": ids, "attention_mask": mask}, folder / "layers.xml")
    model = Compiled(folder / "layers.xml", threads=threads)
    return lambda: model({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})

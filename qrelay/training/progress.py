"""Progress of training as log lines: step, loss, steps a second, and when it will end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

LOG = logging.getLogger("qrelay.train")


class ProgressLines(TrainerCallback):  # type: ignore[misc]
    """A line each time that the trainer logs. Steps a second are of this process's run, a resumed one or not."""

    def __init__(self, stage: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._stage = stage
        self._clock = clock
        self._began = 0.0
        self._first = 0

    def on_train_begin(self, _args: Any, state: Any, _control: Any, **_: Any) -> None:
        """Remembers where this run began."""
        self._began, self._first = self._clock(), state.global_step
        if state.is_world_process_zero:
            LOG.info("stage %s: %d steps, from step %d", self._stage, state.max_steps, state.global_step)

    def on_log(self, _args: Any, state: Any, _control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Writes the line."""
        if not state.is_world_process_zero or not logs:
            return
        evaluated = {name: value for name, value in logs.items() if name.startswith("eval_") and "@" in name}
        for name, value in evaluated.items():
            LOG.info("stage %s: step %d, dev %s %.4f", self._stage, state.global_step, name[5:], value)
        if "loss" in logs:
            LOG.info("stage %s: %s", self._stage, self._line(state, logs))

    def _line(self, state: Any, logs: dict[str, Any]) -> str:
        rate = (state.global_step - self._first) / max(self._clock() - self._began, 1e-9)
        left = round((state.max_steps - state.global_step) / rate) if rate else 0
        shown = f"step {state.global_step}/{state.max_steps}, loss {float(logs['loss']):.4f}"
        return f"{shown}, {rate:.2f} steps/s, {left // 60}:{left % 60:02d} left"

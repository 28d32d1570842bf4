"""Processes that work on a registry until they are killed: `python -m tests.models.registry.dying`.

Reads lines `FOLDER SEED EVENTS MILLISECONDS` from standard input. For each it forks a child that publishes, gates,
promotes, rolls back and prunes in FOLDER/registry, kills it by SIGKILL so long after it wrote so many events (below
0: never; it dies at an armed point of `qrelay.runtime.faults`, or is done after STEPS steps), and prints how the
child ended. What the child was answered is in FOLDER/acknowledged: after each step how many events there were.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import time
from pathlib import Path

from qrelay.errors import NotPromotable
from qrelay.models.registry import BI_ENCODER, Registry, slot_of

STEPS = 10
SLOTS = (BI_ENCODER, slot_of(BI_ENCODER, "medquad"))
"""The default one, and a collection's own."""
FILES = 3


def make_model(folder: Path, weights: str) -> Path:
    """A model of a few files, so that a copy of it has a middle."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text("{}")
    for number in range(FILES):
        (folder / f"weights-{number}").write_text(weights * 4000)
    return folder


def work(folder: Path, seed: int) -> None:
    """Everything that a registry can be asked to do, in an order that the seed decides."""
    chosen, registry = random.Random(seed), Registry(folder / "registry")
    with (folder / "acknowledged").open("a") as acknowledged:
        for step in range(STEPS):
            model = make_model(folder / "models" / f"{seed % 7}-{step % 9}", f"{seed % 7}-{step % 9} ")
            slot = SLOTS[(seed + step) % len(SLOTS)]
            version = registry.publish(model, slot=slot, base="base@1")
            served = registry.serving(slot)
            against = served.version if served else ""
            if version != against:
                registry.record_gate(version, {"passed": chosen.random() < 0.8, "against": against})
            with contextlib.suppress(NotPromotable):
                registry.promote(version)
            if chosen.random() < 0.4:
                with contextlib.suppress(NotPromotable):
                    registry.rollback(slot)
            if chosen.random() < 0.3:
                registry.prune(1)
            print(len(registry.history()), file=acknowledged, flush=True)


def fork(folder: Path, seed: int, events: int, after_ms: int) -> int:
    """The child's exit status as `os.waitpid` gives it."""
    before = written(folder)
    child = os.fork()
    if child == 0:
        try:
            work(folder, seed)
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    while events >= 0:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return status
        if written(folder) - before >= events:
            time.sleep(after_ms / 1000)
            os.kill(child, signal.SIGKILL)
            break
        time.sleep(0.001)
    return os.waitpid(child, 0)[1]


def written(folder: Path) -> int:
    """Events in the registry's folder."""
    return len(list((folder / "registry" / "events").glob("*.json")))


def main() -> None:
    for line in sys.stdin:
        folder, seed, events, after_ms = line.rsplit(" ", 3)
        print(fork(Path(folder), int(seed), int(events), int(after_ms)), flush=True)


if __name__ == "__main__":
    main()

"""SIGKILL while a registry is written: whatever it cuts, the registry reads, and what serves is whole."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qrelay.models.registry import BI_ENCODER, Registry, State
from qrelay.runtime import faults
from tests.models.registry.dying import SLOTS, make_model

KILLS = 25


class Workers:
    """Starts workers on a registry, one after the other, and tells how each died."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.points = folder / "points"
        self.points.mkdir()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.models.registry.dying"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, faults.VARIABLE: str(self.points)},
            text=True,
        )

    def run(self, seed: int, events: int = -1, after_ms: int = 0) -> int:
        """The signal that ended the worker, 0 where it was done."""
        assert self._process.stdin and self._process.stdout
        print(self.folder, seed, events, after_ms, file=self._process.stdin, flush=True)
        status = int(self._process.stdout.readline())
        assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the worker failed by itself"
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture
def workers(tmp_path: Path) -> Iterator[Workers]:
    started = Workers(tmp_path)
    yield started
    started.close()


def check(folder: Path) -> None:
    """The history reads, every version that is not pruned is whole, and so is what serves as each slot, if anything
    does: a version of its own, or else the default slot's."""
    registry = Registry(folder / "registry")
    at = registry.standing()
    for version, known in at.versions.items():
        if not known.pruned:
            registry.verify(version)
        assert registry.manifest(version).version == version
    for slot in SLOTS:
        served = registry.serving(slot)
        assert (served.version if served else "") == at.serving(slot)
        if served is not None:
            registry.verify(served.version)
            assert at.versions[served.version].state is State.PROMOTED
            assert served.slot == (slot if at.stack.get(slot) else BI_ENCODER)
            assert served.path.is_dir()
    acknowledged = folder / "acknowledged"
    lines = acknowledged.read_text().split() if acknowledged.exists() else []
    assert at.last >= max(map(int, lines), default=0), "an event that was acknowledged is gone"


def leftovers(folder: Path) -> list[str]:
    staging = folder / "registry" / "staging"
    return sorted(path.name for path in staging.iterdir()) if staging.exists() else []


def publish_another(folder: Path, name: str) -> None:
    registry = Registry(folder / "registry")
    registry.publish(make_model(folder / "another" / name, name), slot=BI_ENCODER, base="base@1")


def test_a_registry_outlives_kills_at_any_moment(workers: Workers) -> None:
    chosen = random.Random(20261121)
    died = 0
    for seed in range(KILLS):
        died += workers.run(seed, chosen.randint(0, 8), chosen.randint(0, 20)) == signal.SIGKILL
        check(workers.folder)
    publish_another(workers.folder, "last")
    assert leftovers(workers.folder) == []
    assert died >= KILLS // 2
    at = Registry(workers.folder / "registry").standing()
    assert at.last > KILLS
    assert at.slots == [*SLOTS] and all(slot in at.stack for slot in SLOTS), "both were worked on"


@pytest.mark.parametrize("point", faults.REGISTRY_POINTS)
def test_a_registry_outlives_a_kill_at_every_named_point(workers: Workers, point: str) -> None:
    for seed, nth in enumerate((1, 2, 5)):
        (workers.points / point).write_text(str(nth))
        assert workers.run(seed) == signal.SIGKILL
        check(workers.folder)
    assert workers.run(1) == 0
    check(workers.folder)
    publish_another(workers.folder, "last")
    assert leftovers(workers.folder) == []


def test_what_a_kill_left_in_staging_is_there_and_then_cleaned(workers: Workers) -> None:
    (workers.points / "registry.version.staged").write_text("1")
    assert workers.run(0) == signal.SIGKILL
    assert len(leftovers(workers.folder)) == 1
    publish_another(workers.folder, "next")
    assert leftovers(workers.folder) == []

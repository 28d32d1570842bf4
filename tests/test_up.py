"""`qrelay up` keeps its services running, and knows when one was meant to end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from qrelay.cli.up import Child, Supervisor
from qrelay.errors import SetupError


def ended(tmp_path: Path, code: int) -> tuple[Supervisor, Child, list[str]]:
    """A supervisor with one child that has exited with `code`, and what it says."""
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait(30)
    log = tmp_path / "judge.log"
    log.write_text("the last words\n")
    child = Child("judge", log, {}, process)
    said: list[str] = []
    return Supervisor([child], None, said.append), child, said


def test_a_service_that_ended_as_it_should_stays_down(tmp_path: Path) -> None:
    supervisor, child, said = ended(tmp_path, 0)
    for _ in range(3):
        supervisor.watch_once()
    assert (child.process, child.restart_at) == (None, 0.0)
    assert len(said) == 1
    assert "stays down" in said[0]


def test_a_service_that_failed_is_started_again(tmp_path: Path) -> None:
    supervisor, child, said = ended(tmp_path, 1)
    supervisor.watch_once()
    assert child.restart_at > 0
    assert "starting it again" in said[0]


def test_a_service_that_cannot_run_ends_everything_with_its_last_words(tmp_path: Path) -> None:
    supervisor, _, _ = ended(tmp_path, 78)
    with pytest.raises(SetupError, match="the last words"):
        supervisor.watch_once()

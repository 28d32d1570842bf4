"""The named points: off without a folder, and one death a file with one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from qrelay.runtime import faults

PASSES = (
    'from qrelay.runtime import faults; [print(n, flush=True) or faults.point("worker.ack.before") for n in range(4)]'
)


def passing(**environ: str) -> subprocess.CompletedProcess[str]:
    """A process that passes a point four times and says the number before each."""
    base = {name: value for name, value in os.environ.items() if name != faults.VARIABLE}
    return subprocess.run(
        [sys.executable, "-c", PASSES],
        env={**base, **environ},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("nth", [1, 3])
def test_the_process_dies_at_the_armed_pass_and_its_successor_lives(nth: int, tmp_path: Path) -> None:
    armed = tmp_path / "worker.ack.before"
    armed.write_text(str(nth))
    died = passing(**{faults.VARIABLE: str(tmp_path)})
    assert (died.returncode, died.stdout.split()) == (-signal.SIGKILL, [str(n) for n in range(nth)])
    assert not armed.exists()
    again = passing(**{faults.VARIABLE: str(tmp_path)})
    assert (again.returncode, len(again.stdout.split())) == (0, 4)


def test_without_the_variable_or_with_another_point_armed_nothing_happens(tmp_path: Path) -> None:
    assert passing().returncode == 0
    (tmp_path / "sink.commit.before").write_text("1")
    assert passing(**{faults.VARIABLE: str(tmp_path)}).returncode == 0
    assert (tmp_path / "sink.commit.before").exists()

"""Who waits for a process goes on while it shows a sign of life, and no longer."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from qrelay.errors import BackendTimeout
from qrelay.runtime.lookout import Pulse, Usage, Watch, refuse_stillness, usage

_IDLE = "import time; print(flush=True); time.sleep(600)"
_BUSY = "print(flush=True)\nwhile True: pass"


class Process:
    """What a made-up process uses by now."""

    def __init__(self) -> None:
        self.now, self.used = 0.0, Usage()
        self.pulse = Pulse(lambda _: self.used, lambda: self.now)
        self.pulse.look(1, "loading")

    def pass_by(self, seconds: float, cpu_s: float = 0.0, grown: int = 0, said: str = "loading") -> int:
        """So much later; how many looks have seen no sign."""
        self.now += seconds
        self.used = Usage(self.used.cpu_s + cpu_s, self.used.resident_bytes + grown)
        self.pulse.look(1, said)
        return self.pulse.still


def test_a_step_that_advances_is_a_sign_of_life() -> None:
    process = Process()
    assert [process.pass_by(1, said=f"{n} of 9") for n in range(3)] == [0, 0, 0]
    assert [process.pass_by(1, said="2 of 9") for _ in range(2)] == [1, 2]
    assert process.pulse.still_s == 2


def test_processor_time_is_one_without_any_step() -> None:
    process = Process()
    assert [process.pass_by(1, cpu_s=0.9) for _ in range(3)] == [0, 0, 0]


def test_memory_that_grows_is_one_where_weights_are_read_from_a_slow_disk() -> None:
    process = Process()
    assert [process.pass_by(1, grown=8 << 20) for _ in range(3)] == [0, 0, 0]


def test_what_answering_the_looks_costs_is_none() -> None:
    process = Process()
    assert process.pass_by(0.5, cpu_s=0.005) == 1
    assert [process.pass_by(0.5, cpu_s=0.005) for _ in range(500)][-1] == 501


def test_one_of_several_may_be_still_while_another_gets_on() -> None:
    still, moving, ready = Watch("judge"), Watch("retriever"), Watch("sink")
    still.pulse.still = 9
    ready.ready, ready.pulse.still = True, 0
    refuse_stillness([still, moving, ready], hint="look", looks=5)
    moving.pulse.still = 5
    with pytest.raises(BackendTimeout, match=r"(?s)5 looks.*judge: starting.*retriever: starting.*look at the logs"):
        refuse_stillness([still, moving, ready], hint="look at the logs", looks=5)


@contextmanager
def running(program: str) -> Iterator[int]:
    """A real process that has begun; its id."""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process.pid
        process.kill()


def test_a_real_process_that_computes_is_told_from_one_that_sleeps() -> None:
    with running(_BUSY) as busy, running(_IDLE) as idle:
        pulses = {busy: Pulse(), idle: Pulse()}
        signs = 0
        while signs < 2:
            time.sleep(0.02)  # what looks leaves the processor to what computes
            for pid, pulse in pulses.items():
                pulse.look(pid)
            signs += pulses[busy].still == 0
        assert pulses[idle].still > 0


def test_a_process_that_is_gone_uses_nothing() -> None:
    with running(_IDLE) as pid:
        pass
    assert usage(pid) == Usage()

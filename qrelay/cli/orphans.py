"""What a `qrelay up` that was killed left running: services and NATS, which hold ports, streams and ledger."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

import psutil

from qrelay.settings.sections import CONSOLE

_DRAIN_S: Final = 60.0


def left_behind(data_dir: Path) -> list[psutil.Process]:
    """Processes of the user's that a former `qrelay up` started on this folder. Ask while holding its lock: then no
    other runs. A service that somebody started by hand is not among them."""
    return list(_found(str(data_dir / "run"), str(data_dir / "nats" / "nats.conf")))


def _found(run_dir: str, nats_config: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            command = process.cmdline()
            if nats_config in command or (_is_child(command) and _serves(process, run_dir)):
                yield process
        except psutil.Error:
            continue  # it ended, or is somebody else's


def _is_child(command: Sequence[str]) -> bool:
    return "qrelay.cli.main" in command and ("serve" in command or CONSOLE in command)


def _serves(process: psutil.Process, run_dir: str) -> bool:
    environ: dict[str, str] = process.environ()
    return environ.get(MARK) == run_dir and environ.get("QRELAY_ALL__RUN_DIR") == run_dir


MARK: Final = "QRELAY_UP"
"""In the environment of what `up` starts: the folder of its announcements."""


def end(processes: Sequence[psutil.Process], say: Callable[[str], None]) -> None:
    """Drain them; kill what does not end."""
    if not processes:
        return
    named = ", ".join(f"{_name(process)} ({process.pid})" for process in processes)
    say(f"an earlier `qrelay up` was killed and left {named} running: ending them first")
    servers = [process for process in processes if _name(process) == "nats-server"]
    _end([process for process in processes if process not in servers])
    _end(servers)


def _end(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        if process.is_running():
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=_DRAIN_S)
    for process in alive:
        process.kill()
    psutil.wait_procs(alive)


def _name(process: psutil.Process) -> str:
    try:
        command = process.cmdline()
    except psutil.Error:
        return "process"
    return command[command.index("serve") + 1] if "serve" in command else "nats-server"

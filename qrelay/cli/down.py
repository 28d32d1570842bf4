"""`qrelay down`: stop what `qrelay up` runs on a folder."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import click
import psutil
from filelock import FileLock, Timeout
from rich.console import Console

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option
from qrelay.cli.orphans import end, left_behind
from qrelay.errors import BackendUnavailable
from qrelay.progress import Step, plainly, shown, step
from qrelay.rundir import endpoints

LOCK: Final = "up.lock"
PID_FILE: Final = "up.pid"
_POLL_S: Final = 0.2


@click.command(epilog=example("qrelay down"))
@data_dir_option()
@config_option(used=False)
def down(data_dir: Path) -> None:
    """Stop what `qrelay up` runs on this folder: services drain, then NATS stops."""
    data_dir = data_dir.resolve()
    console = Console(stderr=True)
    lock = FileLock(data_dir / LOCK)
    if not data_dir.is_dir() or _acquired(lock):
        _end_orphans(data_dir, console)
        lock.release()
        return
    running = _process(data_dir)
    running.terminate()
    with shown(console), step("stopping: services finish or return what they hold", unit="processes") as stopping:
        _await_end(lock, running, data_dir, stopping)
    lock.release()
    click.echo("stopped")


def _end_orphans(data_dir: Path, console: Console) -> None:
    orphans = left_behind(data_dir)
    end(orphans, plainly(console))
    click.echo("stopped" if orphans else f"nothing runs on {data_dir}")


def _process(data_dir: Path) -> psutil.Process:
    """The `qrelay up` that holds the lock. Raises BackendUnavailable: it is just starting, or is something else."""
    file = data_dir / PID_FILE
    try:
        process = psutil.Process(int(file.read_text()))
        if "up" in process.cmdline():
            return process
    except (OSError, ValueError, psutil.Error):
        pass
    raise BackendUnavailable(
        f"`qrelay up` holds {data_dir / LOCK}, but {file} does not name its process (yet): try again, or end it"
        " yourself"
    )


def _await_end(lock: FileLock, running: psutil.Process, data_dir: Path, stopping: Step) -> None:
    """Until the lock is free: it is once `up` has ended, however it ends, and `up` limits its services' drain."""
    total = len(endpoints(data_dir))
    while not _acquired(lock):
        stopping.at(total - len(endpoints(data_dir)), total=total)
        if running.status() == psutil.STATUS_STOPPED:
            raise BackendUnavailable(f"`qrelay up` ({running.pid}) is suspended: `kill -CONT {running.pid}`")
        time.sleep(_POLL_S)


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return False
    return True

"""Where the registry's files and folders are made before one rename puts them in place; how leftovers are removed.

A name in the staging folder ends in `.<machine>.<process>.<nanoseconds>`: what a process of this machine left that is
gone, or anybody a day ago, was left by a death and is removed by the next publication.
"""

from __future__ import annotations

import os
import socket
import time
from hashlib import sha256
from pathlib import Path
from typing import Final

import psutil

from qrelay.files import remove

_DAY_S: Final = 24 * 3600


class Staging:
    """One registry's staging folder; made when it is first needed."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def path(self, name: str) -> Path:
        """A path of this process that nobody else uses; the caller makes what shall be there."""
        self._folder.mkdir(parents=True, exist_ok=True)
        return self._folder / f"{name}.{_machine()}.{os.getpid()}.{time.time_ns()}"

    def sweep(self) -> list[str]:
        """Removes what dead processes left, and returns its names."""
        left = [path for path in self._folder.glob("*") if _abandoned(path)]
        for path in left:
            remove(path)
        return sorted(path.name for path in left)


def _abandoned(path: Path) -> bool:
    *_, machine, process, made_ns = ["", "", "", *path.name.split(".")]
    if not made_ns.isdecimal() or time.time_ns() - int(made_ns) > _DAY_S * 10**9:
        return True
    return machine == _machine() and process.isdecimal() and not psutil.pid_exists(int(process))


def _machine() -> str:
    """A word for this host: process ids of another one say nothing here."""
    return sha256(socket.gethostname().encode()).hexdigest()[:8]

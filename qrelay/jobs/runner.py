"""Runs one job: `python -m qrelay.jobs.runner FOLDER`. Started by `SubprocessLauncher`, outlives it.

It takes the folder's lock, writes `started` durably, and only then executes the command; where `started` exists, it
executes nothing. So the command is begun at most once, whichever process dies. The command keeps the lock open too:
if this process is killed, the job counts as running until the command ends, and then as failed, its exit code
unknown.

Exit codes: 0 the job was run, or had been; 75 another runner has the folder's lock; 1 the folder is unusable.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Final

from qrelay.exitcodes import EXIT_BUSY, EXIT_CANNOT_RUN
from qrelay.jobs.folder import JobFolder, create_once

JOB_VARIABLE: Final = "QRELAY_JOB"
"""The command's environment variable that holds the path of its job.json."""


def main(path: Path) -> int:
    """Runs the job of the folder `path`, unless somebody does or did; returns the exit code."""
    folder = JobFolder(path)
    lock = folder.take()
    if lock is None:
        return EXIT_BUSY
    command = (folder.read(folder.job) or {})["command"]
    note = {"runner": os.getpid(), "started_us": _now_us()}
    if not create_once(folder.started, json.dumps(note).encode()):
        return 0
    code = _execute(command, folder, lock)
    create_once(folder.exit, json.dumps({"code": code, "finished_us": _now_us()}).encode())
    return 0


def _execute(command: list[str], folder: JobFolder, lock: int) -> int:
    """The command's exit code as shells give it: 128 + n where signal n killed it, 127 where it cannot be run."""
    with folder.log.open("ab") as log:
        try:
            code = _run(command, folder, lock, log)
        except OSError as error:
            log.write(f"cannot run {command[0]!r}: {error.strerror}\n".encode())
            return EXIT_CANNOT_RUN
    return 128 - code if code < 0 else code


def _run(command: list[str], folder: JobFolder, lock: int, log: IO[bytes]) -> int:
    environment = {**os.environ, JOB_VARIABLE: str(folder.job)}
    return subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        env=environment,
        pass_fds=(lock,),
    ).returncode


def _now_us() -> int:
    return time.time_ns() // 1000


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))

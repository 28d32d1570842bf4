"""Files that are whole or absent whenever the process is killed: temporary file, fsync, rename, fsync of the
folder. Everything in qrelay that must survive a crash is written through here. And `held`: one process at a time."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Self


class AtomicFiles:
    """A group of files put in place together at `commit`, in the order in which they were opened; without
    `commit`, none appears and nothing is left behind.

        with AtomicFiles() as files:
            files.open(path).write(data)
            files.commit()
    """

    def __init__(self) -> None:
        self._open: list[tuple[IO[bytes], Path, Path]] = []

    def open(self, path: Path) -> IO[bytes]:
        """A file to write what `path` shall hold; it lies beside it under a temporary name. Makes the
        folder where there is none.

        Raises:
            OSError: the folder cannot be made or written.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        file = temporary.open("xb")
        self._open.append((file, temporary, path))
        return file

    def commit(self) -> None:
        """Puts every file in place, durably."""
        for file, _, _ in self._open:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        while self._open:
            _, temporary, path = self._open[0]
            temporary.replace(path)
            self._open.pop(0)
            fsync_path(path.parent)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file, temporary, _ in self._open:
            file.close()
            temporary.unlink(missing_ok=True)


def write_atomic(path: Path, data: bytes | str) -> None:
    """Replace `path` by `data`, durably: a reader, or a power failure, finds the old or the new, never a part.

    Raises:
        OSError: the folder cannot be made or written.
    """
    with AtomicFiles() as files:
        files.open(path).write(data.encode() if isinstance(data, str) else data)
        files.commit()


def fsync_path(path: Path) -> None:
    """Make a file's bytes, or a folder's entries, survive a power failure."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove(path: Path) -> None:
    """A file, or a folder with all that is in it; nothing where there is none."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def held(lock: Path, busy: Exception) -> Iterator[None]:
    """Holds a lock file, which the system takes from a process that dies. Raises `busy` where another process has
    it."""
    from filelock import FileLock, Timeout

    taken = FileLock(lock)
    try:
        taken.acquire(timeout=0)
    except Timeout:
        raise busy from None
    try:
        yield
    finally:
        taken.release()

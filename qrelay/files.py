"""Files that are whole or absent whenever the process is killed: temporary file, fsync, rename, fsync of the
folder. Everything in qrelay that must survive a crash is written through here. And `held`: one process at a time;
`disk_refusal`: what it means that a disk refuses."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, Self

from qrelay.errors import BackendUnavailable, ConfigError, QrelayError

_FULL: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_REFUSED: Final = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.EEXIST)
_SQLITE_FULL: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR)
_SQLITE_REFUSED: Final = (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM)


def disk_refusal(error: Exception, place: object = None) -> QrelayError | None:
    """What the error of a file (OSError) or of a SQLite file means, where it is the disk's or its rights'. None: it
    is something else. place: the file; None: as the error says."""
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest says more exactly what
        full, refused, said = code in _SQLITE_FULL, code in _SQLITE_REFUSED, str(error)
    elif isinstance(error, OSError):
        full, refused, said = error.errno in _FULL, error.errno in _REFUSED, error.strerror or str(error)
        place = place or error.filename2 or error.filename
    else:
        return None
    place = place or "a file (in the data folder, or where the command writes)"
    if full:
        return BackendUnavailable(f"cannot write {place}: {said}: free some space, then run the same command again")
    if refused:
        return ConfigError(
            f"cannot use {place}: {said}: give this user the right to write there, or name another one"
        )
    return None


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
        for file, temporary, path in self._open:
            if isinstance(error, OSError) and not error.filename:
                error.filename = str(path)
            with suppress(OSError):  # it is full: what is left to write cannot be
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


def whole_lines(path: Path) -> list[bytes]:
    """The lines of a file that is appended to. A last one that a kill tore is cut off the file. Raises OSError."""
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return data[:whole].splitlines()


def link_or_copy(source: Path, target: Path) -> None:
    """`target` with the bytes of `source`, which never change: a link, or a copy where a file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
        fsync_path(target)


def is_file(path: Path) -> bool:
    """Whether a file is there; under a name that no file can have, one too long say, there is none."""
    try:
        return path.is_file()
    except OSError:
        return False


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

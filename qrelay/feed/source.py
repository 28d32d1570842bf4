"""Where lines come from: a file (plain or .gz), standard input, or a file that still grows.

Each source yields None when it has nothing for now, so that what was read so far is published without
waiting for more.
"""

from __future__ import annotations

import asyncio
import gzip
import os
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TextIO

from qrelay.errors import MalformedInput

_POLL_S = 0.2
_YIELD_EVERY = 512


def open_lines(path: Path | None, *, follow: bool) -> AsyncIterator[str | None]:
    """Lines of `path`, or of standard input when it is None; with `follow`, for ever.

    Raises:
        MalformedInput: a compressed file cannot be followed.
    """
    if path is None:
        return _stdin() if _waits(sys.stdin.fileno()) else _whole(sys.stdin)
    if path.suffix == ".gz":
        if follow:
            raise MalformedInput(f"{path} is compressed and cannot be followed: follow a plain file")
        return _whole(gzip.open(path, "rt", encoding="utf8", errors="replace"))
    return _growing(path) if follow else _whole(path.open(encoding="utf8", errors="replace"))


async def _whole(file: TextIO) -> AsyncIterator[str | None]:
    with file:
        for number, line in enumerate(file):
            yield line
            if number % _YIELD_EVERY == 0:
                await asyncio.sleep(0)


def _waits(descriptor: int) -> bool:
    """Whether reading may have to wait, as from a pipe or a terminal: a regular file (`feed - < FILE`) never does."""
    kind = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(descriptor)


async def _stdin() -> AsyncIterator[str | None]:
    """Lines as they come; None after each pause of _POLL_S."""
    reader = asyncio.StreamReader(limit=16 * 1024**2)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    pending: asyncio.Task[bytes] | None = None
    while True:
        pending = pending or asyncio.ensure_future(reader.readline())
        done, _ = await asyncio.wait({pending}, timeout=_POLL_S)
        if not done:
            yield None
            continue
        line, pending = pending.result(), None
        if not line:
            return
        yield line.decode("utf8", "replace")


async def _growing(path: Path) -> AsyncIterator[str | None]:
    """Complete lines as they are appended. A file that shrinks was rotated: it is read from its start."""
    rest, position = "", 0
    while True:
        if path.exists():
            if path.stat().st_size < position:
                rest, position = "", 0
            with path.open(encoding="utf8", errors="replace") as file:
                file.seek(position)
                chunk = file.read()
                position = file.tell()
            *lines, rest = (rest + chunk).split("\n")
            for line in lines:
                yield line
        yield None
        await asyncio.sleep(_POLL_S)

"""Where lines come from: a file (plain or gzip), standard input, or a file that still grows. They are bytes: whoever
parses one decodes it, whole.

Each source yields None when it has nothing for now, so that what was read so far is published without
waiting for more.
"""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from qrelay.formats.lines import BOM, all_lines
from qrelay.formats.queries import refuse_head, refuse_table

_POLL_S = 0.2
_YIELD_EVERY = 512
_HEAD = 1 << 16


def open_lines(path: Path | None, *, follow: bool) -> AsyncIterator[bytes | None]:
    """Lines of `path`, or of standard input when it is None; with `follow`, for ever.

    Raises:
        MalformedInput: at once, or when the first line is asked for: the file is a table, or no text; or it is
            compressed and cannot be followed.
    """
    if path is None:
        return _stdin() if _waits(sys.stdin.fileno()) else _whole(None)
    refuse_table(path)
    return _growing(path) if follow else _whole(path)


async def _whole(path: Path | None) -> AsyncIterator[bytes | None]:
    for number, line in enumerate(all_lines(path, check=refuse_head)):
        yield line
        if number % _YIELD_EVERY == 0:
            await asyncio.sleep(0)


def _waits(descriptor: int) -> bool:
    """Whether reading may have to wait, as from a pipe or a terminal: a regular file (`feed - < FILE`) never does."""
    kind = os.fstat(descriptor).st_mode
    return stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind) or os.isatty(descriptor)


async def _stdin() -> AsyncIterator[bytes | None]:
    """Lines as they come, however long; None after each pause of _POLL_S."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    pending: asyncio.Task[bytes] | None = None
    rest: list[bytes] = []
    first = True
    while True:
        pending = pending or asyncio.ensure_future(reader.read(_HEAD))
        done, _ = await asyncio.wait({pending}, timeout=_POLL_S)
        if not done:
            yield None
            continue
        data, pending = pending.result(), None
        if data and first:
            refuse_head(data, "standard input")
            data, first = data.removeprefix(BOM), False
        *ended, begun = data.split(b"\n")
        for line in ended:
            yield b"".join((*rest, line))
            rest.clear()
        rest.append(begun)
        if not data:
            if any(rest):
                yield b"".join(rest)
            return


async def _growing(path: Path) -> AsyncIterator[bytes | None]:
    """Complete lines as they are appended. Where the file was replaced or cut (a log's rotation), the opened one is
    read to its end, then the new one from its start. A last line without its end is never fed: it may be cut."""
    file, rest = None, b""
    while True:
        with suppress(FileNotFoundError):  # between a log's renaming and the new one there is none
            if file is None and path.stat().st_size:
                file, rest = path.open("rb"), b""
                head = file.peek(_HEAD)
                refuse_head(head, path)
                file.seek(len(BOM) if head.startswith(BOM) else 0)
        if file is not None:
            replaced = _replaced(path, file)  # looked at first: what was written before is still read
            for line in file:
                rest += line
                if rest.endswith(b"\n"):
                    yield rest.removesuffix(b"\n")
                    rest = b""
            if replaced:
                file.close()
                file = None
                continue
        yield None
        await asyncio.sleep(_POLL_S)


def _replaced(path: Path, file: BinaryIO) -> bool:
    """Whether `path` names another file than the one opened, or the same one with less in it than was read."""
    with suppress(FileNotFoundError):
        now, opened = path.stat(), os.fstat(file.fileno())
        return (now.st_dev, now.st_ino) != (opened.st_dev, opened.st_ino) or now.st_size < file.tell()
    return False

"""Where lines come from: a file (plain or gzip), standard input, or a file that still grows. They are bytes: whoever
parses one decodes it, whole. And rows, from a dataset.

Each source yields None when it has nothing for now, so that what was read so far is published without
waiting for more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import stat
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import BinaryIO

from qrelay.errors import InputError, MalformedInput
from qrelay.formats.datasets import Columns, Rows, is_dataset, read_rows
from qrelay.formats.lines import BOM, all_lines
from qrelay.formats.queries import Record, refuse_head, refuse_table

_POLL_S = 0.2
_YIELD_EVERY = 512
_HEAD = 1 << 16
_KEPT = 1 << 12
"""Most bytes of a line by which its place is known again."""
_ROTATION = re.compile(r"[.-]\d[\d.T_:-]*(\.gz)?")
log = logging.getLogger(__name__)


def open_records(path: Path | None, columns: Columns, *, follow: bool) -> AsyncIterator[Record | None]:
    """The rows of `path` where it names a dataset, else lines, as `open_lines`.

    Raises:
        MalformedInput: also a dataset that lacks a column, when the first row is asked for.
        InputError: a dataset cannot be followed.
    """
    if path is None or not is_dataset(str(path)):
        return open_lines(path, follow=follow)
    if follow:
        raise InputError(f"{path} is a dataset, which does not grow: leave --follow out")
    return _rows(read_rows(str(path), columns))


async def _rows(rows: Rows) -> AsyncIterator[Record | None]:
    """Read aside, because a hub may take its time."""
    while some := await asyncio.to_thread(lambda: list(islice(rows, _YIELD_EVERY))):
        for _, row in some:
            yield row


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
    read to its end, then what was rotated away since, then the new one from its start. A last line without its end is
    never fed: it may be cut."""
    file, rest, before, seen = None, b"", b"", 0
    while True:
        with suppress(FileNotFoundError):  # between a log's renaming and the new one there is none
            if file is None and path.stat().st_size:
                file, rest, before = path.open("rb"), b"", b""
                head = file.peek(_HEAD)
                refuse_head(head, path)
                file.seek(len(BOM) if head.startswith(BOM) else 0)
                seen = os.fstat(file.fileno()).st_mtime_ns
        if file is not None:
            cut = _overwritten(file, before)
            replaced = cut or _replaced(path, file)  # looked at first: what was written before is still read
            for line in () if cut else file:
                rest += line
                before = line[-_KEPT:]
                if rest.endswith(b"\n"):
                    yield rest.removesuffix(b"\n")
                    rest = b""
            if replaced:
                if rest:
                    log.warning(
                        "%s was replaced: its last line had no end and is not fed (%d bytes)", path, len(rest)
                    )
                for line in _rotated_lines(path, file, seen):
                    yield line
                file.close()
                file = None
                continue
            seen = os.fstat(file.fileno()).st_mtime_ns
        yield None
        await asyncio.sleep(_POLL_S)


def _overwritten(file: BinaryIO, before: bytes) -> bool:
    """Whether the opened file was cut, and maybe written anew: the bytes `before` the place reached are not there."""
    place = file.tell()
    return os.pread(file.fileno(), len(before), place - len(before)) != before


def _replaced(path: Path, file: BinaryIO) -> bool:
    """Whether `path` names another file than the one opened. An empty one is none yet: who writes goes on with the
    old one until it opens the new one."""
    with suppress(FileNotFoundError):
        now = path.stat()
        return now.st_size > 0 and not os.path.samestat(now, os.fstat(file.fileno()))
    return False


def _rotated_lines(path: Path, file: BinaryIO, seen_ns: int) -> Iterator[bytes]:
    """The lines of `_rotated`; a file that is only half compressed yet stands beside its original."""
    for each in _rotated(path, file, seen_ns):
        try:
            yield from all_lines(each)
        except MalformedInput as error:
            log.warning("%s", error)


def _rotated(path: Path, file: BinaryIO, seen_ns: int) -> list[Path]:
    """The files that stood at `path` after the opened one, oldest first: where a log is rotated more than once
    between two looks, or copied and cut. They have its name and a number or date behind, and were written since."""
    found = []
    for each in path.parent.iterdir():
        if each.name.startswith(path.name) and _ROTATION.fullmatch(each.name.removeprefix(path.name)):
            with suppress(FileNotFoundError):
                state = each.stat()
                if state.st_mtime_ns >= seen_ns and not os.path.samestat(state, os.fstat(file.fileno())):
                    found.append((state.st_mtime_ns, each))
    return [each for _, each in sorted(found)]

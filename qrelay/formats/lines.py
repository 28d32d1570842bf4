"""Files of lines: UTF-8, with or without a byte order mark, plain or gzip by their first two bytes.

Line feeds end lines, a carriage return before one belongs to it; in a file without line feeds carriage returns end
them. Errors name file and line.
"""

from __future__ import annotations

import codecs
import gzip
import json
import sys
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from functools import partial
from io import BufferedReader
from pathlib import Path
from typing import Any, Final, TypeVar, cast

from qrelay.errors import InputError, MalformedInput

BOM: Final = codecs.BOM_UTF8
_GZIP: Final = b"\x1f\x8b"
_BINARY: Final = (_GZIP, b"BZh91AY&SY", b"\x28\xb5\x2f\xfd", b"\xff\xfe", b"\xfe\xff")
"""How gzip, bzip2, zstd and UTF-16 begin; of others NUL bytes tell."""
_HEAD: Final = 1 << 16
_LONGEST: Final = 64 << 20
"""Most bytes of a line: what goes on for longer is a file of another kind, or a bomb."""
_Line = TypeVar("_Line")
_Parsed = TypeVar("_Parsed")
Check = Callable[[bytes, object], None]
"""Told the first bytes of a file and its name. Raises MalformedInput."""


class BadRecord(MalformedInput):
    """What is wrong with a line, without the place where it stands."""


def all_lines(path: Path | None, *, check: Check | None = None) -> Iterator[bytes]:
    """Every line of a file, or of standard input where it is None, without its line ending; blank lines too.

    check: refuses the whole file by how it begins.

    Raises:
        MalformedInput: the file cannot be read, ends before it should, or has a line of more than 64 MiB.
    """
    number, name = 0, path or "standard input"
    try:
        with (
            path.open("rb") if path else cast(BufferedReader, sys.stdin.buffer) as raw,
            gzip.GzipFile(fileobj=raw) if raw.peek(2)[:2] == _GZIP else nullcontext(raw) as file,
        ):
            if check:
                check(file.peek(_HEAD), name)
            for number, line in enumerate(iter(partial(file.readline, _LONGEST + 1), b""), 1):
                if len(line) > _LONGEST:
                    raise MalformedInput(f"{name}:{number}: a line of more than 64 MiB: give a file of lines")
                whole = line.removeprefix(BOM) if number == 1 else line
                if number == 1 and not whole.endswith(b"\n"):  # the only one: an old Mac's file
                    yield from whole.removesuffix(b"\r").split(b"\r")
                else:
                    yield whole.removesuffix(b"\n").removesuffix(b"\r")
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise MalformedInput(f"{name} is damaged after line {number} ({error}): fetch it again") from error
    except OSError as error:
        raise MalformedInput(f"{name} cannot be read ({error.strerror}): give a text file, plain or gzip") from error


def refuse_binary(head: bytes, name: object) -> None:
    """Raises MalformedInput: what begins with `head` is no text, for it is compressed or holds NUL bytes."""
    if head.startswith(_BINARY) or b"\0" in head:
        raise MalformedInput(f"{name} is compressed, UTF-16 or binary, with NUL bytes: give lines of text in UTF-8")


def byte_lines(path: Path, *, check: Check | None = None) -> Iterator[tuple[int, bytes]]:
    """(number from 1, line) of every line that is not blank. Raises MalformedInput, as `all_lines`."""
    return ((number, line) for number, line in enumerate(all_lines(path, check=check), 1) if line.strip())


def text_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The same, decoded. Raises MalformedInput: also a line that is not UTF-8, or holds NUL."""
    return parsed(path, byte_lines(path), row_text)


def parsed(
    path: Path, lines: Iterable[tuple[int, _Line]], parse: Callable[[_Line], _Parsed]
) -> Iterator[tuple[int, _Parsed]]:
    """(number, what `parse` makes of the line). Raises MalformedInput: its InputError, with file and line."""
    for number, line in lines:
        try:
            found = parse(line)
        except InputError as error:
            raise MalformedInput(f"{path}:{number}: {error}") from error
        yield number, found


def decoded(line: bytes | str) -> str:
    """The line as text. Raises BadRecord."""
    try:
        return line.decode() if isinstance(line, bytes) else line
    except UnicodeDecodeError as error:
        raise BadRecord(f"not UTF-8 (byte {error.start + 1}): save the file as UTF-8") from error


def row_text(line: bytes | str) -> str:
    """A line of a table as text. Raises BadRecord: also where it holds NUL."""
    found = decoded(line)
    if "\0" in found:
        raise BadRecord(
            f"a NUL character ({found.index(chr(0)) + 1}th of the line), which no database stores: remove it"
        )
    return found


def json_value(line: bytes | str) -> Any:
    """What the line says in JSON. Raises BadRecord: also where an object has a key twice."""
    try:
        return _JSON.decode(decoded(line))
    except RecursionError as error:
        raise BadRecord("not JSON that can be read: it is nested too deeply") from error
    except json.JSONDecodeError as error:
        raise BadRecord(f"not JSON: {error}") from error
    except ValueError as error:
        raise BadRecord("a number of more digits than are read: write it as text, in quotes") from error


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise BadRecord(f"the key {twice[:40]!r} occurs twice in one object: keep one of the two")
    return found


_JSON: Final = json.JSONDecoder(object_pairs_hook=_distinct)


def file_in(path: Path, *names: str) -> Path:
    """`path`, or where it is a folder the first of `names` in it that is there, plain or .gz.

    Raises:
        MalformedInput: the folder holds none of them.
    """
    if not path.is_dir():
        return path
    for name in names:
        for file in (path / name, path / f"{name}.gz"):
            if file.is_file():
                return file
    raise MalformedInput(f"{path} holds no {' and no '.join(names)} (nor .gz of it): give a folder in BEIR's layout")

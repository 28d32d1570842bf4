"""What a parser may do with an input: answer, or raise an error of qrelay's own tree that a person can read.

Anything else is a finding: another exception (also InternalError, which says "a bug in qrelay"), an error text that
is empty, endless or no text, more processor time or memory than the parser's limit. Both limits are counted, not
timed: seconds of this process's processor time, and address space above what it had before.
"""

from __future__ import annotations

import io
import resource
import signal
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from qrelay.errors import InternalError, QrelayError
from tests.fuzz.parser import Parser

CPU_S: Final = 20.0
"""For one input; the slowest takes a tenth of it."""
TEXT_CHARS: Final = 20_000
"""Of an error, which goes to a log, a dead letter and a terminal."""
_PAGE: Final = resource.getpagesize()


@dataclass(frozen=True, slots=True)
class Finding:
    """parser, and what it did in a line; where: the frame of qrelay that raised; text: the whole traceback."""

    parser: str
    kind: str
    where: str
    text: str

    @property
    def key(self) -> tuple[str, str, str]:
        """Findings of one cause are alike in it."""
        return self.parser, self.kind, self.where


class OutOfTimeError(BaseException):
    """No Exception: no parser may take it for its own."""


def attempt(parser: Parser, data: bytes) -> Finding | None:
    """What is wrong with what the parser does with the input; None: nothing."""
    with tempfile.TemporaryDirectory(prefix="qrelay-fuzz-") as folder:
        try:
            return _attempt(parser, data, Path(folder))
        except OutOfTimeError as error:
            return _finding(parser, f"more than {CPU_S:g} s of processor time", error)
        except MemoryError as error:
            return _finding(parser, f"more than {parser.memory_mib} MiB", error)


def _attempt(parser: Parser, data: bytes, folder: Path) -> Finding | None:
    with _limits(parser.memory_mib), redirect_stdout(io.StringIO()):
        try:
            parser.call(data, folder)
        except InternalError as error:
            return _finding(parser, "InternalError", error)
        except (QrelayError, click.UsageError) as error:
            return _unreadable(parser, error)
        except MemoryError:
            raise
        except Exception as error:
            return _finding(parser, type(error).__name__, error)
    return None


def _unreadable(parser: Parser, error: Exception) -> Finding | None:
    text = str(error)
    if not text.strip():
        return _finding(parser, "an error without a text", error)
    if len(text) > TEXT_CHARS:
        return _finding(parser, "an error text without end", error)
    try:
        text.encode()
    except UnicodeEncodeError:
        return _finding(parser, "an error text that is no text", error)
    return None


def _finding(parser: Parser, kind: str, error: BaseException) -> Finding:
    frames = traceback.extract_tb(error.__traceback__)
    ours = [each for each in frames if "/qrelay/" in each.filename or "/services/" in each.filename]
    last = ours[-1] if ours else frames[-1]
    where = f"{Path(last.filename).name}:{last.lineno} {last.name}"
    shown = "".join(traceback.format_tb(error.__traceback__, -12)) + _named(error)
    return Finding(parser.name, kind, where, shown.encode("utf8", "backslashreplace").decode()[-6000:])


def _named(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {str(error)[:2000]}"
    except (MemoryError, RecursionError):
        return type(error).__name__


@contextmanager
def _limits(memory_mib: int) -> Iterator[None]:
    """Processor seconds, and address space above what is in use now."""
    used = int(Path("/proc/self/statm").read_text("utf8").split()[0]) * _PAGE
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    before = signal.signal(signal.SIGVTALRM, _expired)
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_mib * 1024**2, hard))
    signal.setitimer(signal.ITIMER_VIRTUAL, CPU_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGVTALRM, before)


def _expired(*_: Any) -> None:
    raise OutOfTimeError

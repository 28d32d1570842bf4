"""What an entry of the table is, and the two usual ways to call a reader of files."""

from __future__ import annotations

import gzip
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qrelay.errors import QrelayError
from tests.fuzz.mutants import Form

ROOT: Final = Path(__file__).resolve().parents[2]
"""The repository's."""
Call = Callable[[bytes, Path], Any]


@dataclass(frozen=True)
class Parser:
    """seeds: makes valid inputs, given an empty folder to work in. call: reads one, given an empty folder; it uses
    what it reads as far as qrelay does without a model. memory_mib: the most that one input may take, above what the
    process had; inputs are at most some 10 MB long. cost: how many inputs of a cheap parser one of it is worth.
    monsters: whether the huge inputs reach it (gRPC has a limit of its own)."""

    name: str
    form: Form
    seeds: Callable[[Path], Sequence[bytes]]
    call: Call
    memory_mib: int = 400
    cost: int = 1
    monsters: bool = True


def file(name: str, read: Callable[[Path], Any]) -> Call:
    """Calls `read` with the path of a file of this name; what it yields is drawn to its end."""

    def call(data: bytes, folder: Path) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        drawn(read(path))

    return call


def beside(others: Callable[[Path], Any], name: str, read: Callable[[Path], Any]) -> Call:
    """As `file`, in a folder in which `others` has written the rest; `read` gets the folder."""

    def call(data: bytes, folder: Path) -> None:
        others(folder)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        drawn(read(folder))

    return call


def drawn(found: Any) -> Any:
    """To the end of what is read as it is asked for."""
    if isinstance(found, Iterable) and not isinstance(found, str | bytes | dict | list | tuple):
        deque(found, 0)
    return found


def each(*calls: Callable[[], Any]) -> None:
    """Every call; the first refusal is raised at the end."""
    errors = []
    for call in calls:
        try:
            drawn(call())
        except QrelayError as error:
            errors.append(error)
    if errors:
        raise errors[0]


def constant(*seeds: bytes | str) -> Callable[[Path], Sequence[bytes]]:
    """Seeds that stand in the table itself."""
    return lambda _: [seed.encode() if isinstance(seed, str) else seed for seed in seeds]


def written(name: str, write: Callable[[Path], Any]) -> Callable[[Path], Sequence[bytes]]:
    """The bytes of a file that a writer of qrelay's leaves in the folder."""

    def seeds(folder: Path) -> Sequence[bytes]:
        write(folder)
        return [(folder / name).read_bytes()]

    return seeds


def zipped(seeds: Callable[[Path], Sequence[bytes]]) -> Callable[[Path], Sequence[bytes]]:
    """The same, by gzip."""
    return lambda folder: [gzip.compress(each, mtime=0) for each in seeds(folder)]

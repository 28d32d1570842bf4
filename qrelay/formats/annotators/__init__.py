"""Tools in which people grade pairs: what they are given (a folder that the tool loads), and the grades that they
export, as JSON. Both formats are plain JSON; no library of theirs is needed.

A grade comes back as a row of `query_id`, `passage_id`, `grade` ("": none yet), `author` and `note`, like a line of a
TSV that people filled in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from qrelay.errors import MalformedInput
from qrelay.formats.annotators import argilla, label_studio
from qrelay.formats.lines import BadRecord, all_lines, byte_lines, json_value

TOOLS: Final = {"label-studio": label_studio, "argilla": argilla}
MOST_BYTES: Final = 256 << 20
"""Of an export, which is read whole."""


@dataclass(frozen=True, slots=True)
class Export:
    """A tool's export. rows: its annotations and tasks without one, in the file's order, each read when it is called,
    which raises BadRecord with the task's id."""

    tool: str
    rows: Iterator[Callable[[], Mapping[str, str]]]


def read_export(path: Path) -> Export | None:
    """None: the file is no JSON list, but a table.

    Raises:
        MalformedInput: the file cannot be read, is a list of something else, or is too large.
    """
    _, first = next(byte_lines(path), (0, b""))
    if not first.lstrip().startswith(b"["):
        return None
    try:
        items = json_value(_whole(path))
    except BadRecord as error:
        raise MalformedInput(f"{path}: {error}") from error
    for tool, module in TOOLS.items():
        if items and isinstance(items[0], dict) and module.SIGN in items[0]:
            return Export(tool, module.rows(items))
    raise MalformedInput(
        f"{path} is a JSON list, but not of Label Studio's tasks (with {label_studio.SIGN!r}) or Argilla's records"
        f" (with {argilla.SIGN!r}): export from Label Studio as JSON, or from Argilla by records.to_json()"
    )


def _whole(path: Path) -> bytes:
    lines, size = [], 0
    for line in all_lines(path):
        size += len(line)
        if size > MOST_BYTES:
            raise MalformedInput(f"{path} is larger than {MOST_BYTES >> 20} MiB: export it in parts")
        lines.append(line)
    return b"\n".join(lines)

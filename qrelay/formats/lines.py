"""Text files line by line, plain or .gz, with errors that name the line."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qrelay.errors import MalformedInput


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of every line that is not blank. Raises MalformedInput: the file cannot be read."""
    try:
        with (
            gzip.open(path, "rt", encoding="utf-8-sig")
            if path.suffix == ".gz"
            else path.open(encoding="utf-8-sig", newline="\n")
        ) as lines:
            yield from ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise MalformedInput(f"cannot read {path}: {error}; give a UTF-8 text file, plain or .gz") from error


def numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, object) of every line of a JSONL file. Raises MalformedInput: a line is no JSON object."""
    for number, line in numbered_lines(path):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise MalformedInput(f"{path}:{number}: not JSON: {error}") from error
        if not isinstance(row, dict):
            raise MalformedInput(f"{path}:{number}: not a JSON object")
        yield number, row


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

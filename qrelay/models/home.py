"""The model home: one folder a model, and proof that its bytes are the right ones.

Hashing a gigabyte at every start would cost seconds, so a full verification leaves a marker file that
records each file's size, modification time and hash. A later check trusts the marker while size and
modification time are unchanged, and hashes again where they are not. A marker that cannot be written
(a read-only volume) costs time, not correctness.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qrelay.files import write_atomic
from qrelay.models.records import ModelEntry
from qrelay.parsing import json_document

MARKER = ".verified.json"


def models_dir(environ: Mapping[str, str] = os.environ) -> Path:
    """The model home: `QRELAY_MODELS_DIR`, else `qrelay/models` in the user's cache folder."""
    if explicit := environ.get("QRELAY_MODELS_DIR"):
        return Path(explicit).expanduser().absolute()
    cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser().absolute() / "qrelay" / "models"


@dataclass(frozen=True, slots=True)
class FileProblem:
    """A model file that is not what the catalogue says. `found` is "" where the file is absent."""

    path: Path
    expected: str
    found: str

    def __str__(self) -> str:
        if not self.found:
            return f"{self.path} is missing"
        return f"{self.path} has another hash: expected sha256 {self.expected}, found {self.found}"


def check_model(entry: ModelEntry, folder: Path, *, full: bool = False) -> list[FileProblem]:
    """What is wrong with `entry`'s files in `folder`; empty when all is well (and a marker is left).

    full: hash every file, whatever the marker says.
    """
    present = [file.path for file in entry.files if (folder / file.path).is_file()]
    found = file_hashes(folder, present, folder / MARKER, full=full)
    return [
        FileProblem(folder / file.path, file.sha256, found.get(file.path, ""))
        for file in entry.files
        if found.get(file.path) != file.sha256
    ]


def file_hashes(folder: Path, paths: Iterable[str], marker: Path, *, full: bool = False) -> dict[str, str]:
    """sha256 of each of `paths` in `folder`, from `marker` where size and time still match."""
    known = {} if full else _read_marker(marker)
    record: dict[str, dict[str, Any]] = {}
    for path in paths:
        stat = (folder / path).stat()
        fresh = {"size": stat.st_size, "mtime_ns": stat.st_mtime_ns}
        old = known.get(path, {})
        same = isinstance(old.get("sha256"), str) and {key: old.get(key) for key in fresh} == fresh
        record[path] = fresh | {"sha256": old["sha256"] if same else hash_file(folder / path)}
    if record != known:
        _write_marker(marker, record)
    return {path: str(entry["sha256"]) for path, entry in record.items()}


def hash_file(path: Path) -> str:
    """The file's sha256, lower-case hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _read_marker(marker: Path) -> dict[str, dict[str, Any]]:
    try:
        loaded = json_document(marker.read_text())["files"]
        return {str(path): dict(entry) for path, entry in loaded.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}  # absent or damaged: only a reason to hash again


def _write_marker(marker: Path, record: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):
        write_atomic(marker, json.dumps({"files": record}, indent=1, sort_keys=True))

"""Copies of models that an engine needs in another form: dequantised, converted, quantised. Each is made once.

    folder = prepared("3a1f09b2c4d5-openvino-int8", make, Room(disk_bytes=2e9, memory_bytes=6e9), "qwen2.5-…: 8 bits")

A copy is a folder `<model home>/.converted/<name>`; its name says of which bytes it was made and how. It appears by
one rename when it is whole. A killed try leaves `<name>.unfinished`, which the next one removes. Processes that want
the same copy at the same time make it once; the others wait. Any copy may be deleted at any time.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from qrelay.errors import ModelError
from qrelay.files import fsync_path
from qrelay.models.home import models_dir
from qrelay.progress import step

FOLDER: Final = ".converted"
_UNFINISHED: Final = ".unfinished"
_LOOK_S: Final = 1.0
_LIBRARIES_BYTES: Final = 5e8
"""What PyTorch or OpenVINO take beside a model's weights."""


@dataclass(frozen=True, slots=True)
class Room:
    """What making a copy takes: bytes on disk, and bytes of memory at its peak."""

    disk_bytes: float
    memory_bytes: float


def copies_dir(home: Path | None = None) -> Path:
    """Where copies lie below the model home."""
    return (home or models_dir()) / FOLDER


def prepared(
    name: str, make: Callable[[Path], None], room: Room, what: str, *, smaller: str = "", home: Path | None = None
) -> Path:
    """The copy's folder, made by `make(empty folder)` where it is absent; `make` reports its progress itself.

    what: the copy in words, for errors. smaller: what to do where there is no room ("choose qwen2.5-…-0.5b").

    Raises:
        ModelError: too little memory or disk, said in one line before anything is done; or the folder cannot be
            written.
    """
    copies = copies_dir(home)
    target = copies / name
    if target.is_dir():
        return target
    try:
        copies.mkdir(parents=True, exist_ok=True)
        with _alone(copies / f"{name}.lock", what):
            if not target.is_dir():
                _make(target, make, room, what, smaller)
    except OSError as error:
        raise ModelError(
            f"cannot write the copy of {what} to {copies} ({error}): make room there, or set QRELAY_MODELS_DIR to a "
            "folder that can be written"
        ) from error
    return target


def _make(target: Path, make: Callable[[Path], None], room: Room, what: str, smaller: str) -> None:
    unfinished = target.with_name(target.name + _UNFINISHED)
    shutil.rmtree(unfinished, ignore_errors=True)
    require_room(target.parent, room, what, smaller)
    unfinished.mkdir()
    try:
        make(unfinished)
        for path in (*unfinished.rglob("*"), unfinished):
            fsync_path(path)
        unfinished.rename(target)
        fsync_path(target.parent)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


@contextmanager
def _alone(lock_file: Path, what: str) -> Iterator[None]:
    """Holds the lock, which the system takes from a process that dies."""
    lock = FileLock(lock_file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        with step(f"waiting for another process that prepares {what}", unit="looks") as waiting:
            while not lock.is_locked:
                waiting.advance(1)
                try:
                    lock.acquire(timeout=_LOOK_S)
                except Timeout:
                    continue
    try:
        yield
    finally:
        lock.release()


def require_room(folder: Path, room: Room, what: str, smaller: str = "") -> None:
    """Raises ModelError where memory or disk are too small, naming both numbers and what to do."""
    free_disk = shutil.disk_usage(folder).free
    remedy = f", or {smaller}" if smaller else ""
    if free_disk < room.disk_bytes:
        raise ModelError(
            f"{what} needs {room.disk_bytes / 1e9:.1f} GB of disk in {folder}, and {free_disk / 1e9:.1f} GB are "
            f"free: make room, set QRELAY_MODELS_DIR to another disk{remedy}"
        )
    require_memory(room.memory_bytes, what, smaller)


def require_memory(needed_bytes: float, what: str, smaller: str = "") -> None:
    """Raises ModelError where less is available, naming both numbers and what to do."""
    available = available_memory()
    if available < needed_bytes:
        raise ModelError(
            f"{what} needs {needed_bytes / 1e9:.1f} GB of memory, and {available / 1e9:.1f} GB are available: close "
            f"other programs{f', or {smaller}' if smaller else ''}"
        )


def require_memory_for(folder: Path, what: str, smaller: str = "") -> None:
    """Whether the weights in `folder` can be loaded, beside what libraries take. Raises ModelError as above."""
    kinds = (folder.glob("*.safetensors"), folder.glob("*.bin"))
    weights = max(sum(path.stat().st_size for path in files) for files in kinds)
    require_memory(weights + _LIBRARIES_BYTES, what, smaller)


def available_memory() -> int:
    """Bytes that this process may still take: of the machine, and of its container where that allows less."""
    import psutil

    return min(int(psutil.virtual_memory().available), _container_allows())


def _container_allows() -> int:
    """Bytes below the control group's limit (version 2, then 1); unlimited where there is none."""
    for limit, used in (("memory.max", "memory.current"),
                        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes")):  # fmt: skip
        root = Path("/sys/fs/cgroup")
        try:
            allowed = (root / limit).read_text().strip()
            if allowed != "max" and int(allowed) < 1 << 60:
                return int(allowed) - int((root / used).read_text())
        except (OSError, ValueError):
            continue
    return 1 << 62


def remove_leftovers(*, home: Path | None = None) -> list[Path]:
    """Remove what killed tries left, of every copy that nobody makes now; what was removed."""
    removed = []
    for path in copies_dir(home).glob(f"*{_UNFINISHED}"):
        lock = FileLock(path.with_name(path.name.removesuffix(_UNFINISHED) + ".lock"))
        try:
            with lock.acquire(timeout=0):
                shutil.rmtree(path, ignore_errors=True)
                removed.append(path)
        except (Timeout, OSError):
            continue
    return removed

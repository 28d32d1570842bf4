"""Where an export's bytes go: a stream, one file, or a folder. On disk it is whole or not there at all.

A file is written beside its place and renamed, and so is its manifest, after it: where a crash falls between the two,
the old manifest's sha256 does not match, which says so. A folder is written whole, manifest inside, beside its place
and renamed at once; a former export of ours that stands there is moved aside for that moment, and a folder of
anything else is refused. What a killed export left beside the place is removed by the next one to the same place.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Final

import orjson
import psutil

from qrelay.errors import InputError
from qrelay.files import AtomicFiles, fsync_path, remove
from qrelay.labels.exports.writing import Sink
from qrelay.runtime import faults

MANIFEST: Final = "manifest.json"
"""Of a folder, inside it; of a file, `<file>.manifest.json` beside it."""


class Stream:
    """One file that is taken away in pieces while it is written."""

    def __init__(self) -> None:
        self._held = bytearray()
        self.sinks: dict[str, Sink] = {}

    def open(self, name: str) -> Sink:
        """The one file.

        Raises:
            InputError: the export has several.
        """
        if self.sinks or name:
            raise InputError("an export of several files cannot be streamed: write it to a folder")
        self.sinks[name] = Sink(self)
        return self.sinks[name]

    def write(self, data: bytes) -> None:
        """What the sink passes on."""
        self._held += data

    @property
    def held(self) -> int:
        """Bytes that wait to be taken."""
        return len(self._held)

    def take(self) -> bytes:
        """What was written since the last call."""
        taken = bytes(self._held)
        self._held.clear()
        return taken


class OneFile:
    """`path`, with its manifest beside it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._data, self._beside = AtomicFiles(), AtomicFiles()
        self.sinks: dict[str, Sink] = {}

    def open(self, name: str) -> Sink:
        """The one file; its name is the path's."""
        self.sinks[name] = Sink(self._data.open(self._path))
        return self.sinks[name]

    def commit(self, manifest: Mapping[str, Any]) -> None:
        """Puts the file in place, then the manifest."""
        sidecar = self._beside.open(self._path.with_name(f"{self._path.name}.{MANIFEST}"))
        sidecar.write(manifest_bytes(manifest))
        sidecar.flush()  # so that a full disk shows before anything is put in place
        self._data.commit()
        faults.point("sink.export.rename")
        self._beside.commit()

    def abandon(self) -> None:
        """Removes what was not put in place."""
        _discard(self.sinks)
        for files in (self._data, self._beside):
            files.__exit__(None, None, None)


class Folder:
    """`path`, a folder, with its manifest inside."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            InputError: something stands there that is no export of ours.
        """
        self._path = path = path.absolute()
        _require_ours(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path)
        self._temporary = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        self._temporary.mkdir()
        self._files: list[IO[bytes]] = []
        self.sinks: dict[str, Sink] = {}

    def open(self, name: str) -> Sink:
        """A new file at `name` within the folder."""
        path = self._temporary / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self._files.append(path.open("xb"))
        self.sinks[name] = Sink(self._files[-1])
        return self.sinks[name]

    def commit(self, manifest: Mapping[str, Any]) -> None:
        """Puts the folder in place, in one rename."""
        self._files.append((self._temporary / MANIFEST).open("xb"))
        self._files[-1].write(manifest_bytes(manifest))
        for file in self._files:
            file.flush()
            os.fsync(file.fileno())
            file.close()
        for folder in (self._temporary, *(each for each in self._temporary.rglob("*") if each.is_dir())):
            fsync_path(folder)
        former = self._path.with_name(f".{self._path.name}.{secrets.token_hex(4)}.old")
        if self._path.exists():
            self._path.rename(former)
        faults.point("sink.export.rename")
        self._temporary.rename(self._path)
        fsync_path(self._path.parent)
        shutil.rmtree(former, ignore_errors=True)

    def abandon(self) -> None:
        """Removes what was not put in place."""
        _discard(self.sinks)
        for file in self._files:
            file.close()
        shutil.rmtree(self._temporary, ignore_errors=True)


def open_output(path: Path, *, folder: bool) -> OneFile | Folder:
    """Where an export to `path` is written.

    Raises:
        InputError: it is a folder and must be a file, or stands for something that is not ours.
        OSError: it cannot be made.
    """
    if folder:
        return Folder(path)
    if path.is_dir():
        raise InputError(f"{path} is a folder and this export is one file: name a file with --out")
    for place in (path, path.with_name(f"{path.name}.{MANIFEST}")):
        _clear(place)
    return OneFile(path)


def manifest_bytes(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as it is written."""
    return orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def described(sinks: Mapping[str, Sink]) -> dict[str, dict[str, Any]]:
    """bytes and sha256 of each file, by name."""
    return {name: {"bytes": sink.size, "sha256": sink.sha256} for name, sink in sorted(sinks.items())}


def overall_sha256(sinks: Mapping[str, Sink]) -> str:
    """The one file's, or that of a folder's list of files as `sha256sum` prints it."""
    if list(sinks) == [""]:
        return sinks[""].sha256
    listed = "".join(f"{sink.sha256}  {name}\n" for name, sink in sorted(sinks.items()))
    return hashlib.sha256(listed.encode()).hexdigest()


def _require_ours(path: Path) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not path.is_dir() or path.is_symlink():
        raise InputError(f"{path} is a file or a link and this export is a folder: name another place with --out")
    if not any(path.iterdir()):
        return
    try:
        ours = {"format", "collection", "sha256", "files"} <= orjson.loads((path / MANIFEST).read_bytes()).keys()
    except (OSError, ValueError, AttributeError):
        ours = False
    if not ours:
        raise InputError(
            f"{path} holds something that is no export of qrelay: it stays; name another folder with --out"
        )


def _discard(sinks: Mapping[str, Sink]) -> None:
    for sink in sinks.values():
        sink.discard()


def _clear(path: Path) -> None:
    """Removes what killed exports to this place left; those of processes that still run are left alone."""
    left = list(path.parent.glob(f".{path.name}.*.old"))
    for each in path.parent.glob(f".{path.name}.*-*.tmp"):
        process = each.name.removeprefix(f".{path.name}.").split("-")[0]
        if process.isdigit() and not psutil.pid_exists(int(process)):
            left.append(each)
    for each in left:
        remove(each)

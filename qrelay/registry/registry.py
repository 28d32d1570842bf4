"""The registry: publish, gate, promote, roll back, retract. See the package for the files.

    registry = Registry(data_dir / "registry")
    version = registry.publish(out / "model", slot=BI_ENCODER, base="all-MiniLM-L6-v2@1a2b", …)
    registry.record_gate(version, report)            # report: passed, against, and the figures
    registry.promote(version, by="ana")              # only what passed against the serving version
    served = registry.serving(BI_ENCODER)            # what a service loads; None: its configured model

Every change is one event, appended if nothing has happened since the decision was taken, else decided again.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qrelay import __version__
from qrelay.errors import BackendUnavailable, InputError, ModelError
from qrelay.files import fsync_path, write_atomic
from qrelay.models.home import hash_file
from qrelay.registry import events as ev
from qrelay.registry.events import Event, History
from qrelay.registry.manifest import SLOTS, DataSource, JudgeRef, Manifest, from_json, version_of
from qrelay.registry.state import Standing, State, standing, tainted

_MANIFEST: Final = "manifest.json"
_MODEL: Final = "model"


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A version to load. `path`: its sentence-transformers folder. `fingerprint`: as traces and GetInfo name it."""

    version: str
    slot: str
    path: Path

    @property
    def fingerprint(self) -> str:
        """version@ what its name was hashed from: the name is enough, bytes are checked against its manifest."""
        return f"{self.version}@registry"


class Registry:
    """See the module. Cheap to make; nothing is written before the first publication. `clock`: microseconds."""

    def __init__(self, folder: Path, clock: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.folder = folder
        self._versions = folder / "versions"
        self._history = History(folder / "events")
        self._clock = clock

    # -- reading

    def history(self) -> list[Event]:
        """Every event, in order. Raises ModelError where one is damaged."""
        return self._history.events()

    def standing(self) -> Standing:
        """Where everything stands now."""
        return standing(self.history())

    def serving(self, slot: str) -> ServedVersion | None:
        """What the slot serves; None: the service's configured model."""
        version = self.standing().serving(slot)
        return ServedVersion(version, slot, self.model_dir(version)) if version else None

    def manifest(self, version: str) -> Manifest:
        """Raises InputError: there is no such version. ModelError: its manifest is damaged."""
        path = self._versions / version / _MANIFEST
        try:
            return from_json(path.read_bytes(), str(path))
        except (FileNotFoundError, NotADirectoryError):
            known = ", ".join(self.standing().versions) or "none yet"
            raise InputError(f"the registry {self.folder} has no version {version!r}; it has {known}") from None

    def manifests(self) -> dict[str, Manifest]:
        """version -> manifest, in the order of publication."""
        return {version: self.manifest(version) for version in self.standing().versions}

    def model_dir(self, version: str) -> Path:
        """The folder of the version's model."""
        return self._versions / version / _MODEL

    def verify(self, version: str) -> None:
        """Raises ModelError that names every file whose bytes are not the manifest's."""
        folder, wrong = self.model_dir(version), []
        for path, sha256 in self.manifest(version).files.items():
            file = folder / path
            if not file.is_file():
                wrong.append(f"{path} is missing")
            elif hash_file(file) != sha256:
                wrong.append(f"{path} has other bytes")
        if wrong:
            raise ModelError(
                f"version {version} in {self.folder} is damaged: {'; '.join(wrong)}; roll back, or restore it"
            )

    def taints(self) -> dict[str, list[str]]:
        """version -> hashes of retracted judges whose labels made it; only versions that have some."""
        at, manifests = self.standing(), self.manifests()
        found = {version: tainted(version, manifests, at.retracted) for version in manifests}
        return {version: judges for version, judges in found.items() if judges}

    # -- writing

    def publish(
        self,
        model: Path,
        *,
        slot: str,
        base: str,
        parent: str = "",
        collections: Sequence[str] = (),
        experiment: Mapping[str, Any] | None = None,
        data: Sequence[DataSource] = (),
        judges: Sequence[JudgeRef] = (),
        metrics: Mapping[str, Any] | None = None,
        job: str = "",
        by: str = "",
    ) -> str:
        """Copies the model's folder in as a candidate and returns its version. Again with the same bytes and the same
        makings: the same version, and nothing changes.

        Raises:
            InputError: no such slot, or the folder holds no model.
            BackendUnavailable: the registry's folder cannot be written.
        """
        if slot not in SLOTS:
            raise InputError(f"there is no slot {slot!r}: a version is of {' or '.join(SLOTS)}")
        files = _hashes(model)
        made_by = {"base": base, "parent": parent, "experiment": dict(experiment or {}),
                   "data": [source.sha256 for source in data]}  # fmt: skip
        version = version_of(slot, files, made_by)
        manifest = Manifest(
            version, slot, self._clock(), parent, base, tuple(collections), dict(experiment or {}), tuple(data),
            tuple(judges), files, dict(metrics or {}), job, __version__,
        )  # fmt: skip
        with _writing(self.folder):
            self._put(model, manifest)
            self._decide(lambda at: None if version in at.versions else _event(ev.PUBLISHED, slot, version, by))
        return version

    def record_gate(self, version: str, report: Mapping[str, Any], *, by: str = "") -> State:
        """Records the gate's verdict and returns the version's state. `report` has `passed` (bool) and `against`
        (version, empty: the configured model).

        Raises:
            InputError: there is no such version, or the report lacks one of the two.
        """
        if not isinstance(report.get("passed"), bool) or not isinstance(report.get("against"), str):
            raise InputError("a gate's report says `passed` (true or false) and `against` (a version, or empty)")
        manifest = self.manifest(version)

        def decide(at: Standing) -> Event:
            _require(at, version)
            return _event(ev.GATED, manifest.slot, version, by, report)

        with _writing(self.folder):
            self._decide(decide)
        return self.standing().versions[version].state

    def promote(self, version: str, *, by: str = "", reason: str = "") -> bool:
        """Lets the version serve. False: it serves already.

        Raises:
            InputError: the gate has not passed it against the version that serves now, or it is tainted.
            ModelError: its bytes are not the manifest's.
        """
        manifest = self.manifest(version)
        self.verify(version)

        def decide(at: Standing) -> Event | None:
            _require(at, version)
            serving = at.serving(manifest.slot)
            if serving == version:
                return None
            if judges := tainted(version, self.manifests(), at.retracted):
                raise InputError(f"version {version} learnt from retracted judges: {', '.join(judges)}")
            if not at.versions[version].passed_against(serving):
                raise InputError(_why_not(at, version, serving))
            return _event(ev.PROMOTED, manifest.slot, version, by, {"reason": reason, "instead_of": serving})

        with _writing(self.folder):
            return self._decide(decide)

    def rollback(self, slot: str, *, to: str | None = None, by: str = "", reason: str = "") -> str:
        """Takes the serving version back and returns what serves instead: `to`, or the version before it; empty: the
        service's configured model.

        Raises:
            InputError: nothing is promoted in the slot, or `to` did not serve before.
            ModelError: the bytes of the version to go back to are not its manifest's.
        """
        if slot not in SLOTS:
            raise InputError(f"there is no slot {slot!r}: it is {' or '.join(SLOTS)}")
        target = ""

        def decide(at: Standing) -> Event:
            nonlocal target
            target = _target(at, slot, to)
            if target:
                self.verify(target)
            detail = {"reason": reason, "from": at.serving(slot)}
            return _event(ev.ROLLED_BACK, slot, target, by, detail)

        with _writing(self.folder):
            self._decide(decide)
        return target

    def retract_judge(self, judge: str, *, by: str = "", reason: str = "") -> bool:
        """From now on versions that learnt from this judge's labels are tainted. False: it was retracted already."""
        detail = {"judge": judge, "reason": reason}
        with _writing(self.folder):
            return self._decide(
                lambda at: None if judge in at.retracted else _event(ev.JUDGE_RETRACTED, by=by, detail=detail)
            )

    def restore_judge(self, judge: str, *, by: str = "", reason: str = "") -> bool:
        """Undoes `retract_judge`. False: it was not retracted."""
        detail = {"judge": judge, "reason": reason}
        with _writing(self.folder):
            return self._decide(
                lambda at: _event(ev.JUDGE_RESTORED, by=by, detail=detail) if judge in at.retracted else None
            )

    def _decide(self, decide: Callable[[Standing], Event | None]) -> bool:
        """Appends what `decide` answers to the present standing; again where another was faster. False: nothing."""
        while True:
            at = self.standing()
            event = decide(at)
            if event is None:
                return False
            numbered = Event(
                at.last + 1, self._clock(), event.kind, event.slot, event.version, event.by, event.detail
            )
            if self._history.append(numbered):
                return True

    def _put(self, model: Path, manifest: Manifest) -> None:
        """The version's folder, whole or not there."""
        home = self._versions / manifest.version
        if home.exists():
            return
        staging = self.folder / "staging" / f"{manifest.version}-{time.time_ns()}"
        shutil.copytree(model, staging / _MODEL)  # makes its parents
        for path in sorted((staging / _MODEL).rglob("*")):
            fsync_path(path)
        write_atomic(staging / _MANIFEST, json.dumps(manifest.as_json(), indent=1, ensure_ascii=False))
        self._versions.mkdir(exist_ok=True)
        try:
            staging.rename(home)
        except OSError:
            if not home.exists():
                raise
            shutil.rmtree(staging)  # another process has published the same version
        fsync_path(self._versions)


def _hashes(model: Path) -> dict[str, str]:
    files = sorted(path for path in model.rglob("*") if path.is_file()) if model.is_dir() else []
    if not any(path.name == "config.json" for path in files):
        raise InputError(f"{model} is no model's folder: it has no config.json")
    return {path.relative_to(model).as_posix(): hash_file(path) for path in files}


def _event(
    kind: str, slot: str = "", version: str = "", by: str = "", detail: Mapping[str, Any] | None = None
) -> Event:
    return Event(0, 0, kind, slot, version, by, detail or {})


def _require(at: Standing, version: str) -> None:
    if version not in at.versions:
        raise InputError(f"version {version} was never published: run its job again, which finishes it")


def _why_not(at: Standing, version: str, serving: str) -> str:
    gate = at.versions[version].gate
    against = serving or "the configured model"
    if gate is None:
        return (
            f"version {version} has not been through the gate against {against}: run `qrelay models gate {version}`"
        )
    if not gate.detail["passed"]:
        return f"the gate failed version {version}: {gate.detail.get('why', 'see `qrelay models show`')}"
    return (
        f"version {version} passed the gate against {gate.detail['against'] or 'the configured model'}, but {against}"
        f" serves now: run `qrelay models gate {version}` again"
    )


def _target(at: Standing, slot: str, to: str | None) -> str:
    stack = at.stack.get(slot) or []
    if not stack:
        raise InputError(f"nothing is promoted as {slot}: the service runs its configured model already")
    if to is None:
        return stack[-2] if len(stack) > 1 else ""
    if to and to not in stack[:-1]:
        before = ", ".join(stack[:-1]) or "only the configured model"
        raise InputError(f"{slot} cannot go back to {to!r}: before {stack[-1]} served {before}")
    return to


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise BackendUnavailable(f"cannot write the registry {folder}: {error}") from error

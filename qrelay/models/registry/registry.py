"""The registry: publish, gate, promote, roll back, retract, prune. See the package for the files.

    registry = Registry(data_dir / "registry")
    version = registry.publish(out / "model", slot=BI_ENCODER, base="all-MiniLM-L6-v2@1a2b", …)
    registry.record_gate(version, report)            # report: passed, against, and the figures
    registry.promote(version, by="ana")              # only what passed against the serving version
    served = registry.serving(BI_ENCODER)            # what a service loads; None: its configured model
    served = registry.serving("bi_encoder:medquad")  # for that collection: of its own slot, else the same

Every change is one event, appended if nothing has happened since the decision was taken, else decided again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from qrelay import __version__
from qrelay.errors import BackendUnavailable, InputError, ModelError
from qrelay.files import disk_refusal
from qrelay.models.registry import events as ev
from qrelay.models.registry import rules
from qrelay.models.registry.events import Event, History
from qrelay.models.registry.manifest import DataSource, JudgeRef, Manifest, version_of
from qrelay.models.registry.serving import ServedVersion, Serving
from qrelay.models.registry.slots import collection_of, kind_of, require_slot
from qrelay.models.registry.staging import Staging
from qrelay.models.registry.state import RegistryStatus, State, standing, tainted
from qrelay.models.registry.versions import Versions, hashes


class Registry:
    """See the module. Cheap to make; nothing is written before the first publication. `clock`: microseconds."""

    def __init__(self, folder: Path, clock: Callable[[], int] = lambda: time.time_ns() // 1000) -> None:
        self.folder = folder
        self._staging = Staging(folder / "staging")
        self._versions = Versions(folder / "versions", self._staging)
        self._history = History(folder / "events", self._staging)
        self._clock = clock

    @property
    def read_only(self) -> bool:
        """Whether this process may not write the folder, nor make it."""
        there = next(each for each in (self.folder, *self.folder.parents) if each.exists())
        return not os.access(there, os.W_OK)

    # -- reading

    def history(self) -> list[Event]:
        """Every event, in order. Raises ModelError where one is damaged."""
        return self._history.events()

    def standing(self) -> RegistryStatus:
        """Where everything stands now."""
        return standing(self.history())

    def serving(self, slot: str) -> ServedVersion | None:
        """What serves where the slot is asked for: its own version, else the default slot's; None: the service's
        configured model."""
        version = (at := self.standing()).serving(slot)
        return self._served(at, version) if version else None

    def serving_all(self, kind: str) -> Serving:
        """What serves every collection, by one look at the history. kind: a default slot."""
        at = self.standing()
        own = {collection_of(slot): self._served(at, stack[-1]) for slot, stack in at.stack.items()
               if stack and slot != kind and kind_of(slot) == kind}  # fmt: skip
        default = at.serving(kind)
        return Serving(self._served(at, default) if default else None, own)

    def _served(self, at: RegistryStatus, version: str) -> ServedVersion:
        return ServedVersion(version, at.versions[version].slot, self.model_dir(version))

    def manifest(self, version: str) -> Manifest:
        """Raises UnknownVersion: there is no such version. ModelError: its manifest is damaged."""
        return self._versions.manifest(version)

    def manifests(self) -> dict[str, Manifest]:
        """version -> manifest, in the order of publication."""
        return {version: self.manifest(version) for version in self.standing().versions}

    def model_dir(self, version: str) -> Path:
        """The folder of the version's model."""
        return self._versions.model_dir(version)

    def verify(self, version: str) -> None:
        """Raises ModelError: the version was pruned, or names every file whose bytes are not the manifest's."""
        known = self.standing().versions.get(version)
        if known is not None and known.pruned:
            raise ModelError(f"version {version} was pruned: its manifest is kept and its model is gone")
        self._versions.verify(version)

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
        makings: the same version, and nothing changes, but that the model of a pruned version comes back. What killed
        publications left is removed.

        Raises:
            InputError: no such slot, or the folder holds no model.
            BackendUnavailable: the registry's folder cannot be written.
        """
        require_slot(slot)
        files = hashes(model)
        made_by = {"base": base, "parent": parent, "experiment": dict(experiment or {}),
                   "data": [source.sha256 for source in data]}  # fmt: skip
        version = version_of(slot, files, made_by)
        manifest = Manifest(
            version, slot, self._clock(), parent, base, tuple(collections), dict(experiment or {}), tuple(data),
            tuple(judges), files, dict(metrics or {}), job, __version__,
        )  # fmt: skip

        def decide(at: RegistryStatus) -> Event | None:
            there = version in at.versions and not at.versions[version].pruned
            return None if there else _event(ev.PUBLISHED, slot, version, by)

        with _writing(self.folder):
            self._staging.sweep()
            self._versions.put(model, manifest)
            self._decide(decide)
        return version

    def record_gate(self, version: str, report: Mapping[str, Any], *, by: str = "") -> State:
        """Records the gate's verdict and returns the version's state. `report` has `passed` (bool) and `against`
        (version, empty: the configured model).

        Raises:
            UnknownVersion: there is no such version.
            InputError: the report lacks one of the two.
        """
        if not isinstance(report.get("passed"), bool) or not isinstance(report.get("against"), str):
            raise InputError("a gate's report says `passed` (true or false) and `against` (a version, or empty)")
        manifest = self.manifest(version)

        def decide(at: RegistryStatus) -> Event:
            rules.require_published(at, version)
            return _event(ev.GATED, manifest.slot, version, by, report)

        with _writing(self.folder):
            self._decide(decide)
        return self.standing().versions[version].state

    def promote(self, version: str, *, by: str = "", reason: str = "", read: int | None = None) -> bool:
        """Lets the version serve. False: it serves already. `read`: the number of the gate's verdict that was read.

        Raises:
            UnknownVersion: there is no such version.
            InputError: the gate has decided again since `read`.
            NotPromotable: the gate has not passed it against the version that serves now, it is tainted, or pruned.
            ModelError: its bytes are not the manifest's.
        """
        manifest = self.manifest(version)

        def decide(at: RegistryStatus) -> Event | None:
            rules.require_published(at, version)
            serving = at.serving(manifest.slot)
            if serving == version:
                return None
            rules.require_read(at, version, read)
            rules.require_passed(at, version, tainted(version, self.manifests(), at.retracted))
            self.verify(version)
            return _event(ev.PROMOTED, manifest.slot, version, by, {"reason": reason, "instead_of": serving})

        with _writing(self.folder):
            return self._decide(decide)

    def rollback(
        self, slot: str, *, to: str | None = None, by: str = "", reason: str = "", instead_of: str | None = None
    ) -> str:
        """Takes the slot's serving version back and returns what serves instead: `to`, or the one before it; where
        the slot has none left, the default slot's; empty: the service's configured model. `instead_of`: the version
        that was seen to serve.

        Raises:
            InputError: there is no such slot, or another version serves than `instead_of`.
            NotPromotable: nothing is promoted in the slot, or `to` did not serve before.
            ModelError: the bytes of the version to go back to are not its manifest's.
        """
        require_slot(slot, self.standing().slots)
        target = ""

        def decide(at: RegistryStatus) -> Event:
            nonlocal target
            rules.require_serving(at, slot, instead_of)
            target = rules.rollback_target(at, slot, to)
            if target:
                self.verify(target)
            detail = {"reason": reason, "from": at.serving(slot)}
            return _event(ev.ROLLED_BACK, slot, target, by, detail)

        with _writing(self.folder):
            self._decide(decide)
        return target or self.standing().serving(slot)

    def retract_judge(self, judge: str, *, by: str = "", reason: str = "") -> bool:
        """From now on versions that were trained on this judge's labels are tainted. False: it was retracted
        already."""
        return self._on_judge(ev.JUDGE_RETRACTED, judge, by, reason)

    def restore_judge(self, judge: str, *, by: str = "", reason: str = "") -> bool:
        """Undoes `retract_judge`. False: it was not retracted."""
        return self._on_judge(ev.JUDGE_RESTORED, judge, by, reason)

    def prune(self, keep: int, *, by: str = "", dry_run: bool = False) -> dict[str, int]:
        """Drops the models of rejected and retired versions that nobody can roll back to, but of each slot the `keep`
        latest; manifests stay. Version -> bytes that went (would go, with `dry_run`); also what a killed call left.

        Raises:
            InputError: `keep` is negative.
        """
        if keep < 0:
            raise InputError(f"keep {keep} is negative: say how many models of each slot stay, 0 or more")
        if dry_run:
            return {
                version: self._versions.model_bytes(version) for version in rules.droppable(self.standing(), keep)
            }

        def decide(at: RegistryStatus) -> Event | None:
            version = next(iter(rules.droppable(at, keep)), None)
            return _event(ev.PRUNED, at.versions[version].slot, version, by) if version else None

        with _writing(self.folder):
            while self._decide(decide):
                pass
            pruned = [found.version for found in self.standing().versions.values() if found.pruned]
            dropped = {version: self._versions.drop_model(version) for version in pruned}
        return {version: size for version, size in dropped.items() if size}

    def _on_judge(self, kind: str, judge: str, by: str, reason: str) -> bool:
        def decide(at: RegistryStatus) -> Event | None:
            done = (judge in at.retracted) == (kind == ev.JUDGE_RETRACTED)
            return None if done else _event(kind, by=by, detail={"judge": judge, "reason": reason})

        with _writing(self.folder):
            return self._decide(decide)

    def _decide(self, decide: Callable[[RegistryStatus], Event | None]) -> bool:
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


def _event(
    kind: str, slot: str = "", version: str = "", by: str = "", detail: Mapping[str, Any] | None = None
) -> Event:
    return Event(0, 0, kind, slot, version, by, detail or {})


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        refusal = disk_refusal(error, f"the registry {folder}")
        raise refusal or BackendUnavailable(f"cannot write the registry {folder}: {error}") from error

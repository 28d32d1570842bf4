"""What a history says: the state of each version, which one serves, what is tainted. Pure.

| state | means |
|---|---|
| candidate | published; the gate has not failed it against what serves now |
| promoted | serves |
| rejected | the gate failed it last |
| retired | served once |

A version is tainted, in any state, while a judge whose labels it was trained on is retracted, or while its parent is.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from qrelay.errors import ModelError
from qrelay.models.registry import events as ev
from qrelay.models.registry.events import Event
from qrelay.models.registry.manifest import Manifest
from qrelay.models.registry.slots import kind_of


class State(enum.StrEnum):
    """See the module."""

    CANDIDATE = "candidate"
    PROMOTED = "promoted"
    REJECTED = "rejected"
    RETIRED = "retired"


@dataclass(slots=True)
class VersionState:
    """One version as of the last event. `gate`: its latest verdict, None: not gated. `pruned`: its model was dropped;
    publishing the same again brings it back."""

    version: str
    slot: str
    state: State = State.CANDIDATE
    gate: Event | None = None
    pruned: bool = False

    def passed_against(self, serving: str) -> bool:
        """Whether its latest verdict is a pass against the version that serves (empty: the configured model)."""
        detail = self.gate.detail if self.gate else {}
        return bool(detail.get("passed")) and detail.get("against") == serving


@dataclass(slots=True)
class RegistryStatus:
    """All of it. `stack`: slot -> versions that were promoted and not rolled back, the serving one last."""

    versions: dict[str, VersionState] = field(default_factory=dict)
    stack: dict[str, list[str]] = field(default_factory=dict)
    retracted: dict[str, Event] = field(default_factory=dict)
    last: int = 0

    def serving(self, slot: str) -> str:
        """The version that serves where the slot is asked for: the one promoted in it, else in its kind's default
        slot; empty: the configured model."""
        served = self.stack.get(slot) or self.stack.get(kind_of(slot))
        return served[-1] if served else ""

    @property
    def slots(self) -> list[str]:
        """Those that a version was published for, by name."""
        return sorted({found.slot for found in self.versions.values()})


def standing(events: Iterable[Event]) -> RegistryStatus:
    """The fold over a history, from its beginning. Raises ModelError at a kind of event that it does not know, and at
    one that speaks of what was not there."""
    found = RegistryStatus()
    for event in events:
        if event.kind not in _STEPS:
            raise ModelError(f"event {event.number} is {event.kind!r}, of a newer qrelay: use the one that wrote it")
        try:
            _STEPS[event.kind](found, event)
        except KeyError as error:
            raise ModelError(
                f"event {event.number} ({event.kind}) speaks of {error}, which no event before it made: restore the"
                " registry from a backup"
            ) from error
        found.last = event.number
    return found


def tainted(version: str, manifests: Mapping[str, Manifest], retracted: Iterable[str]) -> list[str]:
    """The retracted judges' hashes whose labels the version, or one that it descends from, was trained on; sorted."""
    known, found, seen = set(retracted), set[str](), set[str]()
    while version and version in manifests and version not in seen:
        seen.add(version)
        found |= {judge.hash for judge in manifests[version].judges} & known
        version = manifests[version].parent
    return sorted(found)


def _published(found: RegistryStatus, event: Event) -> None:
    found.versions.setdefault(event.version, VersionState(event.version, event.slot)).pruned = False


def _pruned(found: RegistryStatus, event: Event) -> None:
    found.versions[event.version].pruned = True


def _gated(found: RegistryStatus, event: Event) -> None:
    version = found.versions[event.version]
    version.gate = event
    if version.state in (State.CANDIDATE, State.REJECTED):
        version.state = State.CANDIDATE if event.detail.get("passed") else State.REJECTED


def _promoted(found: RegistryStatus, event: Event) -> None:
    stack = found.stack.setdefault(event.slot, [])
    if stack:
        found.versions[stack[-1]].state = State.RETIRED
    stack.append(event.version)
    found.versions[event.version].state = State.PROMOTED


def _rolled_back(found: RegistryStatus, event: Event) -> None:
    stack = found.stack.setdefault(event.slot, [])
    while stack and stack[-1] != event.version:
        found.versions[stack.pop()].state = State.RETIRED
    if stack:
        found.versions[stack[-1]].state = State.PROMOTED


def _retracted(found: RegistryStatus, event: Event) -> None:
    found.retracted[str(event.detail["judge"])] = event


def _restored(found: RegistryStatus, event: Event) -> None:
    found.retracted.pop(str(event.detail["judge"]), None)


_STEPS: dict[str, Callable[[RegistryStatus, Event], None]] = {
    ev.PUBLISHED: _published,
    ev.GATED: _gated,
    ev.PROMOTED: _promoted,
    ev.ROLLED_BACK: _rolled_back,
    ev.JUDGE_RETRACTED: _retracted,
    ev.JUDGE_RESTORED: _restored,
    ev.PRUNED: _pruned,
}

"""Who may be promoted, what a slot can go back to, and whose model nobody needs: questions to a standing. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from qrelay.errors import InputError, NotPromotable, UnknownVersion
from qrelay.models.registry.slots import collection_of, kind_of
from qrelay.models.registry.state import RegistryStatus, State, VersionState
from qrelay.nearest import did_you_mean

_DROPPABLE = (State.REJECTED, State.RETIRED)


def require_published(at: RegistryStatus, version: str) -> VersionState:
    """The version's state. Raises UnknownVersion where its publication was never finished."""
    if version not in at.versions:
        raise UnknownVersion(f"version {version} was never published: run its job again, which finishes it")
    return at.versions[version]


def require_model(at: RegistryStatus, version: str) -> None:
    """Raises NotPromotable where the version's model was dropped."""
    if require_published(at, version).pruned:
        raise NotPromotable(
            f"version {version} was pruned: its manifest is kept and its model is gone; train and publish it again"
        )


def require_passed(at: RegistryStatus, version: str, tainted_by: list[str]) -> None:
    """Raises NotPromotable: its model was dropped, it was trained on labels of retracted judges, or the gate has not
    passed it against the version that serves now."""
    require_model(at, version)
    if tainted_by:
        raise NotPromotable(f"version {version} was trained on labels of retracted judges: {', '.join(tainted_by)}")
    found = at.versions[version]
    serving = at.serving(found.slot)
    if not found.passed_against(serving):
        raise NotPromotable(_why_not(found, serving))


def require_read(at: RegistryStatus, version: str, read: int | None) -> None:
    """Raises InputError: the gate's latest verdict on the version is another than the one that was read. None: nobody
    says what was read."""
    gate = at.versions[version].gate
    if read is not None and gate is not None and gate.number != read:
        raise InputError(f"the gate has decided about {version} again: read its verdict, and decide anew")


def require_serving(at: RegistryStatus, slot: str, seen: str | None) -> None:
    """Raises InputError: another version serves in the slot than was seen to. None: nobody says what was seen."""
    if seen is not None and (stack := at.stack.get(slot)) and stack[-1] != seen:
        raise InputError(f"{stack[-1]} serves as {slot} by now: look at what it would go back to, and decide anew")


def rollback_target(at: RegistryStatus, slot: str, to: str | None) -> str:
    """The version that a slot goes back to; empty: none, so that the default slot's serves instead of a collection's
    own, and the configured model instead of the default one's. `to` None: the one before.

    Raises:
        NotPromotable: nothing is promoted in the slot, or `to` did not serve before.
    """
    stack = at.stack.get(slot) or []
    if not stack:
        raise NotPromotable(
            f"nothing is promoted as {slot}: {base_of(slot)} serves already."
            + did_you_mean(slot, [each for each in filter(at.stack.get, at.stack) if kind_of(each) == kind_of(slot)])
        )
    if to is None:
        return stack[-2] if len(stack) > 1 else ""
    if to and to not in stack[:-1]:
        before = ", ".join(stack[:-1]) or "only " + base_of(slot)
        raise NotPromotable(f"{slot} cannot go back to {to!r}: before {stack[-1]} served {before}")
    return to


def base_of(slot: str) -> str:
    """What serves where nothing is promoted in the slot, in words."""
    return "the default slot's model" if collection_of(slot) else "the configured model"


def droppable(at: RegistryStatus, keep: int) -> list[str]:
    """Rejected and retired versions that nobody can roll back to and whose model is here, but of each slot the
    `keep` latest of them, in the order of publication."""
    return [version for slot in at.slots for version in list(_unneeded(at, slot))[: -keep or None]]


def _unneeded(at: RegistryStatus, slot: str) -> Iterator[str]:
    for found in at.versions.values():
        needed = found.version in at.stack.get(slot, ())
        if found.slot == slot and not needed and not found.pruned and found.state in _DROPPABLE:
            yield found.version


def _why_not(found: VersionState, serving: str) -> str:
    version, against = found.version, serving or "the configured model"
    if found.gate is None:
        return (
            f"version {version} has not been through the gate against {against}: run `qrelay models gate {version}`"
        )
    if not found.gate.detail["passed"]:
        return f"the gate failed version {version}: {found.gate.detail.get('why', 'see `qrelay models show`')}"
    return (
        f"version {version} passed the gate against {found.gate.detail['against'] or 'the configured model'}, but"
        f" {against} serves now: run `qrelay models gate {version}` again"
    )

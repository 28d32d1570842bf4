"""Versions as plain data, for commands and clients."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from qrelay.errors import InputError
from qrelay.models.registry.events import Event
from qrelay.models.registry.manifest import Manifest
from qrelay.models.registry.registry import Registry
from qrelay.models.registry.slots import collection_of, kind_of, slot_of
from qrelay.models.registry.state import VersionState

_SHOWN_METRICS = 3


def moment(at_us: int) -> str:
    """Microseconds since 1970 UTC as ISO 8601."""
    return datetime.fromtimestamp(at_us / 1e6, UTC).isoformat(timespec="seconds")


def versions(registry: Registry, slot: str = "", collection: str | None = None) -> list[dict[str, Any]]:
    """A row a version, in the order of publication. `slot` empty: of every slot. `collection`: of its own slots and
    the default ones, and `serving` means that it serves this collection; None: that it serves its slot."""
    at, taints = registry.standing(), registry.taints()
    found = [each for each in at.versions.values() if slot in ("", each.slot)]
    if collection is not None:
        found = [each for each in found if collection_of(each.slot) in ("", collection)]
    asked = {
        each.slot: each.slot if collection is None else slot_of(kind_of(each.slot), collection) for each in found
    }
    return [
        row(registry.manifest(each.version), each, at.serving(asked[each.slot]), taints.get(each.version, []))
        for each in found
    ]


def row(manifest: Manifest, found: VersionState, serving: str, tainted_by: list[str]) -> dict[str, Any]:
    """One version in a line."""
    return {
        "version": found.version,
        "slot": found.slot,
        "state": found.state.value,
        "serving": found.version == serving,
        "pruned": found.pruned,
        "parent": manifest.parent,
        "base": manifest.base,
        "created": moment(manifest.created_us),
        "metrics": main_metrics(manifest, found.gate),
        "gate": verdict(found.gate),
        "tainted_by": tainted_by,
    }


def verdict(gate: Event | None) -> dict[str, Any] | None:
    """The gate's latest word in short; None where there is none."""
    if gate is None:
        return None
    detail = gate.detail
    return {"passed": detail["passed"], "against": detail["against"], "why": detail.get("why", ""),
            "at": moment(gate.at_us), "by": gate.by}  # fmt: skip


def main_metrics(manifest: Manifest, gate: Event | None) -> dict[str, float]:
    """The gate's figures of the version, first "better", by "metric on set"; where it measured none, up to three
    numbers of the training itself."""
    measured = {
        f"{each['metric']} on {each['set']}": float(each["candidate"])
        for each in gate_rows(gate)
        if each.get("candidate") is not None
    }
    if measured:
        return measured
    numbers = ((name, value) for name, value in manifest.metrics.items() if type(value) in (int, float))
    return {name: float(value) for name, value in sorted(numbers)[:_SHOWN_METRICS]}


def gate_rows(gate: Event | None) -> list[Mapping[str, Any]]:
    """The gate's report, a rule a row; see `qrelay/training/gate`."""
    rows = gate.detail.get("rows", []) if gate else []
    return [each for each in rows if isinstance(each, Mapping)] if isinstance(rows, list) else []


def event(found: Event) -> dict[str, Any]:
    """An event, whole."""
    return {"number": found.number, "at": moment(found.at_us), "kind": found.kind, "slot": found.slot,
            "version": found.version, "by": found.by, "detail": dict(found.detail)}  # fmt: skip


def full_version(registry: Registry, wanted: str) -> str:
    """The published version whose name begins so.

    Raises:
        UnknownVersion: there is none.
        InputError: several begin so.
    """
    known = registry.standing().versions
    found = [version for version in known if version.startswith(wanted)]
    if wanted in known or not wanted or not found:
        return wanted if wanted in known else registry.manifest(wanted or "(none)").version
    if len(found) > 1:
        raise InputError(f"{wanted!r} begins {len(found)} versions: {', '.join(found)}")
    return found[0]

"""Where a version comes from: version -> parents -> experiment -> data files -> exports -> judges, and with a ledger
at hand the judgments themselves.

    found = lineage(registry, version, side)      # side: the ledger, or None
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from qrelay.models.registry.describe import moment
from qrelay.models.registry.ledgerside import LedgerSide
from qrelay.models.registry.manifest import DataSource, Manifest
from qrelay.models.registry.registry import Registry

_KEPT = ("collection", "format", "rows", "queries", "sha256", "selection", "changes", "ledger", "rules", "grades",
         "missing", "overrides", "qualification", "judges")  # fmt: skip
"""What of an export's manifest a lineage shows."""


def ancestry(registry: Registry, version: str) -> list[Manifest]:
    """The version and those that it descends from, itself first. Raises UnknownVersion: the first is not there."""
    found, seen = [registry.manifest(version)], {version}
    while (parent := found[-1].parent) and parent not in seen:
        seen.add(parent)
        found.append(registry.manifest(parent))
    return found


def lineage(registry: Registry, version: str, side: LedgerSide | None) -> dict[str, Any]:
    """Everything as plain data. `chain`: a step a version, the version itself first; with a ledger each data file has
    `covered` and `counts`, see `LedgerSide`."""
    chain = [_step(registry, manifest, side) for manifest in ancestry(registry, version)]
    return {
        "version": version,
        "base": chain[-1]["base"],
        "ledger": side.where() if side else None,
        "tainted_by": registry.taints().get(version, []),
        "chain": chain,
    }


def judgments(registry: Registry, version: str, side: LedgerSide, query_id: str = "") -> Iterator[dict[str, Any]]:
    """The judgments behind a version and its parents, or those of one query, each with the `version` and the `data`
    file that it went into."""
    for manifest in ancestry(registry, version):
        for source in _of_a_ledger(manifest):
            for row in side.judgments(source, query_id):
                yield {**row, "version": manifest.version, "data": source.name}


def _step(registry: Registry, manifest: Manifest, side: LedgerSide | None) -> dict[str, Any]:
    found = registry.standing().versions.get(manifest.version)
    return {
        "version": manifest.version,
        "slot": manifest.slot,
        "state": found.state.value if found else "not published",
        "created": moment(manifest.created_us),
        "parent": manifest.parent,
        "base": manifest.base,
        "experiment": dict(manifest.experiment),
        "job": manifest.job,
        "judges": [{"hash": judge.hash, "model": judge.model, "revision": judge.revision,
                    "strategy": judge.strategy, "labels": judge.labels} for judge in manifest.judges],
        "data": [_data(source, side) for source in manifest.data],
    }  # fmt: skip


def _data(source: DataSource, side: LedgerSide | None) -> dict[str, Any]:
    export = {name: source.manifest[name] for name in _KEPT if name in source.manifest}
    found: dict[str, Any] = {"name": source.name, "sha256": source.sha256, "rows": source.rows, "export": export}
    if side is not None and "collection" in source.manifest:
        found |= {"covered": dict(side.covered(source)), "counts": dict(side.counts(source))}
    return found


def _of_a_ledger(manifest: Manifest) -> list[DataSource]:
    return [source for source in manifest.data if "collection" in source.manifest]


def printed(found: Mapping[str, Any]) -> list[str]:
    """The lineage as lines for people."""
    lines = []
    for depth, step in enumerate(found["chain"]):
        head = "" if depth == 0 else "made from "
        lines.append(f"{head}{step['version']} ({step['slot']}, {step['state']}, {step['created']})")
        lines.append(f"  experiment: {step['experiment'].get('name', 'not named')}; job: {step['job'] or 'none'}")
        for source in step["data"]:
            lines += _printed_data(source)
        if not step["data"]:
            lines.append("  data: none recorded")
    lines.append(f"base: {found['base']}")
    if found["ledger"] is None:
        lines.append("no ledger was found: give --ledger or --data-dir to go down to the judgments")
    if found["tainted_by"]:
        lines.append(f"TAINTED by {', '.join(found['tainted_by'])}")
    return lines


def _printed_data(source: Mapping[str, Any]) -> Iterator[str]:
    yield f"  data: {source['name']}, {source['rows']} rows, sha256 {source['sha256']}"
    export = source["export"]
    if export:
        yield f"    export: {export.get('format')} of {export.get('collection')}, sha256 {export.get('sha256')}"
    for judge in export.get("judges", ()):
        weights = f"{judge['model']}@{judge['revision']}"
        yield f"    judge: {judge['judge'][:12]} {judge['strategy']} {weights}, scale {judge['scale']}"
    if "counts" not in source:
        return
    covered, counts = source["covered"], source["counts"]
    known = covered["to"] is not None
    changes = (
        f"changes {covered['from']} to {covered['to']}" if known else "range not recorded; all that it holds now"
    )
    yield f"    ledger: {changes}: {counts['judgments']} judgments of {counts['queries']} queries"
    for judge, each in counts["judges"].items():
        words = ", ".join(f"{each[name]} {name}" for name in ("measurements", "graded", "missing", "counted"))
        yield f"      {judge[:12]}: {words}"

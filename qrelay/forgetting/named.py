"""What may hold a query and is not rewritten: exports, and versions of models that were trained on one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import sqlalchemy as sa

from qrelay.labels.ledger import forgetting
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.lineage.covered import covered
from qrelay.models.registry import Registry
from qrelay.models.registry.manifest import DataSource

_Changes = Sequence[tuple[int, int]]


def named(ledger: Ledger, collection: str, ids: Iterable[str], registry: Path) -> tuple[list[str], list[str]]:
    """Exports and model versions whose changes overlap those of one of the queries. More are named than hold one:
    a selection or a split may have left it out."""
    with ledger.snapshot() as snapshot:
        changes = forgetting.changes_of(snapshot.connection, collection, list(ids))
        exports = forgetting.exports_with(snapshot.connection, collection, changes)
        told = [f"{row.location} ({row.format}, sha256 {row.sha256[:12]})" for row in exports]
        return list(dict.fromkeys(told)), list(_versions(snapshot.connection, collection, changes, registry))


def _versions(connection: sa.Connection, collection: str, changes: _Changes, registry: Path) -> Iterator[str]:
    """Those trained on such data, and those that descend from them."""
    if not registry.is_dir() or not changes:
        return
    manifests, tainted = Registry(registry).manifests(), set[str]()
    for version, manifest in sorted(manifests.items(), key=lambda each: each[1].created_us):
        mine = any(_trained_on(connection, each, collection, changes) for each in manifest.data)
        if mine or manifest.parent in tainted:
            tainted.add(version)
            yield version


def _trained_on(connection: sa.Connection, source: DataSource, collection: str, changes: _Changes) -> bool:
    if source.manifest.get("collection") != collection:
        return False
    found = covered(connection, source.manifest, source.sha256)
    return forgetting.overlap(changes, found.from_change, found.to_change)

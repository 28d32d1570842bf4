"""The table `exports`: what was exported, so that the next increment knows where to go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.ledger import Ledger

_exports = schema.exports.c


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """One export that is in place: it holds what changes beyond `from_change` up to `to_change` touched."""

    export_no: int
    location: str
    from_change: int
    to_change: int
    sha256: str
    manifest: Mapping[str, Any]


def record(ledger: Ledger, manifest: Mapping[str, Any], location: str, from_change: int, to_change: int) -> None:
    """Notes an export whose files are in place.

    Raises:
        BackendUnavailable: the ledger is locked or its disk is full; the files stay.
    """
    row = {
        "collection": manifest["collection"],
        "format": manifest["format"],
        "location": location,
        "from_change": from_change,
        "to_change": to_change,
        "rows": manifest["rows"],
        "queries": manifest["queries"],
        "sha256": manifest["sha256"],
        "manifest": orjson.dumps(manifest).decode(),
        "exported_us": ledger.now_us(),
    }
    with ledger.writing("record an export, whose files are in place") as connection:
        connection.execute(schema.exports.insert(), row)


def last_export(
    ledger: Ledger, collection: str, kind: str, selection: Mapping[str, Any], rules: Mapping[str, Any] | None
) -> ExportRecord | None:
    """The latest export of the collection in this format with this selection and these rules, wherever it went; None
    where there is none. An increment can go on from it, and from no other."""
    asked = orjson.loads(orjson.dumps([selection, rules]))
    chosen = sa.select(
        _exports.export_no, _exports.location, _exports.from_change, _exports.to_change, _exports.sha256,
        _exports.manifest,
    ).where(_exports.collection == collection, _exports.format == kind)  # fmt: skip
    with ledger.snapshot() as snapshot:
        for row in snapshot.connection.execute(chosen.order_by(_exports.export_no.desc())):
            manifest = orjson.loads(row.manifest)
            if [manifest.get("selection"), manifest.get("rules")] == asked:
                return ExportRecord(*row[:5], manifest)
    return None

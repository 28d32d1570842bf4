"""The table `exports`: what was exported or published, so that the next increment knows where to go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson
import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.changes import hold
from qrelay.labels.ledger.ledger import Ledger

_exports = schema.exports.c
PUBLISHED: Final = "hf:"
"""How the location of what was published begins: before the repository's name."""
_RECORD: Final = (
    _exports.export_no, _exports.location, _exports.from_change, _exports.to_change, _exports.sha256,
    _exports.exported_us,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class ExportRecord:
    """One export that is in place: it holds what changes beyond `from_change` up to `to_change` touched."""

    export_no: int
    location: str
    from_change: int
    to_change: int
    sha256: str
    manifest: Mapping[str, Any]
    exported_us: int


def record(
    ledger: Ledger,
    manifest: Mapping[str, Any],
    location: str,
    from_change: int,
    to_change: int,
    *,
    once: bool = False,
) -> None:
    """Notes an export whose files are in place. `once`: only where none that reaches as far is noted of the place.

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
        if once:
            hold(connection, [manifest["collection"]])
            last = last_at(connection, manifest["collection"], location)
            if last and last.to_change >= to_change:
                return
        connection.execute(schema.exports.insert(), row)


def last_export(
    ledger: Ledger, collection: str, kind: str, selection: Mapping[str, Any], rules: Mapping[str, Any] | None
) -> ExportRecord | None:
    """The latest export of the collection in this format with this selection and these rules, to whatever file or
    folder; None where there is none. An increment can go on from it, and from no other."""
    asked = orjson.loads(orjson.dumps([selection, rules]))
    chosen = sa.select(*_RECORD, _exports.manifest).where(
        _exports.collection == collection, _exports.format == kind, sa.not_(_exports.location.startswith(PUBLISHED))
    )
    with ledger.snapshot() as snapshot:
        for row in snapshot.connection.execute(chosen.order_by(_exports.export_no.desc())):
            manifest = orjson.loads(row.manifest)
            if [manifest.get("selection"), manifest.get("rules")] == asked:
                return _of(row)
    return None


def _of(row: Any) -> ExportRecord:
    return ExportRecord(
        row.export_no, row.location, row.from_change, row.to_change, row.sha256, orjson.loads(row.manifest),
        row.exported_us,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Standing:
    """What a collection has that was not published. last: the record of its last publication; labels: judgments and
    people's decisions since; began_us: when the first query of it was committed, in microseconds UTC."""

    change_no: int
    last: ExportRecord | None
    labels: int
    began_us: int

    @property
    def published(self) -> int:
        """The last change that is published; 0: none."""
        return self.last.to_change if self.last else 0


def standing(connection: sa.Connection, collection: str, location: str) -> Standing | None:
    """How far the collection is published to `location`; None: the ledger holds no query of it."""
    held = schema.collections.c
    change_no = connection.execute(sa.select(held.change_no).where(held.collection == collection)).scalar()
    queries = schema.queries.c
    committed = sa.select(queries.committed_us).where(queries.collection == collection).order_by(queries.change_no)
    began_us = connection.execute(committed.limit(1)).scalar()
    if change_no is None or began_us is None:
        return None
    last = last_at(connection, collection, location)
    labels = _labels_since(connection, collection, last.to_change if last else 0)
    return Standing(int(change_no), last, labels, int(began_us))


def last_at(connection: sa.Connection, collection: str, location: str) -> ExportRecord | None:
    """The record of what reaches furthest at this place."""
    chosen = sa.select(*_RECORD, _exports.manifest).where(
        _exports.collection == collection, _exports.location == location
    )
    last_first = (_exports.to_change.desc(), _exports.export_no.desc())
    row = connection.execute(chosen.order_by(*last_first).limit(1)).one_or_none()
    return _of(row) if row else None


def _labels_since(connection: sa.Connection, collection: str, change_no: int) -> int:
    """Judgments and people's decisions of later changes."""
    queries, total = schema.queries.c, 0
    for table, count in (
        (schema.generations, sa.func.sum(schema.generations.c.judgments)),
        (schema.overrides, sa.func.count()),
    ):
        joined = schema.queries.join(table, table.c.query_no == queries.query_no)
        chosen = (
            sa.select(count)
            .select_from(joined)
            .where(queries.collection == collection, queries.change_no > change_no, table.c.change_no > change_no)
        )
        total += int(connection.execute(chosen).scalar() or 0)
    return total

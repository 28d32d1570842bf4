"""What a ledger holds, in figures, for `qrelay ledger info`."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.retention import table_bytes


def describe(ledger: Ledger) -> dict[str, Any]:
    """Version, bytes, rows by table, and the collections with their counts and last change. Counts every row."""
    sizes = table_bytes(ledger)
    with ledger.snapshot() as snapshot:
        rows = {
            name: int(snapshot.connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())
            for name, table in sorted(schema.metadata.tables.items())
        }
        collections = [
            {**asdict(stats), "change_no": snapshot.change_no(stats.collection)} for stats in snapshot.stats()
        ]
    return {
        "ledger": ledger.url,
        "schema_version": ledger.schema_version,
        "bytes": sum(sizes.values()),
        "bytes_by_part": sizes,
        "rows": rows,
        "collections": collections,
    }

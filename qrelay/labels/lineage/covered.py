"""Which changes of the ledger a file of training data was made of.

An increment's manifest names its changes. A whole export's does not, for its bytes do not depend on them; the
ledger's table `exports` has them by the file's sha256.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.precedence import HUMAN

_exports = schema.exports.c


@dataclass(frozen=True, slots=True)
class Covered:
    """Changes beyond `from_change` up to `to_change`; None: not known, and then all that the ledger holds now is
    meant. `judges`: hashes of those whose labels the export read, empty: of all; `people`: overrides were among the
    labels."""

    collection: str
    from_change: int
    to_change: int | None
    judges: frozenset[str]
    people: bool


def covered(connection: sa.Connection, manifest: Mapping[str, Any], sha256: str) -> Covered:
    """Of an export's manifest and the sha256 of the file that was trained on."""
    judges = manifest.get("judges", [])
    first, last = _changes(connection, manifest, sha256)
    return Covered(
        str(manifest["collection"]),
        first,
        last,
        frozenset(str(each["judge"]) for each in judges),
        any(each.get("strategy") == HUMAN for each in judges),
    )


def _changes(connection: sa.Connection, manifest: Mapping[str, Any], sha256: str) -> tuple[int, int | None]:
    if "changes" in manifest:
        return int(manifest["changes"]["from"]), int(manifest["changes"]["to"])
    hashes = [str(each) for each in (manifest.get("sha256"), sha256) if each]
    chosen = sa.select(_exports.from_change, _exports.to_change).where(
        _exports.collection == str(manifest["collection"]), _exports.sha256.in_(hashes)
    )
    row = connection.execute(chosen.order_by(_exports.export_no).limit(1)).one_or_none()
    return (int(row.from_change), int(row.to_change)) if row else (0, None)

"""Exports in a line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qrelay.labels.exports.export import Export, Progress, write_export
from qrelay.labels.exports.request import Request
from qrelay.labels.ledger.ledger import Ledger


def export_bytes(ledger: Ledger, collection: str, kind: str, **choices: Any) -> Iterator[bytes]:
    """The bytes of an export of one file; `choices` are fields of `Request`."""
    return Export(ledger, Request(collection, kind, **choices)).chunks()


def export_file(
    ledger: Ledger,
    collection: str,
    kind: str,
    path: Path,
    *,
    allow_empty: bool = True,
    on_progress: Progress | None = None,
    **choices: Any,
) -> dict[str, Any]:
    """The manifest of an export to a path; `choices` are fields of `Request`."""
    return write_export(ledger, Request(collection, kind, **choices), path, allow_empty, on_progress)

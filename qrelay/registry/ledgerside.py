"""What the registry asks the ledger, which the sink answers where it is installed: an entry point, no import.

The group `qrelay.ledgers` names a context manager `open_side(ledger, data_dir, config)` that yields a `LedgerSide`,
or None where there is no ledger.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Protocol

from qrelay.registry.manifest import DataSource

GROUP = "qrelay.ledgers"


class LedgerSide(Protocol):
    """One open ledger, as versions and their data see it."""

    def where(self) -> str:
        """The ledger's address, without a password."""

    def has_labels(self) -> bool:
        """Whether it holds a judgment of any collection."""

    def retract(self, judge: str, *, author: str, reason: str) -> Mapping[str, Any]:
        """Labels of the judge count no more. `judge`: the beginning of its hash. What that touched: `judge` (the
        whole hash), `changed`, `labels`, `queries`, `collections`. Raises InputError: no such judge, or several."""

    def restore(self, judge: str, *, author: str, reason: str) -> Mapping[str, Any]:
        """Undoes `retract`; the same."""

    def covered(self, source: DataSource) -> Mapping[str, Any]:
        """What of the ledger the data was made of: `collection`, `from`, `to` (changes; None: not known, so that all
        that the ledger holds now is meant) and `judges` (hashes; empty: all)."""

    def counts(self, source: DataSource) -> Mapping[str, Any]:
        """`queries`, `judgments`, and `judges`: hash -> measurements, graded, missing, counted."""

    def judgments(self, source: DataSource, query_id: str = "") -> Iterator[Mapping[str, Any]]:
        """Every judgment that the data's change range covers, or the query's, by query_id and passage_id."""


@contextmanager
def ledger_side(ledger: str | None, data_dir: Path, config: Path | None) -> Iterator[LedgerSide | None]:
    """The ledger that the options name; None where the sink is not installed, or there is no ledger.

    Raises:
        ConfigError: the ledger that was asked for by name is not there, or is none.
    """
    for point in entry_points(group=GROUP):
        with point.load()(ledger, data_dir, config) as side:
            yield side
        return
    yield None

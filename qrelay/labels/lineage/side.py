"""The ledger as the registry's commands and `qrelay judge check` see it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from qrelay.labels.ledger.ledger import Ledger
    from qrelay.labels.mining.rules import MiningRules
    from qrelay.models.registry.ledgerside import LedgerQuery
    from qrelay.models.registry.manifest import DataSource
    from qrelay.types import JudgedSet, JudgeIdentity


class SinkLedger:
    """One open ledger; `qrelay.models.registry.ledgerside.LedgerSide` says what each method answers."""

    def __init__(self, ledger: Ledger, rules: MiningRules) -> None:
        self._ledger = ledger
        self._rules = rules

    def where(self) -> str:
        """The ledger's address."""
        return self._ledger.url

    def has_labels(self) -> bool:
        """See `qrelay.models.registry.ledgerside.LedgerSide`."""
        with self._ledger.snapshot() as snapshot:
            return any(each.judgments for each in snapshot.stats())

    def collections(self) -> Sequence[str]:
        """Those with a query."""
        with self._ledger.snapshot() as snapshot:
            return [stats.collection for stats in snapshot.stats() if stats.queries]

    def retract(self, judge: str, *, author: str, reason: str) -> Mapping[str, Any]:
        """See `qrelay.labels.ledger.retractions`."""
        return self._decide(judge, True, author, reason)

    def restore(self, judge: str, *, author: str, reason: str) -> Mapping[str, Any]:
        """Likewise."""
        return self._decide(judge, False, author, reason)

    def covered(self, source: DataSource) -> Mapping[str, Any]:
        """See `covered.py`."""
        from qrelay.labels.lineage.covered import covered

        with self._ledger.snapshot() as snapshot:
            found = covered(snapshot.connection, source.manifest, source.sha256)
        return {"collection": found.collection, "from": found.from_change, "to": found.to_change,
                "judges": sorted(found.judges)}  # fmt: skip

    def counts(self, source: DataSource) -> Mapping[str, Any]:
        """See `trace.py`."""
        from qrelay.labels.lineage.covered import covered
        from qrelay.labels.lineage.trace import counts

        with self._ledger.snapshot() as snapshot:
            return counts(snapshot, covered(snapshot.connection, source.manifest, source.sha256))

    def judgments(self, source: DataSource, query_id: str = "") -> Iterator[Mapping[str, Any]]:
        """See `trace.py`; one snapshot for as long as it is read."""
        from qrelay.labels.lineage.covered import covered
        from qrelay.labels.lineage.trace import judgments

        with self._ledger.snapshot() as snapshot:
            yield from judgments(snapshot, covered(snapshot.connection, source.manifest, source.sha256), query_id)

    def judges(self) -> Mapping[str, JudgeIdentity]:
        """See `qrelay.labels.ledger.reader`."""
        with self._ledger.snapshot() as snapshot:
            return {row.judge_hash: row.identity for row in snapshot.judges().values() if row.judge_no >= 0}

    def labelled(self, collection: str, judge: str | None = None) -> Iterator[LedgerQuery]:
        """See `labelled.py`; one snapshot for as long as it is read."""
        from qrelay.labels.lineage.labelled import labelled

        with self._ledger.snapshot() as snapshot:
            yield from labelled(snapshot, collection, self._rules, judge)

    def judged_set(self, collection: str, query_id: str) -> JudgedSet | None:
        """See `qrelay.labels.ledger.reader`."""
        with self._ledger.snapshot() as snapshot:
            return snapshot.judged_set(collection, query_id)

    def _decide(self, judge: str, retract: bool, author: str, reason: str) -> Mapping[str, Any]:
        from qrelay.labels.ledger import retractions

        write = retractions.retract if retract else retractions.restore
        with self._ledger.writing("retract a judge" if retract else "restore a judge") as connection:
            found = write(connection, judge, author=author, reason=reason, now_us=self._ledger.now_us())
        return {"judge": found.judge_hash, "changed": found.changed, "labels": found.labels,
                "queries": found.queries, "collections": list(found.collections)}  # fmt: skip


@contextmanager
def open_side(ledger: str | None, data_dir: Path, config: Path | None) -> Iterator[SinkLedger | None]:
    """The ledger that the options name, or the sink's settings; None where nothing names one and the data folder has
    none."""
    from qrelay.labels.opening import ledger_place, open_ledger

    if ledger is None and ledger_place(data_dir, config) is None:
        yield None
        return
    with open_ledger(ledger, data_dir, config) as (opened, settings):
        yield SinkLedger(opened, settings.rules)

"""The sink's core: one ledger and the settings that decide what is exported from it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from qrelay.jobs.decisions import Decisions
from qrelay.jobs.publisher import Publisher
from qrelay.labels.exports.export import Export
from qrelay.labels.exports.request import Request
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.qualification import Report, read_report
from qrelay.labels.selection import select_sets
from qrelay.labels.settings import SinkSettings
from qrelay.labels.where import parse_where
from qrelay.runtime.stage import Info
from qrelay.types import JudgedSet


class News:
    """Told in the loop whenever queries may have ended; `coming` is set at the next time."""

    def __init__(self) -> None:
        self.coming = asyncio.Event()

    def tell(self) -> None:
        """Wakes all who wait."""
        told, self.coming = self.coming, asyncio.Event()
        told.set()


class Sink:
    """What gRPC and the queue both call. Commits, dead letters and counts are the ledger's own methods."""

    def __init__(self, ledger: Ledger, settings: SinkSettings, report: Report) -> None:
        """`report`: what was measured of the judges; see `qualification.py`."""
        self.ledger = ledger
        self.settings = settings
        self.news = News()
        self._report = report
        self.publisher = Publisher(ledger, settings) if settings.publish.enabled else None

    def export(self, collection: str, kind: str, judge: str | None = None, **choices: Any) -> Export:
        """An export not yet read; `choices` are further fields of `qrelay.labels.exports.request.Request`.

        Raises:
            InputError: the request cannot be.
        """
        settings = self.settings
        fields = {"rules": settings.rules, "limits": settings.round_limits, "report": self._report, **choices}
        return Export(self.ledger, Request(collection, kind, judge, **fields))

    def select(self, collection: str, where: str, after: str = "") -> Iterator[JudgedSet]:
        """The sets that `where` means, for judging again; see `selection.select_sets` and `where.py`."""
        return select_sets(self.ledger, collection, parse_where(where), self.settings.relevant_grades, after)

    def info(self) -> Info:
        """Where the ledger is, what makes a negative, and how publishing stands."""
        settings = self.settings
        return Info(
            details={
                "ledger": self.ledger.url,
                "schema_version": str(self.ledger.schema_version),
                "negative_threshold": str(settings.negative_threshold),
                "max_negatives": str(settings.max_negatives),
                "guard_ratio": str(settings.guard_ratio),
                "without_stage_scores": str(settings.without_stage_scores).lower(),
                "qualification": self._report.sha256[:12] or "none: nobody measured the judges",
                **(self.publisher.details() if self.publisher else {}),
            }
        )

    def close(self) -> None:
        """Closes the ledger."""
        self.ledger.close()


def load_sink(settings: SinkSettings) -> Sink:
    """Reads the report on the judges, and opens the ledger, creating it where there is none.

    Raises:
        ConfigError: not a ledger, of another schema version, or an unsupported database; a report that is none.
        BackendUnavailable: locked, or the disk refuses.
    """
    report = read_report(settings.qualification)
    decisions = Decisions(settings.training, settings.rules)
    ledger = Ledger.open(
        settings.ledger_url,
        busy_timeout_s=settings.busy_timeout_s,
        after_commit=decisions.after_commit if settings.training.enabled else None,
    )
    return Sink(ledger, settings, report)

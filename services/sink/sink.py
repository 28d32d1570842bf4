"""The sink's core: one ledger and the settings that decide what is exported from it."""

from __future__ import annotations

from qrelay.runtime.stage import Info
from services.sink.export import Export
from services.sink.ledger import Ledger
from services.sink.settings import SinkSettings


class Sink:
    """What both doors work on. Commits, dead letters and counts are the ledger's own methods."""

    def __init__(self, ledger: Ledger, settings: SinkSettings) -> None:
        self.ledger = ledger
        self.settings = settings

    def export(self, collection: str, kind: str, judge: str | None = None) -> Export:
        """An export not yet read; see `services.sink.export.Export`."""
        return Export(self.ledger, collection, kind, rules=self.settings.rules, judge=judge)

    def info(self) -> Info:
        """Where the ledger is and what makes a negative."""
        settings = self.settings
        return Info(
            details={
                "ledger": self.ledger.url,
                "schema_version": str(self.ledger.schema_version),
                "negative_threshold": str(settings.negative_threshold),
                "max_negatives": str(settings.max_negatives),
                "guard_ratio": str(settings.guard_ratio),
            }
        )

    def close(self) -> None:
        """Closes the ledger."""
        self.ledger.close()


def load_sink(settings: SinkSettings) -> Sink:
    """Opens the ledger, creating it where there is none.

    Raises:
        ConfigError: not a ledger, of another schema version, or an unsupported database.
        BackendUnavailable: locked, or the disk refuses.
    """
    return Sink(Ledger.open(settings.ledger_url, busy_timeout_s=settings.busy_timeout_s), settings)

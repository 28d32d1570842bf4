"""The ledger that a command's options and the installation's settings name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from qrelay.labels.ledger.ledger import Ledger
    from qrelay.labels.settings import SinkSettings


@contextmanager
def open_ledger(url: str | None, data_dir: Path, config: Path | None) -> Iterator[tuple[Ledger, SinkSettings]]:
    """The ledger and the sink's settings. `url`: a path or URL; None: the settings' ledger, or the one in `data_dir`.

    Raises:
        ConfigError: settings that do not hold; no ledger there, or of another version.
        BackendUnavailable: locked, or the database does not answer.
    """
    from qrelay.labels.ledger.ledger import Ledger
    from qrelay.labels.settings import SinkSettings
    from qrelay.settings import load_settings

    settings = load_settings(SinkSettings, "sink", file=config, data_dir=data_dir)
    ledger = Ledger.open(url or settings.ledger_url, busy_timeout_s=settings.busy_timeout_s, create=False)
    try:
        yield ledger, settings
    finally:
        ledger.close()


def require_collection(ledger: Ledger, collection: str) -> None:
    """Raises UnknownCollection: the ledger holds no query of it; the text names those that it holds."""
    with ledger.snapshot() as snapshot:
        snapshot.require_collection(collection)


def ledger_place(data_dir: Path, config: Path | None) -> str | None:
    """Where the settings have the ledger, or the one in `data_dir` if it is there; None where there is none."""
    from qrelay.labels.settings import SinkSettings
    from qrelay.settings import load_settings

    settings = load_settings(SinkSettings, "sink", file=config, data_dir=data_dir)
    return settings.ledger_url if settings.ledger or Path(settings.ledger_url).exists() else None

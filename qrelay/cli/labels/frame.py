"""What every command of the sink begins with: the ledger that the options name, how far reading it is, and the two
options that let labels teach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qrelay.cli.options import Decorator

if TYPE_CHECKING:
    from qrelay.labels.ledger.ledger import Ledger
    from qrelay.labels.settings import SinkSettings


def allowing_options(doing: str) -> Decorator:
    """--unmeasured and --unqualified, the same in every command that leads to training data. `doing`: what they let
    it do, the beginning of their help."""
    unmeasured = click.option(
        "--unmeasured",
        is_flag=True,
        help=f"{doing} of judges that nobody measured (`qrelay judge qualify`), at your own risk.",
    )
    unqualified = click.option(
        "--unqualified",
        is_flag=True,
        help=f"{doing} of judges that were measured and not found qualified, at your own risk.",
    )
    return lambda command: unmeasured(unqualified(command))


@contextmanager
def open_ledger(url: str | None, data_dir: Path, config: Path | None) -> Iterator[tuple[Ledger, SinkSettings]]:
    """The ledger and the sink's settings. `url`: a path or URL; None: the settings' ledger, or the one in `data_dir`.

    Raises:
        ConfigError: settings that do not hold; no ledger there, or of another version.
        BackendUnavailable: locked, or the database does not answer.
    """
    from qrelay.config import load_settings
    from qrelay.labels.ledger.ledger import Ledger
    from qrelay.labels.settings import SinkSettings

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
    from qrelay.config import load_settings
    from qrelay.labels.settings import SinkSettings

    settings = load_settings(SinkSettings, "sink", file=config, data_dir=data_dir)
    return settings.ledger_url if settings.ledger or Path(settings.ledger_url).exists() else None


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """How far reading the ledger is, on standard error: told (queries read, queries in all)."""
    from qrelay.progress import shown, step

    with shown(), step(doing, unit="queries") as running:
        yield lambda done, total: running.at(done, total=total)

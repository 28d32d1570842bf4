"""What every command of the sink begins with: the ledger that the options name, how far reading it is, and the two
options that allow labels to train."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from qrelay.cli.options import Decorator

if TYPE_CHECKING:
    pass


def allowing_options(doing: str) -> Decorator:
    """--unmeasured and --unqualified, the same in every command that leads to training data. `doing`: what they let
    it do, the beginning of their help."""
    unmeasured = click.option(
        "--unmeasured",
        is_flag=True,
        help=f"{doing} of judges that were not measured (`qrelay judge qualify`), at your own risk.",
    )
    unqualified = click.option(
        "--unqualified",
        is_flag=True,
        help=f"{doing} of judges that were measured and fell short, at your own risk.",
    )
    return lambda command: unmeasured(unqualified(command))


@contextmanager
def progress(doing: str) -> Iterator[Callable[[int, int], None]]:
    """How far reading the ledger is, on standard error: told (queries read, queries in all)."""
    from qrelay.progress import shown, step

    with shown(), step(doing, unit="queries") as running:
        yield lambda done, total: running.at(done, total=total)

"""The row in the ledger's audit log of what a command does to something else than the ledger."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import click

from qrelay.errors import QrelayError
from qrelay.labels.outcome import Told
from qrelay.settings.secrets import masked


@contextmanager
def audited_act(
    data_dir: Path, config: Path | None, act: str, subject: str, *, only_there: bool = False
) -> Iterator[Told]:
    """Around the act: its row in the audit log of the installation's ledger. One that cannot be opened stops no act,
    and is said on standard error; that there is none only where nothing else keeps the act (only_there)."""
    from qrelay.labels.opening import ledger_place, open_ledger

    told = Told()

    with ExitStack() as stack:
        try:
            if ledger_place(data_dir, config) is not None:
                from qrelay.labels.ledger.audit_log import audited

                ledger, _ = stack.enter_context(open_ledger(None, data_dir, config))
                told = stack.enter_context(audited(ledger, act, subject))
            elif only_there:
                click.echo(f"not in the audit log: there is no ledger in {data_dir}", err=True)
        except (QrelayError, ModuleNotFoundError) as error:
            click.echo(f"not in the audit log: {masked(str(error))}", err=True)
        yield told

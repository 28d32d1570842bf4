"""`qrelay nats`: the message broker's users, and the queues that one of them declares."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from pathlib import Path

import click
from filelock import FileLock, Timeout

from qrelay.cli.auditing import audited_act
from qrelay.cli.down import LOCK
from qrelay.cli.group import Group, example
from qrelay.cli.options import config_option, data_dir_option
from qrelay.errors import ConfigError
from qrelay.runtime.natsaccounts import CONFIG_NAME, User, accounts_of, write_accounts


@click.group(cls=Group, epilog=example("qrelay nats accounts"))
def nats() -> None:
    """Make NATS users that may do their own work alone, and declare the queues."""


@nats.command(epilog=example("qrelay nats accounts --out nats-accounts", "qrelay nats accounts --rotate judge"))
@click.option("--out", type=click.Path(path_type=Path, file_okay=False),
              help="Folder to write into.  [default: that of the server of `qrelay up`, in --data-dir]")  # fmt: skip
@click.option("--rotate", multiple=True, type=click.Choice([each.value for each in User]),
              help="Make a new seed for this user (repeatable).")  # fmt: skip
@data_dir_option()
@config_option()
def accounts(out: Path | None, rotate: tuple[str, ...], data_dir: Path, config: Path | None) -> None:
    """Write the server's accounts and one seed a user.

    Seeds that are there stay, so that the command can be run again, with a new version too. `accounts.conf` is for
    `include` in the server's configuration and holds public keys alone; `kustomization.yaml` makes Secrets of all.
    In the data folder, the next `qrelay up` takes them, and --rotate is refused while one runs. Then nothing connects
    to the queues without a seed.
    """
    own = accounts_of(data_dir.resolve())
    folder = out or own
    with contextlib.ExitStack() as held:
        if rotate:
            if folder.resolve() == own:
                held.enter_context(_not_running(data_dir.resolve()))
            held.enter_context(audited_act(data_dir, config, "rotate seeds", " ".join(rotate), only_there=True))
        write_accounts(folder, [User(name) for name in rotate])
    click.echo(f"{folder / CONFIG_NAME}: {len(User)} users; their seeds lie beside it, for their owner alone to read")
    if rotate:
        click.echo(f"new: {', '.join(rotate)}. Reload the server, then restart who uses them")


@contextlib.contextmanager
def _not_running(data_dir: Path) -> Iterator[None]:
    """While nothing runs from the folder. Raises ConfigError: `qrelay up` does."""
    data_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(data_dir / LOCK, timeout=0):
            yield
    except Timeout:
        raise ConfigError(
            f"`qrelay up` runs on {data_dir}, and the user that gets a new seed would be shut out and end it: run"
            " `qrelay down`, this again, then `qrelay up`"
        ) from None


@nats.command(epilog=example("qrelay nats declare --nats nats://nats:4222"))
@click.option("--nats", "url", help="NATS URL.  [default: the one in --data-dir, else the settings']")
@data_dir_option()
@config_option()
def declare(url: str | None, data_dir: Path, config: Path | None) -> None:
    """Create the queues, or bring them to the settings of section `all`.

    Where NATS has users (nats.nkey_seed), services do not, and wait until this is done: once for an installation, and
    after each change of nats.* or of the version. It changes no message.
    """
    from qrelay.client.feeding import nats_settings
    from qrelay.runtime.jetstream import JetStreamBroker
    from qrelay.runtime.natsclient import ATTEMPTS

    async def run() -> None:
        settings = nats_settings(url, data_dir, config)
        async with await JetStreamBroker.connect(settings, name="declare", attempts=ATTEMPTS, owner=True):
            pass

    asyncio.run(run())
    click.echo("the queues are declared")

"""`qrelay tokens`: the tokens by which people show services and the console who they are."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from qrelay.cli.auditing import audited_act
from qrelay.cli.group import Group, example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.config import Role
from qrelay.output import Rows, echo_json, show

_FILE = click.Path(path_type=Path, dir_okay=False)
_file_option = click.option("--file", "path", type=_FILE, required=True, help="The file that access.tokens names.")


@click.group(cls=Group, epilog=example("qrelay tokens add ana --role labeller --file tokens.yaml"))
def tokens() -> None:
    """Make, list and revoke people's tokens. The file holds hashes alone; services read it again when it changes."""


@tokens.command(epilog=example("qrelay tokens add ana --role labeller --role operator --days 30 --file tokens.yaml"))
@click.argument("name")
@click.option("--role", "roles", type=click.Choice([role.value for role in Role]), multiple=True, required=True,
              help="What the person may do; several times for more. Reading is part of every role.")  # fmt: skip
@click.option("--days", type=click.FloatRange(0, 3650, min_open=True), default=90.0, show_default=True,
              help="Until it expires.")  # fmt: skip
@_file_option
@data_dir_option()
@config_option()
@json_option()
def add(
    name: str, roles: tuple[str, ...], days: float, path: Path, data_dir: Path, config: Path | None, as_json: bool
) -> None:
    """Make a token for NAME and print it once: nobody can show it again. Earlier tokens of NAME stay valid.

    The ledger's audit log of --data-dir says who made it, where there is a ledger.
    """
    from qrelay.security.tokens import add as make

    with audited_act(data_dir, config, "add a token", f"{name}: {' '.join(roles)}", only_there=True):
        token, expires = make(path, name, [Role(each) for each in roles], days)
    if as_json:
        echo_json({"name": name, "roles": list(roles), "expires": expires.isoformat(), "token": token})
        return
    click.echo(f"{name} ({', '.join(roles)}) until {expires:%Y-%m-%d %H:%M} UTC; it is shown only now:", err=True)
    click.echo(token)


@tokens.command("list", epilog=example("qrelay tokens list --file tokens.yaml"))
@_file_option
@json_option()
def list_(path: Path, as_json: bool) -> None:
    """List whose tokens there are, with roles and expiry."""
    from qrelay.security.tokens import read

    found = read(path)
    if as_json:
        echo_json({"tokens": [each.model_dump(mode="json", exclude={"sha256", "key"}) for each in found]})
        return
    now = datetime.now(UTC)
    rows = [
        (each.name, " ".join(each.roles), f"{each.expires:%Y-%m-%d %H:%M}", "" if each.expires > now else "expired")
        for each in found
    ]
    show(Rows(("name", "roles", "expires (UTC)", "state"), rows))


@tokens.command(epilog=example("qrelay tokens revoke ana --file tokens.yaml"))
@click.argument("name")
@_file_option
@data_dir_option()
@config_option()
@json_option()
def revoke(name: str, path: Path, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Revoke every token of NAME: from its next call on, nobody knows them.

    The ledger's audit log of --data-dir says who revoked them, where there is a ledger.
    """
    from qrelay.security.tokens import revoke as take

    with audited_act(data_dir, config, "revoke tokens", name, only_there=True):
        count = take(path, name)
    if as_json:
        echo_json({"name": name, "revoked": count})
    else:
        click.echo(f"revoked {count} of {name}")

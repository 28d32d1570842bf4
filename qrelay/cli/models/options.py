"""What every command of the registry takes and says."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.errors import InputError
from qrelay.output import echo_json

if TYPE_CHECKING:
    from qrelay.models.registry.registry import Registry

_FOLDER = click.Path(path_type=Path, file_okay=False)
_REGISTRY = "Folder of the registry.  [default: the setting all.registry, else registry in --data-dir]"
_LEDGER = "Path or URL of the ledger.  [default: the sink's setting, else ledger.sqlite in --data-dir]"


class _Slot(click.ParamType[str]):
    """A slot's name."""

    name = "slot"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Fails where there cannot be such a slot, and says which there are."""
        from qrelay.models.registry.slots import require_slot

        try:
            require_slot(value)
        except InputError as error:
            self.fail(str(error), param, ctx)
        return value


SLOT = _Slot()


def registry_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--registry, --data-dir, --config and --json; `opened` reads the first three."""
    registry = click.option("--registry", "folder", type=_FOLDER, help=_REGISTRY)
    for option in (json_option(), config_option(), data_dir_option(), registry):
        command = option(command)
    return command


def ledger_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """--ledger."""
    return click.option("--ledger", help=_LEDGER)(command)


def author_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--by and --reason, for the history."""
    by = click.option("--by", default=None, help="Who decides.  [default: the name of the user]")
    return by(click.option("--reason", default="", help="Reason, for people.")(command))


def opened(folder: Path | None, data_dir: Path, config: Path | None) -> Registry:
    """The registry that the options name."""
    from qrelay.models.registry.place import open_registry

    return open_registry(folder, data_dir, config)


def author(by: str | None) -> str:
    """Who decides: what was given, else the name of the user who runs this."""
    try:
        return by or getpass.getuser()
    except (KeyError, OSError) as error:  # a process without a user's name
        raise click.UsageError("name who decides with --by: this user has no name") from error


def say(found: Mapping[str, Any], text: str, as_json: bool) -> None:
    """One JSON object, or the text for people."""
    if as_json:
        echo_json(found)
    else:
        click.echo(text)

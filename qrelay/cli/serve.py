"""`qrelay serve SERVICE`: one service alone, in this process."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option
from qrelay.errors import ConfigError
from qrelay.runtime.stage import ServiceDef


def installed_services() -> list[str]:
    """Names of the services that are installed here."""
    return sorted(point.name for point in entry_points(group="qrelay.services"))


def load_definition(name: str) -> ServiceDef[Any, Any]:
    """The service's definition, imported now.

    Raises:
        ConfigError: its libraries are not installed; the text says which extra brings them.
    """
    for point in entry_points(group="qrelay.services", name=name):
        try:
            definition: ServiceDef[Any, Any] = point.load()
        except ImportError as error:
            raise ConfigError(f"{name} cannot start: {error}; pip install 'qrelay[{name}]'") from error
        return definition
    raise ConfigError(f"no service {name!r}; installed: {', '.join(installed_services())}")


@click.command(epilog=example("qrelay serve judge --config qrelay.yaml"))
@click.argument("service", type=click.Choice(installed_services()))
@config_option()
def serve(service: str, config: Path | None) -> None:
    """Run one SERVICE in the foreground until SIGTERM."""
    from qrelay.runtime.service import main

    sys.exit(main(load_definition(service), config))

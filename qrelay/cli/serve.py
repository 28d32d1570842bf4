"""`qrelay serve SERVICE`: one service alone, in this process."""

from __future__ import annotations

import gc
import importlib
import sys
from pathlib import Path
from typing import Any

import click

from qrelay.cli.group import example
from qrelay.cli.offline import stay_offline
from qrelay.cli.options import config_option, insecure_option
from qrelay.errors import ConfigError
from qrelay.runtime.stage import ServiceDef
from qrelay.settings.sections import SERVICES


def load_definition(name: str) -> ServiceDef[Any, Any]:
    """The service's definition, imported now. `name`: one of SERVICES.

    Raises:
        ConfigError: its libraries are not installed; the text says which extra brings them.
    """
    try:
        definition: ServiceDef[Any, Any] = importlib.import_module(f"qrelay.services.{name}.service").SERVICE
    except ImportError as error:
        raise ConfigError(f"{name} cannot start: {error}; pip install 'qrelay[{name}]'") from error
    return definition


@click.command(epilog=example("qrelay serve judge --config qrelay.yaml"))
@click.argument("service", type=click.Choice(SERVICES))
@config_option()
@insecure_option()
def serve(service: str, config: Path | None) -> None:
    """Run one SERVICE in the foreground until SIGTERM."""
    stay_offline(publishes=service == "sink")
    gc.disable()  # nothing that is imported is garbage, and looking for some takes a tenth of the start
    from qrelay.runtime.service import main

    definition = load_definition(service)
    gc.freeze()
    gc.enable()
    sys.exit(main(definition, config))

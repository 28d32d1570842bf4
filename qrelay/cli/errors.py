"""Where a command's error is printed: the whole text on standard error, and an exit code of the table."""

from __future__ import annotations

import sys
from typing import NoReturn

import click

from qrelay.errors import QrelayError, SetupError
from qrelay.exitcodes import EXIT_FAILED, EXIT_SETUP
from qrelay.settings.secrets import masked


def run(command: click.Command) -> None:
    """Run the command of this process's arguments. What qrelay raises on purpose has no traceback; a bug has."""
    try:
        command()
    except QrelayError as error:
        _end(masked(str(error)), EXIT_SETUP if isinstance(error, SetupError) else EXIT_FAILED)


def _end(text: str, code: int) -> NoReturn:
    click.secho(f"error: {text}", fg="red", err=True)
    sys.exit(code)

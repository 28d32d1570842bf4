"""Where a command's error is printed: the whole text on standard error, and an exit code of the table."""

from __future__ import annotations

import sqlite3
import sys
from typing import NoReturn

import click

from qrelay.errors import AccessError, QrelayError, SetupError
from qrelay.exitcodes import EXIT_DENIED, EXIT_FAILED, EXIT_SETUP
from qrelay.files import disk_refusal


def run(command: click.Command) -> None:
    """Run the command of this process's arguments. What qrelay raises on purpose, and what a disk refuses, has no
    traceback; a bug has."""
    try:
        command()
    except QrelayError as error:
        _end(error)
    except (OSError, sqlite3.Error) as error:
        if refusal := disk_refusal(error):
            _end(refusal)
        raise


def exit_code(error: QrelayError) -> int:
    """Of a command that ends with this error."""
    if isinstance(error, AccessError):
        return EXIT_DENIED
    return EXIT_SETUP if isinstance(error, SetupError) else EXIT_FAILED


def _end(error: QrelayError) -> NoReturn:
    from qrelay.settings.secrets import masked

    click.secho(f"error: {masked(str(error))}", fg="red", err=True)
    sys.exit(exit_code(error))

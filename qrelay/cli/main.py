"""`qrelay`: one command for people and scripts.

Commands load when they are called, so `qrelay --help` needs no model library. Commands of a service
(`index`, `judge`, `export`) come from that service's package through the entry point group
`qrelay.commands` and appear where it is installed.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 finished, but some items were rejected or dead-lettered;
4 finished, and a condition of --fail-on holds; 78 the installation is wrong (settings, model, index, port).
"""

from __future__ import annotations

import importlib
import sys
from importlib.metadata import entry_points

import click

from qrelay import __version__
from qrelay.errors import QrelayError, SetupError
from qrelay.runtime.exitcodes import EXIT_FAILED, EXIT_SETUP

_OWN = {
    "up": "qrelay.cli.up:up",
    "down": "qrelay.cli.down:down",
    "serve": "qrelay.cli.serve:serve",
    "feed": "qrelay.cli.feed:feed",
    "top": "qrelay.cli.top:top",
    "dlq": "qrelay.cli.dlq:dlq",
    "config": "qrelay.cli.config:config",
    "healthcheck": "qrelay.cli.healthcheck:healthcheck",
    "models": "qrelay.models.cli:models",
    "bench": "qrelay.bench.commands.group:bench",
}


class Commands(click.Group):
    """qrelay's own commands and those that installed services bring."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Names, sorted."""
        return sorted({*_OWN, *(point.name for point in entry_points(group="qrelay.commands"))})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        if cmd_name in _OWN:
            module, _, name = _OWN[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        for point in entry_points(group="qrelay.commands", name=cmd_name):
            loaded: click.Command = point.load()
            return loaded
        return None


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="qrelay")
def qrelay() -> None:
    """Queries in, relevance judgments and training data out."""


def main() -> None:
    """Entry point: errors of qrelay's own become one line and an exit code."""
    try:
        qrelay()
    except QrelayError as error:
        click.secho(f"error: {error}", fg="red", err=True)
        sys.exit(EXIT_SETUP if isinstance(error, SetupError) else EXIT_FAILED)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in ("qrelay", "services", "trainer"):
            raise  # a bug of ours, not a library that this installation does without
        click.secho(
            f"error: this command needs the package {error.name}, which is not installed here: an image or a virtual "
            "environment of one service has only that service's; pip install 'qrelay[local]' brings all",
            fg="red",
            err=True,
        )
        sys.exit(EXIT_SETUP)


if __name__ == "__main__":
    main()

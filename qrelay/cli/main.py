"""`qrelay`: one command for people and scripts.

Commands load when they are called, so `qrelay --help` needs no model library. Commands of a service
(`index`, `judge`, `export`) come from that service's package through the entry point group
`qrelay.commands` and appear where it is installed.

Exit codes are those of `qrelay/exitcodes.py`.
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points

import click

from qrelay import __version__
from qrelay.cli.errors import run
from qrelay.cli.group import Group
from qrelay.exitcodes import MEANINGS

_OWN = {
    "up": "qrelay.cli.up:up",
    "down": "qrelay.cli.down:down",
    "serve": "qrelay.cli.serve:serve",
    "feed": "qrelay.cli.feed:feed",
    "top": "qrelay.cli.top:top",
    "dlq": "qrelay.cli.dlq:dlq",
    "config": "qrelay.cli.config:config",
    "healthcheck": "qrelay.cli.healthcheck:healthcheck",
    "models": "qrelay.cli.models.group:models",
    "bench": "qrelay.cli.bench.group:bench",
}


class Commands(Group):
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


_EPILOG = "\n".join([
    "\b",
    "Example:",
    "  qrelay up --detach",
    "  qrelay feed queries.jsonl --collection docs --wait",
    "",
    "\b",
    "Exit codes:",
    *(f"  {code:>3}  {meaning}" for code, meaning in MEANINGS.items()),
    "",
    "Shell completion, --json and the rest of what all commands share: docs/cli.md.",
])  # fmt: skip


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(__version__, prog_name="qrelay")
def qrelay() -> None:
    """Queries in, relevance judgments and training data out."""


def main() -> None:
    """Entry point."""
    run(qrelay)


if __name__ == "__main__":
    main()

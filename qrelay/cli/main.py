"""`qrelay`: one command for people and scripts.

Commands load when they are called, so `qrelay --help` needs no model library; one whose libraries are not installed
says which extra brings them.

Exit codes are those of `qrelay/exitcodes.py`.
"""

from __future__ import annotations

from typing import Any, Final

import click

from qrelay import __version__
from qrelay.cli.errors import run
from qrelay.cli.group import Group
from qrelay.errors import ConfigError
from qrelay.exitcodes import MEANINGS

_COMMANDS: Final = {
    "audit": "qrelay.cli.labels.audit:audit",
    "bench": "qrelay.cli.bench.group:bench",
    "certs": "qrelay.cli.certs:certs",
    "config": "qrelay.cli.config:config",
    "console": "qrelay.cli.console:console",
    "demo": "qrelay.cli.demo:demo",
    "dlq": "qrelay.cli.dlq:dlq",
    "down": "qrelay.cli.down:down",
    "eval": "qrelay.cli.eval.group:evaluate_command",
    "export": "qrelay.cli.labels.export:export",
    "feed": "qrelay.cli.feed:feed",
    "forget": "qrelay.cli.labels.forget:forget",
    "healthcheck": "qrelay.cli.healthcheck:healthcheck",
    "index": "qrelay.cli.index.group:index",
    "judge": "qrelay.cli.judge.group:judge",
    "label": "qrelay.cli.labels.label:label",
    "ledger": "qrelay.cli.labels.ledger:ledger",
    "mcp": "qrelay.cli.mcp:mcp",
    "mine": "qrelay.cli.labels.mine:mine",
    "models": "qrelay.cli.models.group:models",
    "nats": "qrelay.cli.nats:nats",
    "publish": "qrelay.cli.labels.publish:publish",
    "push": "qrelay.cli.labels.push:push",
    "queries": "qrelay.cli.queries:queries",
    "reconcile": "qrelay.cli.labels.reconcile:reconcile",
    "relabel": "qrelay.cli.relabel:relabel",
    "rounds": "qrelay.cli.rounds:rounds",
    "serve": "qrelay.cli.serve:serve",
    "tokens": "qrelay.cli.tokens:tokens",
    "top": "qrelay.cli.top:top",
    "track": "qrelay.cli.track:track",
    "train": "qrelay.cli.train:train_command",
    "training": "qrelay.cli.labels.training:training",
    "up": "qrelay.cli.up:up",
}
_EXTRAS: Final = {
    **dict.fromkeys(
        ("audit", "export", "forget", "label", "ledger", "mine", "publish", "push", "reconcile", "training"), "sink"
    ),
    **dict.fromkeys(("eval", "train", "rounds"), "trainer"),
    **dict.fromkeys(("feed", "index"), "retriever"),
    "certs": "certs",
    "demo": "label",
    "judge": "judge",
    "queries": "judge",
    "bench": "bench",
    **dict.fromkeys(("console", "mcp"), "console"),
}
"""Command -> the extra whose libraries it needs, where it needs any."""

_REPORTS: Final = ("jinja2", "krippendorff", "matplotlib", "sklearn")
"""Packages of the extra `measure`, which a command needs for its report alone."""


class Commands(Group):
    """The commands of the table."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command. Raises ConfigError: a library that it needs is not installed."""
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "qrelay":
                raise  # a bug of ours, not a library that this installation does without
            package = (error.name or "").partition(".")[0]
            extra = "measure" if package in _REPORTS else _EXTRAS.get(ctx.invoked_subcommand or "", "local")
            raise ConfigError(
                f"this command needs the package {package}, which is not installed here: an image or a virtual "
                f"environment of one service has only that service's; pip install 'qrelay[{extra}]' brings it"
            ) from error


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
    "What all commands share (--json, progress, shell completion): docs/cli.md.",
])  # fmt: skip


@click.command(cls=Commands, lazy=_COMMANDS, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EPILOG)
@click.version_option(__version__, prog_name="qrelay")
def qrelay() -> None:
    """Queries in, relevance judgments and training data out."""


def main() -> None:
    """Entry point."""
    run(qrelay)


if __name__ == "__main__":
    main()

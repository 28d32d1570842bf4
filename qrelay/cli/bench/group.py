"""`qrelay bench`: what each service can do, and the whole pipeline."""

from __future__ import annotations

import importlib
import signal
import sys
import threading
from typing import Final

import click

from qrelay.cli.group import Group, example
from qrelay.exitcodes import EXIT_TERMINATED

_COMMANDS: Final = {
    "pipeline": "qrelay.cli.bench.pipeline:pipeline",
    "compare": "qrelay.cli.bench.compare:compare",
    "sizing": "qrelay.cli.bench.sizing:sizing",
    "record": "qrelay.cli.bench.record:record",
}


class BenchCommands(Group):
    """One command a service, and those of _COMMANDS; each loads when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The services, the pipeline, then what works on reports and records."""
        from qrelay.cli.bench.single import COMMANDS

        return [*COMMANDS, *_COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """The command, imported now."""
        from qrelay.cli.bench.single import COMMANDS

        if cmd_name in _COMMANDS:
            module, _, name = _COMMANDS[cmd_name].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        return COMMANDS.get(cmd_name)


@click.command(cls=BenchCommands, epilog=example("qrelay bench pipeline --service-time 20ms --quick"))
def bench() -> None:
    """Measure services and the pipeline: throughput, latency under load, and what they use.

    A closed loop (a fixed number of requests outstanding) finds the highest throughput; an open loop (arrivals at
    random, at a fixed rate) shows how long callers wait. Reports go into a folder: JSON, a table, diagrams.
    """
    if threading.current_thread() is threading.main_thread():
        # What was started here must end with this process, also where a job's time limit ends it.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))

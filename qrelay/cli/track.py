"""`qrelay track`: training runs, evaluations and the registry, in an experiment tracker."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import click

from qrelay.cli.group import example
from qrelay.integrations import TrackerName


@click.command(epilog=example("qrelay track run report.json .qrelay/registry --to mlflow"))
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--to", "names", multiple=True, required=True, type=click.Choice(get_args(TrackerName)), help="The tracker."
)
def track(paths: Sequence[Path], names: Sequence[str]) -> None:
    """Log PATHS to a tracker: runs of `qrelay train`, files of `qrelay eval --json-file`, a registry with all its
    versions. What is there already is brought up to date. MLFLOW_… and WANDB_… variables say where it goes.
    """
    from qrelay.integrations.tracking import records, tracker

    found = [record for path in paths for record in records(path)]
    for name in names:
        log = tracker(name).log
        for record in found:
            log(record)
            click.echo(f"{name}: {record.kind} {record.name}")

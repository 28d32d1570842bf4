"""`qrelay bench compare A B`: two runs of one service, as ratios with intervals."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console

from qrelay.cli.group import example
from qrelay.cli.options import json_option
from qrelay.output import echo_json

_REPORT = click.Path(path_type=Path, exists=True)


@click.command(epilog=example("qrelay bench compare before/report.json after/report.json"))
@click.argument("a", type=_REPORT)
@click.argument("b", type=_REPORT)
@json_option()
def compare(a: Path, b: Path, as_json: bool) -> None:
    """Compare B with A, at each load that both measured: report.json files, or the folders of two runs.

    Settings and machines that differ are listed: a ratio then compares those too.
    """
    from qrelay.bench import compare as comparing
    from qrelay.bench.report import read
    from qrelay.bench.table import show_grid

    found = comparing.compare(read(a), read(b))
    if as_json:
        echo_json(found.as_dict())
        return
    console = Console()
    show_grid(comparing.grid(found), console)
    for remark in comparing.remarks(found):
        console.print(f"- {remark}", highlight=False, markup=False)

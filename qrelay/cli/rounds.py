"""`qrelay rounds`: the loop from queries to better models, as often as asked or until it no longer helps."""

from __future__ import annotations

import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qrelay.cli.group import example
from qrelay.cli.labels.frame import allowing_options
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.output import echo_json, show

if TYPE_CHECKING:
    from qrelay.training.rounds.rounds import Rounds
    from qrelay.training.rounds.state import Series


@click.command(epilog=example("qrelay rounds --n 2 --queries queries.jsonl --collection docs --dry-run"))
@click.option("--n", type=click.IntRange(1), default=2, show_default=True, help="Rounds in all.")
@click.option("--queries", type=click.Path(path_type=Path, dir_okay=False, exists=True), required=True,
              help="Queries to feed (JSONL, TSV or plain lines, .gz too).")  # fmt: skip
@click.option("--collection", required=True, help="The corpus that the queries are asked of.")
@click.option("--restart", is_flag=True, help="Begin a new series; models, labels and the old series stay.")
@click.option("--dry-run", is_flag=True, help="Show the plan and the maximum number of judgments, and exit.")
@allowing_options("Train on labels")
@data_dir_option()
@config_option()
@json_option()
def rounds(n: int, queries: Path, collection: str, restart: bool, dry_run: bool, unmeasured: bool, unqualified: bool,
           data_dir: Path, config: Path | None, as_json: bool) -> None:  # fmt: skip
    """Feed, judge, train, gate, promote, swap; N times, or until nothing passes the gate.

    Uses the services that run in --data-dir, or starts and stops `qrelay up`. What is done is in
    <data-dir>/rounds/<collection>/rounds.json: run the same command again after a failure, and it resumes.
    Labels of judges that were not measured, or fell short, are not trained on without a flag.
    """
    from rich.console import Console

    from qrelay.cli.collection import check_collection
    from qrelay.labels.permission import Allowed
    from qrelay.training.job.data import require_permitted
    from qrelay.training.rounds.installation import Installation
    from qrelay.training.rounds.plan import plan
    from qrelay.training.rounds.rounds import Rounds
    from qrelay.training.settings import require_followed, trainer_settings

    check_collection(collection, data_dir, config)
    data_dir, config = data_dir.resolve(), config and config.resolve()
    console = Console(stderr=True)
    loop = Rounds(
        Installation(data_dir, config), collection, queries.resolve(), trainer_settings(config, data_dir),
        lambda text: console.print(text, highlight=False, markup=False), Allowed(unmeasured, unqualified),
    )  # fmt: skip
    require_followed(loop.settings, config, data_dir)
    if dry_run:
        lines = list(plan(loop, n, config))
        if as_json:
            echo_json({"plan": lines})
        else:
            click.echo("\n".join(lines))
        return
    require_permitted(loop.job("asked"), loop.settings, config)
    if restart:
        loop.file.restart()
    _run(loop, n, as_json)


def _run(loop: Rounds, n: int, as_json: bool) -> None:
    from qrelay.errors import BackendUnavailable
    from qrelay.files import held
    from qrelay.training.rounds.table import rounds_table

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # services that we started are stopped as by Ctrl-C
    loop.file.path.parent.mkdir(parents=True, exist_ok=True)
    busy = BackendUnavailable(f"another `qrelay rounds` works on {loop.collection}: wait for it to end")
    with held(loop.file.path.with_name("working"), busy):
        series = _loop(loop, n)
    if as_json:
        echo_json(asdict(series))
        return
    show(rounds_table(series))
    if series.stopped:
        click.echo(f"stopped: {series.stopped}; feed other queries, or see docs/loop.md")


def _loop(loop: Rounds, n: int) -> Series:
    series = loop.file.read()
    if series.done >= n or series.stopped:
        return series
    with loop.installation.running():
        return loop.run(n)

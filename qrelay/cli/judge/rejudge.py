"""`qrelay judge rejudge`: labels of the ledger judged again by the configured judge."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.output import echo_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qrelay.judging.rejudge import Rejudged
    from qrelay.types import JudgedSet

_SHOWN_FAILURES = 10


@click.command("rejudge", epilog=example("qrelay judge rejudge --collection docs --where 'entropy>1.0' --dry-run"))
@click.option("--collection", required=True, help="The collection whose labels are judged again.")
@click.option(
    "--where",
    default="",
    help='Which labels: terms joined by "and", like "entropy>1.0 and relevant" (see the sink\'s README); empty: all.',
)
@click.option(
    "--pairs",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Only the pairs of this TSV (columns of annotated pairs; grades are not read), as `qrelay audit sample` and "
    "`qrelay judge slice` write it.",
)
@click.option("--after", default="", metavar="QUERY_ID", help="Resume after this query, as a stopped run says.")
@click.option("--batch", default=8, show_default=True, type=click.IntRange(1), help="Queries judged at once.")
@click.option("--sink", "sink", help="host:port of the sink.  [default: in --data-dir]")
@click.option("--dry-run", is_flag=True, help="Count what would be judged, and judge nothing.")
@data_dir_option()
@config_option()
@json_option()
def rejudge(
    collection: str, where: str, pairs: Path | None, after: str, batch: int, sink: str | None, dry_run: bool,
    data_dir: Path, config: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Judge labels of the ledger again, and add the new ones beside them as the next generation.

    No label is changed or lost. What this judge labelled before comes from the cache or is in the ledger already.
    Exit code 3: a budget ended it early, or some sets were not taken.
    """
    from qrelay.cli.judge import clients
    from qrelay.formats.annotated_pairs import read_annotated_pairs
    from qrelay.judging.rejudge import count
    from qrelay.rundir import require

    address = sink or require(data_dir, "sink").grpc
    if pairs:
        wanted = [(each.query_id, each.passage_id) for each in read_annotated_pairs(pairs, ungraded=True)]
        sets = clients.judged_pairs(data_dir, address, collection, wanted, where, after)
    else:
        sets = clients.judged_sets(data_dir, address, collection, where, after)
    done = count(sets) if dry_run else asyncio.run(_run(config, data_dir, sets, address, batch))
    if as_json:
        echo_json({**asdict(done), "dry_run": dry_run})
    else:
        _print(done, dry_run)
    if done.stopped or done.failed:
        raise SystemExit(EXIT_PARTIAL)


async def _run(config: Path | None, data_dir: Path, sets: Iterator[JudgedSet], sink: str, batch: int) -> Rejudged:
    from qrelay.cli.judge.clients import Ledger
    from qrelay.judging.load import load_serving
    from qrelay.judging.rejudge import rejudge
    from qrelay.judging.settings import JudgeSettings
    from qrelay.progress import shown, step
    from qrelay.settings import load_settings

    with shown():
        with step("loading the judge"):
            settings = load_settings(JudgeSettings, "judge", file=config, data_dir=data_dir)
            core = await asyncio.to_thread(load_serving, settings)
        try:
            with step("judging again", unit="queries") as judging:

                def show(done: Rejudged) -> None:
                    judging.at(done.sets)

                async with Ledger(data_dir, sink) as ledger:
                    return await rejudge(core, sets, ledger.send, batch=batch, progress=show)
        finally:
            core.close()


def _print(done: Rejudged, dry_run: bool) -> None:
    if dry_run:
        click.echo(f"{done.pairs} pairs of {done.sets} queries would be judged again")
        return
    click.echo(
        f"{done.pairs} pairs of {done.sets} queries judged again: {done.graded} labels ({done.cached} from the "
        f"cache), {done.missing} missing; {done.added} are new in the ledger"
    )
    for judge_hash, judge in done.judges.items():
        click.echo(f"judge {judge_hash[:12]} ({judge})")
    for query_id, error in done.failed[:_SHOWN_FAILURES]:
        click.echo(f"not taken: {query_id}: {error}", err=True)
    if done.stopped:
        click.echo(
            f"stopped: {done.stopped}; continue with --after {done.last_query_id or '(nothing done yet)'}", err=True
        )

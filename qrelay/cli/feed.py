"""`qrelay feed`: queries, or what engines returned for them, from a file or standard input onto the stream,
acknowledged and remembered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import click
from rich.console import Console

from qrelay.cli.collection import check_collection
from qrelay.cli.group import example
from qrelay.cli.options import column_option, config_option, data_dir_option, json_option
from qrelay.cli.pools import CANDIDATES, PoolOptions, open_pools, pool_options
from qrelay.client.feeding import nats_settings
from qrelay.client.patience import Patience
from qrelay.client.places import Places
from qrelay.client.waiting import ATTEMPTS, Ended, waiting
from qrelay.config import NatsSettings, Transport
from qrelay.errors import InputError, TransientError
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.feed.feeder import FeedReport
from qrelay.feed.publish import publish
from qrelay.feed.source import open_records
from qrelay.formats.datasets import QUERIES, QUESTIONS, Columns, is_dataset
from qrelay.formats.queries import Format, query_of
from qrelay.identity import require_collection
from qrelay.output import echo_json
from qrelay.progress import Progress, Step, plainly, shown, step, tell
from qrelay.rundir import require
from qrelay.runtime.client import get_info
from qrelay.types import MAX_ROUND

_INFO_S = 5.0
_STATES_S = 30.0
_AGAIN = (
    "or give --sink the right address, and run the same command again: it feeds nothing twice and continues waiting"
)
_SHOWN_REJECTIONS = 20
_QUERIES, _SETS = 256, 16
"""Queries, and candidate sets, that are published side by side."""


class _Source(click.Path):
    """A file, or the name of a dataset."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return Path(value) if is_dataset(str(value)) else super().convert(value, param, ctx)


@click.command(
    epilog=example(
        "qrelay feed queries.jsonl --collection docs --wait",
        "qrelay feed hf:owner/name:validation --collection docs --column query_id=qid --column text=question",
        "qrelay feed queries.jsonl --collection docs --run runs --corpus beir --depth 10",
    )
)
@click.argument("file", type=_Source(path_type=Path, dir_okay=False, exists=True, allow_dash=True), default="-")
@click.option("--collection", required=True, help="The corpus that the queries are asked of.")
@click.option("--format", "line_format", type=click.Choice(["auto", "jsonl", "tsv", "plain", CANDIDATES]),
              default="auto", show_default=True,
              help="auto: decide line by line; plain: the text alone, also of a dataset; candidates: JSONL with what "
                   "an engine returned.")  # fmt: skip
@column_option(QUERIES)
@click.option("--round", "query_round", type=click.IntRange(0, MAX_ROUND), default=0, show_default=True,
              help="Retrieve and judge again what was fed in an earlier round.")  # fmt: skip
@click.option("--follow", is_flag=True, help="Keep reading as the file grows, until Ctrl-C.")
@click.option("--wait", is_flag=True, help="Return when every query is in the ledger or in the dead letters.")
@pool_options()
@click.option("--nats", "nats_url", help="NATS URL.  [default: the one in --data-dir, else the settings']")
@click.option("--sink", "sink_address", help="host:port of the sink, for --wait.  [default: in --data-dir]")
@data_dir_option()
@config_option()
@json_option()
def feed(file: Path, collection: str, line_format: str, query_round: int, follow: bool, wait: bool,
         nats_url: str | None, sink_address: str | None, data_dir: Path, config: Path | None,
         as_json: bool, told: tuple[str, ...], **pooling: Any) -> None:  # fmt: skip
    """Stream the queries of FILE: JSONL, TSV or plain lines, gzip too; - reads standard input. Or a dataset: a
    .parquet file, a folder saved by `datasets`, or hf:NAME[:SPLIT[:CONFIG]].

    Each query is acknowledged by the queue and recorded, so feeding the same file again only adds what is
    new. With a higher --round every query is retrieved and judged again by the models that serve now, and the new
    labels join the same query in the ledger. Exit code 3: some lines were rejected, or (with --wait) some
    queries are dead letters.

    With --run, or --format candidates, nothing is retrieved: the judge labels what other systems returned.
    """
    options = PoolOptions(line_format, **pooling)
    path = None if str(file) == "-" else file
    options.check(path, follow)
    columns = _columns(path, line_format, told)
    if options.asked:
        require_collection(collection)
    else:
        check_collection(collection, data_dir, config, elsewhere=nats_url is not None)
    settings = nats_settings(nats_url, data_dir, config)
    console = Console(stderr=True)
    say = plainly(console)
    if wait:
        _warn(sink_address, data_dir, settings.transport, say)
    states = None
    with shown(console):
        opened = open_pools(options, collection, path, columns) if options.asked else None
        read = partial(query_of, collection=collection, columns=columns, line_format=cast(Format, line_format))
        with step("feeding", unit="queries") as feeding:
            publishing = publish(
                settings, data_dir, open_records(path, columns, follow=follow), collection=collection,
                query_round=query_round, read=opened.pools if opened else read,
                window=_SETS if opened else _QUERIES, keep_ids=wait, on_progress=_shown(feeding),
            )  # fmt: skip
            report = asyncio.run(publishing)
        if wait and not report.failure:
            ended = asyncio.run(
                _ended(sink_address, settings, data_dir, collection, query_round, report.query_ids, say)
            )
            states = {"committed": ended.committed, "dead": len(ended.dead)}
    for remark in opened.remarks() if opened else ():
        say(remark)
    unit = "row" if path and is_dataset(str(path)) else "line"
    _print(console, report, unit, states, opened.counts if opened else {}, as_json)
    if report.failure:
        raise report.failure
    if report.rejected or (states and states["dead"]):
        raise SystemExit(EXIT_PARTIAL)


def _columns(path: Path | None, line_format: str, told: Sequence[str]) -> Columns:
    """Where the fields of FILE stand. Raises UsageError: an option does not fit what it is."""
    dataset = path is not None and is_dataset(str(path))
    if dataset and line_format not in ("auto", "plain"):
        raise click.UsageError(f"--format {line_format} is of lines, and {path} is a dataset: leave it out")
    if told and not dataset and line_format not in ("auto", "jsonl"):
        raise click.UsageError("--column names columns of datasets and of JSONL: give FILE as one of them")
    return Columns.of(told, QUESTIONS if dataset and line_format == "plain" else QUERIES)


def _shown(feeding: Step) -> Callable[[FeedReport], None]:
    """What the feeder reports, as progress; a stream that takes nothing for now as a step of its own."""
    waits: list[Progress] = []

    def show(report: FeedReport) -> None:
        feeding.at(report.accepted + report.known)
        if waits and f"feeding waits: {report.waiting}" != waits[0].name:
            tell(replace(waits.pop(), finished=True))
        if report.waiting:
            waits[:] = [Progress(f"feeding waits: {report.waiting}")]
            tell(waits[0])

    return show


async def _ended(sink: str | None, nats: NatsSettings, data_dir: Path, collection: str, query_round: int,
                 query_ids: Sequence[str], say: Callable[[str], None]) -> Ended:  # fmt: skip
    places = Places(data_dir, {"sink": sink or ""}, transport=nats.transport)
    try:
        asking = waiting(Patience(places, _STATES_S), nats, collection, query_round, say, _AGAIN)
        return await asking.until_ended(query_ids)
    finally:
        await places.close()


def _warn(sink: str | None, data_dir: Path, transport: Transport, say: Callable[[str], None]) -> None:
    """Before feeding, which needs no sink, and may take long. Raises InputError: it is no sink that answers."""
    place = "the sink"
    try:
        place = sink or require(data_dir, "sink").grpc
        get_info("sink", place, _INFO_S, transport)
    except TransientError as error:
        say(f"warning: the sink does not answer: {error}\nFeeding continues; --wait asks it again {ATTEMPTS} times")
    except InputError as error:
        raise InputError(f"{place} is not a sink ({error}): give --sink the address of one") from error


def _print(console: Console, report: FeedReport, unit: str, states: dict[str, int] | None, pooled: dict[str, int],
           as_json: bool) -> None:  # fmt: skip
    if as_json:
        summary: dict[str, Any] = {"accepted": report.accepted, "known": report.known,
                                   "rejected": {str(n): why for n, why in report.rejected.items()}}  # fmt: skip
        echo_json({**summary, **pooled, **(states or {})})
        return
    for number, why in list(report.rejected.items())[:_SHOWN_REJECTIONS]:
        console.print(f"{unit} {number}: {why}", style="red", markup=False)
    if len(report.rejected) > _SHOWN_REJECTIONS:
        console.print(f"… and {len(report.rejected) - _SHOWN_REJECTIONS} more; --json lists all", style="red")
    text = f"accepted {report.accepted}, known before {report.known}, rejected {len(report.rejected)}"
    if states is not None:
        text += f"; committed {states['committed']}, dead letters {states['dead']} (see `qrelay dlq list`)"
    click.echo(text)

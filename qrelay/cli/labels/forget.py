"""`qrelay forget`: takes queries out of every store, and says what may still hold them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.exitcodes import EXIT_FAILED, EXIT_PARTIAL
from qrelay.identity import require_collection
from qrelay.labels.opening import open_ledger
from qrelay.output import echo_json

if TYPE_CHECKING:
    from qrelay.forgetting.forget import Place, Report

_SHOWN: Final = 20
_ELSEWHERE: Final = (
    "journals of other data folders do not know that: where they were forgotten, run this too, and where they were"
    " fed, `qrelay reconcile --repair`"
)
_FILE: Final = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.command(epilog=example("qrelay forget q17 q18 --collection docs --yes"))
@click.argument("query_ids", nargs=-1)
@click.option("--collection", help="The collection of the queries.")
@click.option("--ids-file", type=_FILE, help="More ids, one a line.")
@click.option("--text-file", type=_FILE, help="Texts, one a line: every query with exactly one of them.")
@click.option("--expired", is_flag=True, help="Queries that are older than sink.keep_queries_days has them kept.")
@click.option("--yes", is_flag=True, help="Forget them. Without this, only show what would go.")
@click.option("--allow-again", is_flag=True, help="Forget nothing: let forgotten queries be fed again.")
@click.option("--without-queues", is_flag=True, help="Leave the queues as they are, where no NATS runs.")
@click.option("--ledger", help="Path or URL.  [default: the sink's setting, else ledger.sqlite in --data-dir]")
@click.option("--nats", "nats_url", help="NATS URL.  [default: the one in --data-dir, else the settings']")
@data_dir_option()
@config_option()
@json_option()
def forget(
    query_ids: tuple[str, ...],
    collection: str | None,
    ids_file: Path | None,
    text_file: Path | None,
    expired: bool,
    yes: bool,
    allow_again: bool,
    without_queues: bool,
    ledger: str | None,
    nats_url: str | None,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """Remove queries, and what holds their texts, from ledger, cache, journal, queues and files of the data folder.

    Shows what would go; --yes does it. Names the exports, models and files that may hold them and stay as they are.
    A forgotten query is not fed or stored again. Killed at any moment, the same command goes on. Exit code 3: some
    ids are nowhere; 1: all are.
    """
    import asyncio

    from qrelay.forgetting import forget as forgetting

    if collection is None and not expired:
        raise click.UsageError("give --collection, or --expired")
    if allow_again and (expired or collection is None):
        raise click.UsageError("--allow-again goes with --collection and ids, not with --expired")
    if collection is not None:
        require_collection(collection)
    with _place(ledger, None if without_queues else (nats_url,), data_dir, config) as (place, days):
        named = {*query_ids, *_lines(ids_file)}
        if allow_again and collection is not None:
            allowed = forgetting.allow_again(place, collection, named)
            click.echo(f"{allowed} queries may come again; {_ELSEWHERE}")
            return
        wanted = asyncio.run(_wanted(place, collection, named, _lines(text_file), days if expired else None))
        reports = asyncio.run(forgetting.forget(place, wanted, dry_run=not yes))
    _print(reports, yes, as_json)
    if any(each.unknown for each in reports):
        raise SystemExit(EXIT_PARTIAL if any(each.queries for each in reports) else EXIT_FAILED)


@contextmanager
def _place(
    ledger: str | None, nats_url: tuple[str | None] | None, data_dir: Path, config: Path | None
) -> Iterator[tuple[Place, dict[str, float]]]:
    from qrelay.client.feeding import nats_settings
    from qrelay.forgetting.forget import Place
    from qrelay.judging.settings import JudgeSettings
    from qrelay.settings import load_settings

    cache = load_settings(JudgeSettings, "judge", file=config, data_dir=data_dir).cache_path
    with open_ledger(ledger, data_dir, config) as (opened, settings):
        nats = nats_settings(nats_url[0], data_dir, config) if nats_url else None
        yield Place(data_dir, opened, cache, settings.registry_folder, nats), settings.keep_queries_days


def _lines(path: Path | None) -> list[str]:
    from qrelay.forgetting.choosing import lines_of

    return lines_of(path) if path else []


async def _wanted(
    place: Place, collection: str | None, ids: set[str], texts: list[str], days: dict[str, float] | None
) -> dict[str, list[str]]:
    """collection -> ids, sorted."""
    from qrelay.forgetting import choosing

    found: dict[str, set[str]] = {}
    if days is not None:
        chosen = {name: kept for name, kept in days.items() if collection in (None, name)}
        found = choosing.expired(place, chosen)
    if collection is not None:
        found.setdefault(collection, set()).update(ids)
        if texts:
            found[collection] |= await choosing.ids_with_texts(place, collection, texts)
    return {name: sorted(each) for name, each in found.items()}


def _print(reports: list[Report], done: bool, as_json: bool) -> None:
    if as_json:
        echo_json({"dry_run": not done, "reports": [each.as_dict() for each in reports]})
        return
    if not reports:
        click.echo("no query is meant: nothing to forget")
    for report in reports:
        _say(report, done)


def _say(report: Report, done: bool) -> None:
    said = "forgotten" if done else "would be forgotten (--yes does it)"
    click.echo(f"{report.collection}: {report.queries} queries {said}")
    click.echo(
        f"  {report.journal} in the feed's journal, {report.messages} messages in the queues, {report.dead_letters}"
        f" dead letters, {report.labels} labels of the judgment cache, {report.requests} requests of batches"
    )
    _list("rewritten" if done else "to be rewritten", [f"{path}: {n}" for path, n in report.files.items()])
    _list("may hold them, and stay: exports", report.exports)
    _list("were trained on them, and stay: models", report.models)
    _list("hold them, and stay: files", report.other_files)
    _list("may hold them, and stay: dead letters that nobody can read", report.letters)
    _list("were sent to an endpoint, which may keep them: files and batches", report.at_endpoints)
    _list("nowhere", report.unknown)


def _list(what: str, items: list[Any]) -> None:
    if items:
        more = f", … and {len(items) - _SHOWN} more" if len(items) > _SHOWN else ""
        click.echo(f"  {what}: {', '.join(items[:_SHOWN])}{more}")

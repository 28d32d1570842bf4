"""`qrelay ledger`: the ledger's version, sizes counts; backup, migration, retention, compaction; audit log."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qrelay.cli.group import Group, example
from qrelay.cli.options import Decorator, config_option, data_dir_option, json_option
from qrelay.labels.opening import open_ledger
from qrelay.output import Rows, echo_json, show

if TYPE_CHECKING:
    from qrelay.labels.ledger.audit_log import Act

_MEGABYTE = 1_000_000


@click.group("ledger", cls=Group, epilog=example("qrelay ledger info"))
def ledger() -> None:
    """Maintain the ledger: info, backup, migrate, prune, compact; and read its audit log."""


def _ledger_option() -> Decorator:
    return click.option(
        "--ledger",
        "address",
        help="Path, sqlite:///PATH or postgresql://…  [default: sink.ledger, or ledger.sqlite in --data-dir]",
    )


@ledger.command("info", epilog=example("qrelay ledger info"))
@_ledger_option()
@data_dir_option()
@config_option()
@json_option()
def info(address: str | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Show version, size, rows by table, and each collection with the number of its last change."""
    from qrelay.labels.ledger.info import describe

    with open_ledger(address, data_dir, config) as (opened, _):
        found = describe(opened)
    if as_json:
        echo_json(found)
        return
    click.echo(f"{found['ledger']}: schema version {found['schema_version']}, {_size(found['bytes'])}")
    for name, count in found["rows"].items():
        click.echo(f"  {count:>12} {name}")
    for each in found["collections"]:
        click.echo(
            f"{each['collection']}: {each['queries']} queries, {each['judgments']} judgments of"
            f" {each['judged_pairs']} pairs, change {each['change_no']}"
        )


@ledger.command("backup", epilog=example("qrelay ledger backup --out ledger-copy.sqlite"))
@click.option("--out", required=True, type=click.Path(path_type=Path), help="The copy; must not exist.")
@_ledger_option()
@data_dir_option()
@config_option()
@json_option()
def backup(out: Path, address: str | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Copy a SQLite ledger while services use it. For PostgreSQL, print the command to run.

    To restore: stop the sinks, put the copy in the ledger's place, remove the -wal and -shm files beside it, start
    them, and let `qrelay reconcile --repair` feed again what was accepted since.
    """
    from qrelay.labels.ledger.backup import backup as run

    target, _ = _address(address, data_dir, config)
    size = run(target, out)
    if as_json:
        echo_json({"out": str(out), "bytes": size})
    else:
        click.echo(f"{out}: {_size(size)}, checked")


@ledger.command("migrate", epilog=example("qrelay ledger migrate"))
@_ledger_option()
@data_dir_option()
@config_option()
@json_option()
def migrate(address: str | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Bring an older ledger to this version. Stop the services that use it first.

    A SQLite file is copied first, beside itself. Back up a PostgreSQL database yourself (pg_dump).
    """
    from qrelay.labels.ledger.migrate import migrate as run

    target, busy_timeout_s = _address(address, data_dir, config)
    done = run(target, busy_timeout_s=busy_timeout_s)
    if as_json:
        echo_json({"before": done.before, "after": done.after, "copy": str(done.copy or "")})
    elif done.before == done.after:
        click.echo(f"nothing to do: the ledger has schema version {done.after}")
    else:
        kept = f"; the file as it was: {done.copy}" if done.copy else ""
        click.echo(f"migrated from schema version {done.before} to {done.after}{kept}")


@ledger.command("prune", epilog=example("qrelay ledger prune --dead-letters-older-than 90"))
@click.option("--dead-letters-older-than", type=float, metavar="DAYS", help="Payloads of those closed longer ago.")
@click.option("--raw-replies-older-than", type=float, metavar="DAYS", help="Raw replies of older judgments.")
@click.option("--unused-passages", is_flag=True, help="Texts that no query names.")
@click.option("--yes", is_flag=True, help="Delete it. Without this, only show what would be deleted.")
@_ledger_option()
@data_dir_option()
@config_option()
@json_option()
def prune(
    dead_letters_older_than: float | None,
    raw_replies_older_than: float | None,
    unused_passages: bool,
    yes: bool,
    address: str | None,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show what may be deleted, or delete it with --yes. Never a judgment, nor what says where a label is from."""
    from qrelay.labels.ledger.retention import PruneRule
    from qrelay.labels.ledger.retention import prune as run

    rule = PruneRule(dead_letters_older_than, raw_replies_older_than, unused_passages)
    if rule == PruneRule():
        raise click.UsageError("give one of --dead-letters-older-than, --raw-replies-older-than or --unused-passages")
    with open_ledger(address, data_dir, config) as (opened, _):
        found = run(opened, rule, dry_run=not yes)
    if as_json:
        echo_json({"dry_run": not yes, **asdict(found)})
        return
    click.echo("pruned:" if yes else "would be pruned (--yes does it):")
    click.echo(f"  {found.dead_letters} dead letters' payloads, {_size(found.dead_letter_bytes)}")
    click.echo(f"  {found.raw_replies} raw replies, {found.raw_reply_characters} characters")
    click.echo(f"  {found.passages} passages, {found.passage_characters} characters")


@ledger.command("compact", epilog=example("qrelay ledger compact"))
@_ledger_option()
@data_dir_option()
@config_option()
@json_option()
def compact(address: str | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Free the space of what was pruned, and update the planner's statistics.

    SQLite: the services that use the file must be stopped. PostgreSQL: they may keep running.
    """
    from qrelay.labels.ledger.retention import compact as run

    with open_ledger(address, data_dir, config) as (opened, _):
        before, after = run(opened)
    if as_json:
        echo_json({"before": before, "after": after})
    else:
        click.echo(f"{_size(before)} before, {_size(after)} now")


@ledger.command("audit-log", epilog=example("qrelay ledger audit-log --act promote"))
@click.option("--act", default="", help="Only this act, such as override, import, replay or promote.")
@click.option("--collection", default="", help="Only acts on this collection.")
@click.option("--page-size", default=100, show_default=True, type=click.IntRange(1, 1000), help="Acts on a page.")
@click.option("--page", "token", default="", help="Where the page before ended, as it says.")
@_ledger_option()
@data_dir_option()
@config_option()
@json_option()
def audit_log(
    act: str,
    collection: str,
    page_size: int,
    token: str,
    address: str | None,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """List who changed what, the latest first: one row an act by gRPC, console or command. Nothing deletes a row."""
    from qrelay.labels.ledger.audit_log import page

    with open_ledger(address, data_dir, config) as (opened, _), opened.snapshot() as snapshot:
        found = page(snapshot.connection, act=act, collection=collection, size=page_size, token=token)
    if as_json:
        acts = [{**asdict(each), "at": each.at.isoformat()} for each in found.acts]
        echo_json({"acts": acts, "next_page_token": found.next_page_token})
        return
    show(Rows(("when (UTC)", "who", "act", "collection", "count", "outcome", "subject"),
              [_row(each) for each in found.acts], prose=("subject",)))  # fmt: skip
    if found.next_page_token:
        click.echo(f"more with --page {found.next_page_token}", err=True)


def _row(act: Act) -> tuple[str, ...]:
    who = f"{act.kind}/{act.who}" if act.who else act.kind
    return f"{act.at:%Y-%m-%d %H:%M:%S}", who, act.act, act.collection, str(act.count), act.outcome, act.subject


def _address(address: str | None, data_dir: Path, config: Path | None) -> tuple[str, float]:
    from qrelay.labels.settings import SinkSettings
    from qrelay.settings import load_settings

    settings = load_settings(SinkSettings, "sink", file=config, data_dir=data_dir)
    return address or settings.ledger_url, settings.busy_timeout_s


def _size(count: int) -> str:
    return f"{count / _MEGABYTE:.1f} MB"

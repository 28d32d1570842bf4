"""`qrelay reconcile`: is every query that was accepted in exactly one place?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.exitcodes import EXIT_FAILED, EXIT_PARTIAL
from qrelay.labels.opening import open_ledger
from qrelay.output import echo_json

if TYPE_CHECKING:
    from qrelay.labels.reconcile.evidence import Report

_IDS_SHOWN = 20


@click.command(epilog=example("qrelay reconcile --collection docs"))
@click.option("--collection", required=True, help="The collection to reconcile.")
@click.option("--repair", is_flag=True, help="Feed lost queries again; close dead letters of committed ones.")
@click.option("--ledger", help="Path or URL.  [default: the sink's setting, else ledger.sqlite in --data-dir]")
@click.option("--nats", "nats_url", help="NATS URL.  [default: the one in --data-dir, else the settings']")
@click.option("--pause", "pause_s", default=2.0, show_default=True, help="Seconds before suspects are checked again.")
@data_dir_option()
@config_option()
@json_option()
def reconcile(
    collection: str,
    repair: bool,
    ledger: str | None,
    nats_url: str | None,
    pause_s: float,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """Prove that every accepted query is committed, a dead letter, in flight, or forgotten.

    Compares the feed's journal in --data-dir with the queues and the ledger, even while the services work. Exit
    code 0: all are; 1: some are lost, or in two states (and were not repaired); 3: all are, some as dead letters.
    """
    import asyncio

    from qrelay.client.feeding import nats_settings
    from qrelay.labels.reconcile.reconcile import reconcile as run
    from qrelay.progress import shown

    journal = data_dir / "feed" / f"{collection}.sqlite"
    nats = nats_settings(nats_url, data_dir, config)
    with shown(), open_ledger(ledger, data_dir, config) as (opened, _):
        report = asyncio.run(run(nats, opened, journal, collection, repair=repair, pause_s=pause_s))
    _print(report, repair, as_json)
    if report.unsound:
        raise SystemExit(EXIT_FAILED)
    if report.dead:
        raise SystemExit(EXIT_PARTIAL)


def _print(report: Report, repair: bool, as_json: bool) -> None:
    if as_json:
        echo_json(report.as_dict())
        return
    flying = ", ".join(f"{stream} {count}" for stream, count in report.in_flight.items())
    click.echo(
        f"accepted {report.accepted}: committed {report.committed}, dead letters {report.dead}, "
        f"in flight {sum(report.in_flight.values())}"
        + (f" ({flying})" if flying else "")
        + (f", forgotten {report.forgotten}" if report.forgotten else "")
    )
    click.echo(f"lost {report.lost}, duplicated {report.duplicated}, unexpected {report.unexpected}")
    for name in ("lost", "duplicated", "unexpected"):
        ids = getattr(report, f"{name}_ids")
        if ids:
            more = f" … and {getattr(report, name) - _IDS_SHOWN} more" if len(ids) > _IDS_SHOWN else ""
            click.echo(f"{name}: {' '.join(ids[:_IDS_SHOWN])}{more}")
    if report.without_record:
        click.echo(
            f"{report.without_record} lost queries cannot be re-emitted, for an older version wrote their journal "
            "entries: feed the file again, then repair"
        )
    if repair:
        click.echo(f"fed again {report.reemitted}, dead letters closed of {report.resolved} committed queries")
    elif report.lost + report.duplicated > report.without_record:
        click.echo("`qrelay reconcile --repair` feeds lost queries again and closes dead letters of committed ones")

"""`qrelay publish`: what the sink publishes by itself, now."""

from __future__ import annotations

from pathlib import Path

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.errors import ConfigError
from qrelay.labels.opening import open_ledger, require_collection
from qrelay.output import echo_json


@click.command(epilog=example("qrelay publish --collection docs --dry-run"))
@click.option("--collection", required=True, help="The collection to publish.")
@click.option("--ledger", help="Path or database URL.  [default: the setting sink.ledger, or ledger.sqlite]")
@click.option("--dry-run", is_flag=True, help="Say how it stands, and contact nobody.")
@data_dir_option()
@config_option()
@json_option()
def publish(
    collection: str, ledger: str | None, dry_run: bool, data_dir: Path, config: Path | None, as_json: bool
) -> None:
    """Publish what is new of a collection to the repository of sink.publish, however few labels that are.

    The sink does this by itself when it is due; both may run at once.
    """
    from qrelay.jobs.publisher import described, standing_of
    from qrelay.labels.exports.publishing import publish as publish_now

    with open_ledger(ledger, data_dir, config) as (opened, settings):
        if not settings.publish.enabled:
            raise ConfigError("there is nowhere to publish to: set sink.publish.repo")
        require_collection(opened, collection)
        rows, sent = 0, []
        while not dry_run and (found := publish_now(opened, collection, settings)) is not None:
            rows += found.rows
            sent += [found.sent] if found.sent else []
        at = standing_of(opened, collection, settings.publish)
        stands = described(at, settings.publish, collection, opened.now_us()) if at else ""
    if as_json:
        echo_json({"collection": collection, "rows": rows, "commits": sent, "stands": stands})
        return
    for commit in sent:
        click.echo(f"published: {commit}")
    click.echo(stands)

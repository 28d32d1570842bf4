"""`qrelay training`: where the policy, its triggers and their jobs stand; a trigger by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import Group, example
from qrelay.cli.labels.frame import allowing_options
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.labels.opening import open_ledger, require_collection
from qrelay.output import echo_json

if TYPE_CHECKING:
    pass


def _ledger_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--ledger, --data-dir, --config and --json."""
    ledger = click.option("--ledger", help="Path or URL.  [default: the setting, else ledger.sqlite in --data-dir]")
    for option in (json_option(), config_option(), data_dir_option(), ledger):
        command = option(command)
    return command


@click.group(cls=Group, epilog=example("qrelay training status"))
def training() -> None:
    """Show and trigger training jobs."""


@training.command(epilog=example("qrelay training status --collection docs"))
@click.option("--collection", default="", help="Only this collection.")
@_ledger_options
def status(collection: str, ledger: str | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Show the policy's counters, what is missing until the next trigger, triggers and runs."""
    from qrelay.jobs.report import training_report

    with open_ledger(ledger, data_dir, config) as (opened, settings):
        if collection:
            require_collection(opened, collection)
        report = training_report(opened, settings.training, collection)
    if as_json:
        echo_json(report)
    else:
        _print(report)


@training.command(epilog=example("qrelay training run --collection docs"))
@click.option("--collection", required=True, help="The collection to train on.")
@allowing_options("Train on labels")
@_ledger_options
def run(
    collection: str, unmeasured: bool, unqualified: bool, ledger: str | None, data_dir: Path, config: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Trigger a training now, whatever the policy says. A running sink launches it.

    Refused if its labels may not train, as `qrelay export triples` refuses them.
    """
    from qrelay.jobs.permission import start_training
    from qrelay.labels.permission import Allowed

    with open_ledger(ledger, data_dir, config) as (opened, settings):
        made = start_training(opened, collection, settings, Allowed(unmeasured, unqualified))
    if as_json:
        found = {"trigger": made.trigger_no, "collection": collection, "change_no": made.change_no}
        echo_json({**found, "job": made.job_name})
    else:
        click.echo(f"trigger {made.trigger_no} of {collection} at change {made.change_no}: job {made.job_name}")
        click.echo("a running sink launches it; `qrelay training status` shows it")


@training.command(epilog=example("qrelay training abandon 3"))
@click.argument("trigger", type=int)
@_ledger_options
def abandon(trigger: int, ledger: str | None, data_dir: Path, config: Path | None, as_json: bool) -> None:
    """Give up TRIGGER, because the machine that had it is gone.

    A pending trigger becomes `refused`. The running job of a launched one counts as failed, and is not stopped.
    """
    from qrelay.jobs.decisions import abandon as give_up

    with open_ledger(ledger, data_dir, config) as (opened, _):
        state = give_up(opened, trigger)
    if as_json:
        echo_json({"trigger": trigger, "state": state})
    else:
        click.echo(f"trigger {trigger}: {state}")


def _print(report: dict[str, Any]) -> None:
    if not report["enabled"]:
        click.echo("the policy is off (sink.training.enabled): only `qrelay training run` triggers")
    if not report["collections"]:
        click.echo("the ledger holds no collection yet: feed queries first")
    for each in report["collections"]:
        if not each["policy"]:
            click.echo(f"{each['collection']}: new labels are not counted: {each['waits']}")
            continue
        click.echo(
            f"{each['collection']}: {each['new_hard_examples']} new hard examples, {each['new_judged']} judged pairs,"
            f" {each['new_disagreements']} disagreements since {each['since'] or 'the beginning'}"
        )
        for rule in each["rules"]:
            lacks = f"lacks {rule['lacks']}" if rule["lacks"] else "reached"
            click.echo(f"  {rule['rule']}: {rule['have']:g} of {rule['needed']:g}, {lacks}")
        click.echo(f"  next: {each['waits'] or 'due'}")
    for each in report["triggers"]:
        error = f"; {each['attempts']} failed attempt(s), the last: {each['error']}" if each["error"] else ""
        click.echo(
            f"trigger {each['trigger']} of {each['collection']}: {each['rule']} at change {each['change_no']},"
            f" {each['state']}, decided {each['decided']}{error}"
        )
    for each in report["runs"]:
        code = "" if each["exit_code"] is None else f", exit code {each['exit_code']}"
        why = f", {each['reason']}" if each.get("reason") and not code else ""
        click.echo(f"run {each['job']}: {each['state']}{code}{why}, started {each['started']}")
        for line in each.get("log", ())[-3:] if each["state"] == "failed" else ():
            click.echo(f"  | {line}")

"""`qrelay audit`: what is wrong with the labels of the ledger, without a running service."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import Group, example
from qrelay.cli.labels.frame import progress
from qrelay.cli.options import config_option, data_dir_option, json_file_option, json_option
from qrelay.exitcodes import EXIT_GATE
from qrelay.labels.opening import open_ledger
from qrelay.output import echo_json

if TYPE_CHECKING:
    from qrelay.labels.audit.gate import Condition

_FILE = click.Path(path_type=Path, dir_okay=False)
_GIVEN = click.Path(path_type=Path, exists=True)


def _conditions(ctx: click.Context, param: click.Parameter, value: str) -> list[Condition]:
    """The gate, checked before anything is read: a mistake in it is wrong usage."""
    from qrelay.errors import InputError
    from qrelay.labels.audit.gate import parse_conditions

    try:
        return parse_conditions(value)
    except InputError as error:
        raise click.BadParameter(str(error), ctx, param) from error


def _periods(ctx: click.Context, param: click.Parameter, value: str) -> int | None:
    if value == "week":
        return None
    if value.isdecimal() and 2 <= int(value) <= 100:
        return int(value)
    raise click.BadParameter(f"{value!r} is neither `week` nor a number of periods from 2 to 100", ctx, param)


def _shared(command: Callable[..., Any]) -> Callable[..., Any]:
    """Options of the audit and of its sample."""
    options = (
        click.option("--collection", help="The collection to audit.  [required]"),
        click.option("--ledger", help="Path or URL.  [default: ledger.sqlite in --data-dir]"),
        click.option(
            "--judge",
            help="Audit this judge's labels: the start of its hash, or its strategy.  [default: as exports]",
        ),
        click.option("--auditor", help="The judge of the second labels, likewise. Its own labels are not audited."),
        click.option(
            "--n", "size", default=100, show_default=True, type=click.IntRange(1), help="Negatives to sample."
        ),
        click.option("--seed", default=0, show_default=True, help="Seed of the sample."),
        data_dir_option(),
        config_option(),
    )
    for option in reversed(options):
        command = option(command)
    return command


@click.group(
    invoke_without_command=True,
    cls=Group,
    epilog=example("qrelay audit --collection docs --html audit.html --fail-on 'conflicts>0'"),
)
@_shared
@click.option("--overrides", is_flag=True, help="People's overrides are second labels, before the auditor's.")
@click.option("--sample", "pairs", type=_GIVEN, metavar="FILE", help="Use the sample that `audit sample` wrote.")
@json_option()
@json_file_option()
@click.option("--html", "html_file", type=_FILE, metavar="OUT", help="Write the report as a page.")
@click.option(
    "--fail-on",
    "conditions",
    default="",
    callback=_conditions,
    metavar="CONDITIONS",
    help='Exit with 4 if one is met, or its figure was not measured: "false_negative_rate>0.02,conflicts>0".',
)
@click.option(
    "--eval-queries", type=_GIVEN, help="Queries that must not be trained on: BEIR JSONL, .gz too, or its folder."
)
@click.option("--eval-corpus", type=_GIVEN, help="Passages that must not be trained on, likewise.")
@click.option(
    "--eval-qrels", type=_GIVEN, help="Check only the queries in it, and the passages that it calls relevant."
)
@click.option(
    "--drift-periods",
    "periods",
    default="6",
    show_default=True,
    callback=_periods,
    metavar="N|week",
    help="Periods to compare grades by: N of equal length, or weeks.",
)
@click.pass_context
def audit(
    ctx: click.Context,
    /,
    collection: str | None,
    ledger: str | None,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
    json_file: Path | None,
    html_file: Path | None,
    conditions: list[Condition],
    **options: Any,
) -> None:
    """Look for false negatives, conflicts, duplicates, leakage and drift among the labels of a collection.

    Reads the ledger directly. A figure that nothing measured is "not measured", never 0. The false-negative rate
    needs second labels: see `qrelay audit sample`. Exit code 4: a condition of --fail-on is met.
    """
    if ctx.invoked_subcommand is not None:
        return
    from qrelay.labels.audit.audit import audit as run
    from qrelay.labels.audit.report import write_report
    from qrelay.reports import require_libraries

    require_libraries(html_file)
    named, request = _required(ctx, collection), _request(options)
    with (
        open_ledger(ledger, data_dir, config) as (opened, settings),
        progress("auditing") as on_progress,
    ):
        report = run(opened, named, request, settings.rules, conditions, on_progress)
    write_report(report, as_json=json_file, as_html=html_file)
    if as_json:
        echo_json(report)
    else:
        _print(report)
    if not report["gate"]["passed"]:
        raise SystemExit(EXIT_GATE)


@audit.command("sample", epilog=example("qrelay audit sample --collection docs --n 100 --out sample.tsv"))
@_shared
@click.option("--out", type=_FILE, required=True, help="TSV to write, for people to fill in.")
@json_option()
@click.pass_context
def sample(
    ctx: click.Context,
    /,
    collection: str | None,
    ledger: str | None,
    data_dir: Path,
    config: Path | None,
    out: Path,
    as_json: bool,
    **options: Any,
) -> None:
    """Draw negatives that mining would export now, for a second, stronger judgment.

    Have them graded by people (fill in the column `grade`, then `qrelay label import`), or by a stronger judge with
    the printed command. The same ledger, --n and --seed draw the same sample.
    """
    from qrelay.labels.audit.audit import Request
    from qrelay.labels.audit.sample import draw, rejudge_command, write_sample

    named = _required(ctx, collection)
    request = Request(options["judge"], options["auditor"], sample_size=options["size"], seed=options["seed"])
    with open_ledger(ledger, data_dir, config) as (opened, settings):
        drawn, population = draw(opened, named, request, settings.rules)
    write_sample(out, drawn)
    command = rejudge_command(named, out)
    if as_json:
        echo_json({"file": str(out), "sampled": len(drawn), "population": population, "rejudge": command})
        return
    click.echo(f"{out}: {len(drawn)} of {population} negatives\n")
    whose = f" --judge {options['judge']}" if options["judge"] else ""
    _say_how(f"  qrelay audit --collection {named}{whose} --sample {out}", command)


def _say_how(again: str, command: str) -> None:
    """How the sample gets its second labels, and the audit `again` with them."""
    click.echo(f"People: fill in the column `grade`, then `qrelay label import`, and\n{again} --overrides\n")
    click.echo("A stronger judge (STRONGER.yaml: its settings):")
    click.echo(f"  {command}")
    click.echo(f"{again} --auditor HASH")


def _required(ctx: click.Context, collection: str | None) -> str:
    if not collection:
        raise click.UsageError("Missing option '--collection'.", ctx)
    return collection


def _request(options: dict[str, Any]) -> Any:
    from qrelay.labels.audit.audit import Request
    from qrelay.labels.audit.evaluation import EvaluationSet
    from qrelay.labels.audit.sample import read_pairs

    if options["eval_qrels"] and not (options["eval_queries"] or options["eval_corpus"]):
        raise click.UsageError("--eval-qrels narrows --eval-queries and --eval-corpus: give one of them")
    return Request(
        judge=options["judge"],
        auditor=options["auditor"],
        overrides=options["overrides"],
        sample_size=options["size"],
        seed=options["seed"],
        pairs=read_pairs(options["pairs"]) if options["pairs"] else None,
        evaluation=EvaluationSet(options["eval_queries"], options["eval_corpus"], options["eval_qrels"]),
        periods=options["periods"],
    )


def _print(report: dict[str, Any]) -> None:
    """Every figure in a line, then what the gate found."""
    from qrelay.labels.audit.report import interval
    from qrelay.reports.page import text

    width = max(map(len, report["figures"]))
    for name, each in report["figures"].items():
        bounds = f" ({interval(each)}, n = {each['n']})" if interval(each) else ""
        shown = f"not measured: {each['why']}" if each["value"] is None else f"{text(each['value'])}{bounds}"
        click.echo(f"{name:<{width}}  {shown}")
    for each in report["gate"]["violations"]:
        click.secho(f"failed: {each['condition']}: {_why(each)}", fg="red", err=True)


def _why(violation: dict[str, Any]) -> str:
    from qrelay.labels.audit.report import interval
    from qrelay.reports.page import text

    if violation["value"] is None:
        return f"{violation['figure']} was not measured: {violation['why']}"
    bounds = f" ({interval(violation)})" if interval(violation) else ""
    return f"{violation['figure']} is {text(violation['value'])}{bounds}"

"""`qrelay judge eval | qualify`: the judge beside people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.judge.pairs import FILE, judge_settings, judged_pairs, pairs_options
from qrelay.cli.options import config_option, json_file_option, json_option
from qrelay.errors import InputError
from qrelay.output import Rows, echo_json, show

if TYPE_CHECKING:
    from qrelay.judging.calibration import CalibrationMap
    from qrelay.judging.qualification.systems import Evaluation
    from qrelay.judging.qualification.table import Table


def systems_options(command: Any) -> Any:
    """Where graded pairs come from, and what is known of their retrieval scores."""
    options = [
        click.option(
            "--embedder",
            "embedders",
            multiple=True,
            default=["all-MiniLM-L6-v2"],
            show_default=True,
            help='Dense system, the retriever\'s first; "" for none. Each further one is "dense:NAME" in fusions.',
        ),
        click.option(
            "--fuse", "fusions", multiple=True, metavar="NAME=A,B,…", help="One more ensemble, of judges and scores."
        ),
    ]
    for option in reversed(options):
        command = option(command)
    return pairs_options(command)


@click.command("eval", epilog=example("qrelay judge eval --slice graded.tsv --relevant-from 2"))
@systems_options
@click.option("--calibration", type=FILE, help="Apply these fitted maps instead of cross-validating.")
@click.option(
    "--cascade",
    "cascades",
    multiple=True,
    metavar="SMALL=LARGE",
    help="What a cascade of these two systems would escalate and keep, at several error limits.",
)
@json_file_option()
@config_option()
@json_option()
def eval_(
    json_file: Path | None, calibration: Path | None, config: Path | None, as_json: bool, **options: Any
) -> None:
    """Compare every configured judge, ensemble and retrieval score with people, on annotated pairs.

    Runs from the cache: what was judged before costs nothing. With --calibration a fitted map is applied, else
    figures that need a map come from cross-validation grouped by query.
    """
    from qrelay.judging.calibration import load_maps
    from qrelay.judging.report.write import without_nan

    maps = load_maps(calibration) if calibration else None
    cascades = options.pop("cascades")
    evaluation = evaluated(config, options, maps)
    found = {**_as_json(evaluation), "cascades": _cascades(evaluation, cascades)}
    if json_file:
        from qrelay.files import write_atomic

        write_atomic(json_file, _dumped(found).encode() + b"\n")
    if as_json:
        echo_json(without_nan(found))
        return
    print_figures(evaluation)
    _print_cascades(found["cascades"])


@click.command(
    "qualify", epilog=example("qrelay judge qualify --slice graded.tsv --relevant-from 2 --out qualification.json")
)
@systems_options
@click.option("--calibration", type=FILE, help="Apply these fitted maps instead of cross-validating.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="File for the verdicts.")
@click.option("--report", type=click.Path(path_type=Path, file_okay=False), help="Folder for HTML, PNG and JSON.")
@config_option()
@json_option()
def qualify(
    out: Path, report: Path | None, calibration: Path | None, config: Path | None, as_json: bool, **options: Any
) -> None:
    """Decide what each judge may be used for: a verdict for positives, negatives and gates, with the numbers.

    Name the file in sink.qualification; exports of training data then follow it.
    """
    from qrelay.judging.calibration import load_maps
    from qrelay.judging.report.write import without_nan
    from qrelay.reports import require_libraries

    require_libraries(report)
    evaluation = evaluated(config, options, load_maps(calibration) if calibration else None)
    found = write_verdicts(evaluation, out, rest=bool(options["rest"]))
    if as_json:
        echo_json(without_nan(found))
    else:
        print_figures(evaluation)
        print_verdicts(found)
    if report:
        write_figures(evaluation, report, evaluation.best_judge, quiet=as_json)


def write_verdicts(evaluation: Evaluation, out: Path, *, rest: bool) -> dict[str, Any]:
    """The report that `sink.qualification` names, written to `out`. rest: there are judged pairs without a grade, so
    that the share of relevant ones can be estimated."""
    from qrelay.files import write_atomic
    from qrelay.judging.qualification.estimate import relevant_share
    from qrelay.judging.qualification.verdicts import verdicts

    found = {**_as_json(evaluation), "verdicts": verdicts(evaluation)}
    if rest:
        try:
            found["relevant_share"] = relevant_share(evaluation.table, evaluation.systems[evaluation.best_judge])
        except InputError as error:
            click.echo(f"the share of relevant passages is not estimated: {error}", err=True)
    write_atomic(out, _dumped(found).encode() + b"\n")
    return found


def evaluated(config: Path | None, options: dict[str, Any], maps: Mapping[str, CalibrationMap] | None) -> Evaluation:
    """Every system on the pairs of the options."""
    from qrelay.judging.qualification.systems import evaluate

    return evaluate(measured_table(config, options), fusions_of(options), maps)


def measured_table(config: Path | None, options: dict[str, Any]) -> Table:
    """The pairs of the options, judged."""
    settings = judge_settings(config, options["data_dir"])
    return asyncio.run(judged_pairs(settings, options, options["embedders"]))


def fusions_of(options: dict[str, Any]) -> dict[str, list[str]]:
    """The ensembles that --fuse names."""
    return dict(_fusion(each) for each in options["fusions"])


def _cascades(evaluation: Evaluation, named: Sequence[str]) -> list[dict[str, Any]]:
    from qrelay.judging.qualification.cascades import cascade_figures
    from qrelay.judging.settings import CascadeSettings

    found = []
    for text in named:
        small, sign, large = text.partition("=")
        if not sign:
            raise click.UsageError(f"--cascade {text}: write SMALL=LARGE with names of systems")
        found += cascade_figures(evaluation, small, large, audit=CascadeSettings().audit)
    return found


def _fusion(text: str) -> tuple[str, list[str]]:
    name, sign, inputs = text.partition("=")
    if not (name and sign and inputs):
        raise click.UsageError(f"--fuse {text}: write NAME=A,B with names of judges and retrieval scores")
    return name, [each.strip() for each in inputs.split(",")]


def _notes(evaluation: Evaluation) -> list[str]:
    """What a reader must know of how the figures came about."""
    notes = []
    if evaluation.in_sample:
        names = ", ".join(evaluation.in_sample)
        notes = [
            f"The maps of {names} were fitted on these very pairs, so that their figures flatter them: use others."
        ]
    for name, found in evaluation.likenesses.items():
        if found is None:
            notes.append(f"Whether these queries are like those of the map {name} cannot be said: one side has few.")
        elif found.differs:
            notes.append(
                f"The map {name} is of another domain: {found}. Fit one here (`calibrate`), with --prior if you have "
                "few grades."
            )
    return notes


def _as_json(evaluation: Evaluation) -> dict[str, Any]:
    table = evaluation.table
    rows = table.graded
    return {
        "n": len(rows),
        "queries": len(set(table.queries[rows])),
        "relevant": int(table.relevant[rows].sum()),
        "relevant_from": table.relevant_from,
        "sha256": table.sha256,
        "systems": {name: system.metrics for name, system in evaluation.systems.items()},
        "comparisons": evaluation.comparisons,
        "in_sample": list(evaluation.in_sample),
        "domains": {
            name: found and {**asdict(found), "differs": found.differs}
            for name, found in evaluation.likenesses.items()
        },
    }


def _dumped(found: dict[str, Any]) -> str:
    """As a file's JSON; null where a figure is nan, for too few queries, say."""
    from qrelay.judging.report.write import without_nan

    return json.dumps(without_nan(found), indent=2, allow_nan=False)


def write_figures(evaluation: Evaluation, folder: Path, focus: str, *, quiet: bool = False) -> None:
    from qrelay.judging.qualification.verdicts import verdicts
    from qrelay.judging.report import write_report

    found = _as_json(evaluation)
    data = {key: found[key] for key in ("n", "queries", "relevant", "sha256", "relevant_from")}
    report = {
        "title": "The judge beside people",
        "data": data,
        "systems": found["systems"],
        "comparisons": found["comparisons"],
        "verdicts": {
            name: {use: each for use, each in found.items() if use != "judge"}
            for name, found in verdicts(evaluation).items()
        },
        "notes": _notes(evaluation),
    }
    for path in write_report(report, folder, focus=focus):
        click.echo(path, err=quiet)


def print_figures(evaluation: Evaluation) -> None:
    rows = []
    for system in evaluation.systems.values():
        m = system.metrics
        low, high = m["auc_ci"]
        numbers = [_number(m[key]) for key in ("auc_within_query", "kappa_binary", "kappa_graded")]
        counts = (str(m["missing"]), str(m["tokens"]))
        rows.append((system.name, _number(m["auc"]), f"{low:.3f}-{high:.3f}", *numbers, *counts))
    show(Rows(("system", "AUC", "95%", "within query", "kappa", "quadratic", "missing", "tokens"), rows))
    for each in evaluation.comparisons:
        low, high = each["ci"]
        click.echo(
            f"{each['a']} against {each['b']}: AUC {each['difference']:+.3f} ({low:+.3f} to {high:+.3f}), "
            f"p {each['p']:.4f}"
        )
    for note in _notes(evaluation):
        click.echo(f"warning: {note}")


def _print_cascades(found: Sequence[Mapping[str, Any]]) -> None:
    for each in found:
        click.echo(
            f"cascade {each['small']} -> {each['large']} at error {each['max_error']}: {each['share_escalated']:.0%} "
            f"escalated, agreement {each['agreement']:.3f}, kappa {each['kappa']:.3f} (small alone "
            f"{each['kappa_small']:.3f}, large alone {each['kappa_large']:.3f})"
        )


def print_verdicts(report: Mapping[str, Any]) -> None:
    """A line for each judge and use of a report that `write_verdicts` made."""
    rows = [
        (name, use, uses[use]["verdict"], uses[use]["reason"])
        for name, uses in report["verdicts"].items()
        for use in ("positives", "negatives", "gate")
    ]
    show(Rows(("judge", "use", "verdict", "why"), rows, prose=("why",)))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


COMMANDS: Sequence[click.Command] = (eval_, qualify)

"""`qrelay eval`: models on a collection, against the first."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.eval.options import (
    collection_of,
    note,
    options_of,
    required,
    run_of,
    system_of,
    write_json,
)
from qrelay.output import echo_json
from qrelay.parsing import json_document

if TYPE_CHECKING:
    from qrelay.formats.beir import Collection
    from qrelay.training.evaluation.reporting import Evaluated


def run(given: Mapping[str, Any]) -> None:
    """Evaluates what the options name, prints it and writes what they ask for."""
    from qrelay.files import write_atomic
    from qrelay.reports import require_libraries
    from qrelay.training.evaluation.evaluate import from_json
    from qrelay.training.evaluation.reporting import document_of, write_runs

    require_libraries(given["html"])
    if not given["run_file"]:
        required(given, "model")
    against = given["against"]
    baseline = from_json(_read(against)) if against else None
    collection = collection_of(given)
    evaluated = _evaluated(given, collection)
    document = document_of(collection, evaluated, baseline)
    write_json(given["json_file"], document)
    if given["run_out"]:
        write_runs(given["run_out"], evaluated)
    if given["html"]:
        from qrelay.training.evaluation.page import page_of

        write_atomic(given["html"], page_of(document))
    if given["as_json"]:
        echo_json(document)
    else:
        _print(document)


def _evaluated(given: Mapping[str, Any], collection: Collection) -> list[Evaluated]:
    """The models in order; where none is named, the run by itself, under its file's name."""
    from qrelay.formats.documents import nothing_shared
    from qrelay.progress import shown
    from qrelay.training.evaluation.evaluate import evaluate
    from qrelay.training.evaluation.measures import STANDARD
    from qrelay.training.evaluation.reporting import Evaluated, evaluate_models

    measures, path = given["measures"] or STANDARD, given["run_file"]
    if not given["model"]:
        run = run_of(path, collection)
        note(nothing_shared(run, collection.qrels, str(path), "the qrels"))
        return [Evaluated(evaluate(collection, system_of(path), run, measures), run)]
    options = options_of(given, collection)
    with shown():
        return evaluate_models(collection, given["model"], options, measures)


def _read(path: Path) -> Mapping[str, Any]:
    from qrelay.errors import MalformedInput

    try:
        found = json_document(path.read_bytes())
    except ValueError as error:
        raise MalformedInput(f"cannot read {path}: {error}; give what `qrelay eval --json-file` wrote") from error
    return found if isinstance(found, dict) else {}


def _print(document: Mapping[str, Any]) -> None:
    from qrelay.training.evaluation.reporting import comparisons_in, systems_in

    comparisons = {each["new"]: each for each in comparisons_in(document)}
    for system in systems_in(document):
        found = comparisons.get(system["system"])
        click.echo(
            f"{system['system']}: {system['queries']} queries" + (f", against {found['old']}" if found else "")
        )
        for name, value in system["means"].items():
            test = found["measures"].get(name) if found else None
            click.echo(f"  {name:<8} {value:.4f}{_tested(test)}")


def _tested(test: Mapping[str, Any] | None) -> str:
    if test is None:
        return ""
    relative = "" if test["relative"] is None else f"{test['relative']:+.1%} on "
    interval = "" if test["low"] is None else f"95% {test['low']:+.4f} to {test['high']:+.4f}, "
    return (
        f"  {relative}{test['old']:.4f} ({interval}p {test['p_bootstrap']:.4f} bootstrap, {test['p_fisher']:.4f}"
        f" randomisation, {test['p_fisher_holm']:.4f} with Holm); {test['wins']} wins, {test['losses']} losses"
    )

"""`qrelay eval agreement`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.eval.options import (
    FILE,
    OUT,
    corpus_options,
    files_of,
    model_options,
    note,
    options_of,
    system_of,
    write_json,
)
from qrelay.cli.group import example
from qrelay.cli.options import json_file_option, json_option
from qrelay.output import echo_json

if TYPE_CHECKING:
    from qrelay.formats.beir import Collection, Run
    from qrelay.training.evaluation.agreement import Judged


_DEFAULT = "[default: that of the export's scale by its manifest, else 1]"


@click.command(
    "agreement",
    epilog=example(
        "qrelay eval agreement --qrels-a people.qrels --qrels-b judge.qrels --run bm25.run --run dense.run"
    ),
)
@corpus_options
@click.option("--qrels-a", type=FILE, required=True, help="The reference: people's or gold labels.")
@click.option("--qrels-b", type=FILE, required=True, help="The labels in question, such as an LLM judge's.")
@click.option("--relevant-from-a", type=click.IntRange(1), help=f"Least relevant grade.  {_DEFAULT}")
@click.option("--relevant-from-b", type=click.IntRange(1), help=f"Least relevant grade.  {_DEFAULT}")
@click.option("--run", "runs", type=FILE, multiple=True, help="TREC run of a system, named as its file; repeatable.")
@click.option("--model", "models", multiple=True, help="Model to run as a system, or `bm25`; repeatable.")
@model_options
@click.option("--measure", "measures", multiple=True, help="Measure of ir-measures.  [default: the usual nine]")
@click.option("--rbo-p", default=0.9, show_default=True, help="Of rank-biased overlap: smaller weighs the top more.")
@click.option("--seed", default=0, show_default=True, help="Of the bootstrap.")
@json_option()
@json_file_option()
@click.option("--plot", type=OUT, help="PNG to write: every system under both, by the first measure.")
def agreement_command(**given: Any) -> None:
    """Compare two qrels: the order of systems (Kendall's tau, tau_AP, rank-biased overlap), and the labels (kappa).

    Where some of the files are of documents and others of passages, all are taken by document.
    """
    from qrelay.files import write_atomic
    from qrelay.training.evaluation.agreement import agreement
    from qrelay.training.evaluation.measures import STANDARD
    from qrelay.training.evaluation.plots import agreement_png

    a, b = _judged(given, "a"), _judged(given, "b")
    measures = given["measures"] or STANDARD
    a, b, runs = _by_document(given, a, b, {**read_runs(given["runs"]), **_answered(given, a)})
    found = agreement(a, b, runs, measures, rbo_p=given["rbo_p"], seed=given["seed"])
    write_json(given["json_file"], found)
    if given["plot"]:
        write_atomic(given["plot"], agreement_png(measures[0], found["measures"][measures[0]]))
    if given["as_json"]:
        echo_json(found)
    else:
        _print(found)


def _judged(given: Mapping[str, Any], side: str) -> Judged:
    from qrelay.formats.beir import read_qrels
    from qrelay.training.evaluation.agreement import Judged
    from qrelay.training.evaluation.manifests import relevant_from

    path = given[f"qrels_{side}"]
    least, remark = relevant_from(given[f"relevant_from_{side}"], path)
    note(remark)
    return Judged(read_qrels(path), least)


def _by_document(
    given: Mapping[str, Any], a: Judged, b: Judged, runs: Mapping[str, Run]
) -> tuple[Judged, Judged, dict[str, Run]]:
    """All of it by document where some is, with notes on what was folded and on what no side judged."""
    from dataclasses import replace

    from qrelay.formats.documents import fold_qrels, fold_run, nothing_shared, to_one_level

    documents = to_one_level((a.qrels, b.qrels, *runs.values()))
    sides: list[Judged] = []
    folded = 0
    for side, name in ((a, given["qrels_a"]), (b, given["qrels_b"])):
        qrels, count = fold_qrels(side.qrels, documents, str(name))
        sides.append(replace(side, qrels=qrels))
        folded += count
    found: dict[str, Run] = {}
    for name, run in runs.items():
        found[name], count = fold_run(run, documents)
        folded += count
        for side, path in zip(sides, (given["qrels_a"], given["qrels_b"]), strict=True):
            note(nothing_shared(found[name], side.qrels, name, str(path)))
    if folded:
        note(f"some files are of documents: {folded} passages stand for theirs, each with its best one's value")
    return sides[0], sides[1], found


def read_runs(files: tuple[Path, ...]) -> dict[str, Run]:
    """System -> its run. Raises ConfigError: two files of one name."""
    from qrelay.errors import ConfigError
    from qrelay.formats.runs import read_run

    names = [system_of(file) for file in files]
    if len(set(names)) < len(names):
        raise ConfigError("two runs have files of one name, which is their system's name: rename one")
    return {name: read_run(file) for name, file in zip(names, files, strict=True)}


def _answered(given: Mapping[str, Any], a: Judged) -> dict[str, Run]:
    """The models' runs over the reference's collection."""
    if not given["models"]:
        return {}
    from qrelay.progress import shown
    from qrelay.training.evaluation.reporting import evaluate_models

    collection = _collection(given, a)
    with shown():
        evaluated = evaluate_models(collection, given["models"], options_of(given, collection), ("RR@10",))
    return {each.evaluation.system: each.run for each in evaluated}


def _collection(given: Mapping[str, Any], a: Judged) -> Collection:
    from qrelay.formats.beir import read_collection

    return read_collection(*files_of({**given, "qrels": given["qrels_a"]}), relevant_from=a.relevant_from)


def _print(found: Mapping[str, Any]) -> None:
    click.echo(
        f"{found['queries']} queries with a relevant document in both ({found['queries_a']} in a,"
        f" {found['queries_b']} in b)"
    )
    labels = found["labels"]
    if labels["pairs"]:
        click.echo(
            f"{labels['pairs']} pairs in both ({labels['pairs_a']} in a, {labels['pairs_b']} in b): kappa"
            f" {labels['kappa']:.3f} (relevant or not), {labels['kappa_quadratic']:.3f} (grades, quadratic weights)"
        )
    for name, row in found["measures"].items():
        tau = "none, all tie" if row["tau"] is None else f"{row['tau']:.3f}"
        if row["tau_low"] is not None:
            tau += f" (95% {row['tau_low']:.3f} to {row['tau_high']:.3f})"
        click.echo(f"{name}: tau {tau}, tau_AP {row['tau_ap']:.3f}, RBO {row['rbo']:.3f}")
        for system in sorted(row["systems"], key=lambda each: each["rank_a"]):
            places = f"rank {system['rank_a']} and {system['rank_b']}"
            click.echo(f"  {system['system']:<30} a {system['a']:.4f}  b {system['b']:.4f}  {places}")

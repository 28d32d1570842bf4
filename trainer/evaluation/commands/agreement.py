"""`qrelay eval agreement`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.options import json_file_option, json_option
from qrelay.cli.output import echo_json
from trainer.evaluation.commands.options import (
    FILE,
    OUT,
    corpus_options,
    model_options,
    options_of,
    required,
    write_json,
)

if TYPE_CHECKING:
    from trainer.evaluation.agreement import Judged
    from trainer.evaluation.collection import Collection, Run


@click.command(
    "agreement",
    epilog=example(
        "qrelay eval agreement --qrels-a people.qrels --qrels-b judge.qrels --run bm25.run --run dense.run"
    ),
)
@corpus_options
@click.option("--qrels-a", type=FILE, required=True, help="The reference: people's or gold labels.")
@click.option("--qrels-b", type=FILE, required=True, help="The labels in question, such as an LLM judge's.")
@click.option("--relevant-from-a", default=1, show_default=True, type=click.IntRange(1), help="Least relevant grade.")
@click.option("--relevant-from-b", default=1, show_default=True, type=click.IntRange(1), help="Least relevant grade.")
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
    """Compare the order of systems under two qrels: Kendall's tau, tau_AP, rank-biased overlap."""
    from qrelay.files import write_atomic
    from trainer.evaluation.agreement import Judged, agreement
    from trainer.evaluation.collection import read_qrels
    from trainer.evaluation.measures import STANDARD
    from trainer.evaluation.plots import agreement_png

    a = Judged(read_qrels(given["qrels_a"]), given["relevant_from_a"])
    b = Judged(read_qrels(given["qrels_b"]), given["relevant_from_b"])
    measures = given["measures"] or STANDARD
    runs = {**_read_runs(given["runs"]), **_answered(given, a)}
    found = agreement(a, b, runs, measures, rbo_p=given["rbo_p"], seed=given["seed"])
    write_json(given["json_file"], found)
    if given["plot"]:
        write_atomic(given["plot"], agreement_png(measures[0], found["measures"][measures[0]]))
    if given["as_json"]:
        echo_json(found)
    else:
        _print(found)


def _read_runs(files: tuple[Path, ...]) -> dict[str, Run]:
    from qrelay.errors import ConfigError
    from trainer.evaluation.collection import read_run

    names = [file.name.removesuffix(".gz").rsplit(".", 1)[0] for file in files]
    if len(set(names)) < len(names):
        raise ConfigError("two runs have files of one name, which is their system's name: rename one")
    return {name: read_run(file) for name, file in zip(names, files, strict=True)}


def _answered(given: Mapping[str, Any], a: Judged) -> dict[str, Run]:
    """The models' runs over the reference's collection."""
    if not given["models"]:
        return {}
    from qrelay.progress import shown
    from trainer.evaluation.reporting import evaluate_models

    collection = _collection(given, a)
    with shown():
        evaluated = evaluate_models(collection, given["models"], options_of(given), ("RR@10",))
    return {each.evaluation.system: each.run for each in evaluated}


def _collection(given: Mapping[str, Any], a: Judged) -> Collection:
    from trainer.evaluation.collection import read_collection
    from trainer.evaluation.lines import file_in

    corpus = required(given, "corpus")
    if not given["queries"] and not corpus.is_dir():
        raise click.UsageError("Missing option '--queries': models answer them.")
    queries = given["queries"] or file_in(corpus, "queries.jsonl")
    return read_collection(corpus, queries, given["qrels_a"], relevant_from=a.relevant_from)


def _print(found: Mapping[str, Any]) -> None:
    click.echo(
        f"{found['queries']} queries with a relevant document in both ({found['queries_a']} in a,"
        f" {found['queries_b']} in b)"
    )
    for name, row in found["measures"].items():
        tau = "none, all tie" if row["tau"] is None else f"{row['tau']:.3f}"
        if row["tau_low"] is not None:
            tau += f" (95% {row['tau_low']:.3f} to {row['tau_high']:.3f})"
        click.echo(f"{name}: tau {tau}, tau_AP {row['tau_ap']:.3f}, RBO {row['rbo']:.3f}")
        for system in sorted(row["systems"], key=lambda each: each["rank_a"]):
            places = f"rank {system['rank_a']} and {system['rank_b']}"
            click.echo(f"  {system['system']:<30} a {system['a']:.4f}  b {system['b']:.4f}  {places}")

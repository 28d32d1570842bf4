"""`qrelay eval`: how good a retriever or reranker is on a collection in BEIR's layout.

The bare command measures models; its commands (`qrelay eval freeze`, …) do the rest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from qrelay.cli.eval import evaluate
from qrelay.cli.eval.agreement import agreement_command
from qrelay.cli.eval.answers import answers_command
from qrelay.cli.eval.freeze import freeze_command
from qrelay.cli.eval.intervals import intervals_command, sample_command
from qrelay.cli.eval.leaderboard import leaderboard_command
from qrelay.cli.eval.options import FILE, OUT, collection_options, model_options
from qrelay.cli.group import Group, example
from qrelay.cli.options import json_file_option, json_option


@click.group(
    "eval",
    invoke_without_command=True,
    subcommand_metavar="[COMMAND [ARGS]...]",
    cls=Group,
    epilog=example("qrelay eval --model bm25 --model all-MiniLM-L6-v2 --corpus beir-folder"),
)
@click.option(
    "--model",
    multiple=True,
    help="Folder or catalogue name of a model, or `bm25`; repeatable, the first is the base.",
)
@collection_options
@click.option("--run", "run_file", type=FILE, help="TREC run that a cross-encoder reorders.  [default: BM25 top 100]")
@model_options
@click.option("--against", type=FILE, help="JSON of another evaluation: paired tests against it.")
@click.option("--measure", "measures", multiple=True, help="Measure of ir-measures.  [default: the usual nine]")
@json_option()
@json_file_option()
@click.option("--html", type=OUT, help="Page to write: one file with everything in it.")
@click.option(
    "--run-out", type=click.Path(path_type=Path), help="TREC run to write; with several models a folder of runs."
)
@click.pass_context
def evaluate_command(context: click.Context, /, **given: Any) -> None:
    """Measure models on a collection: BM25, bi-encoders (exact search), cross-encoders over a run.

    Means are over all queries with a relevant document; a query without an answer counts as 0. Several models, or
    --against, are compared query by query, with paired tests.
    """
    if context.invoked_subcommand is None:
        evaluate.run(given)
        return
    spoken = [name for name in given if context.get_parameter_source(name) is not ParameterSource.DEFAULT]
    if spoken:
        raise click.UsageError(
            f"options of `qrelay eval` stand before {context.invoked_subcommand}: put them after it"
        )


evaluate_command.add_command(answers_command)
evaluate_command.add_command(freeze_command)
evaluate_command.add_command(agreement_command)
evaluate_command.add_command(intervals_command)
evaluate_command.add_command(sample_command)
evaluate_command.add_command(leaderboard_command)

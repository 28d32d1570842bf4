"""`qrelay eval freeze`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from qrelay.cli.eval.options import FILE, PLACE, files_of, note
from qrelay.cli.group import example


@click.command(
    "freeze",
    epilog=example("qrelay eval freeze --corpus beir-folder --labels human --name docs-test --out frozen/docs-test"),
)
@click.option(
    "--corpus", type=PLACE, required=True, help="BEIR folder (also of `qrelay export beir`) or corpus file."
)
@click.option("--queries", type=FILE, help="queries.jsonl[.gz].  [default: the BEIR folder's]")
@click.option("--qrels", type=FILE, help="BEIR's TSV or TREC's; .gz too.  [default: qrels/test.tsv there]")
@click.option(
    "--labels",
    type=click.Choice(["human", "gold", "judge"]),
    help="Whose the labels are: people's, the data's own, an LLM judge's.  [default: what an export's manifest says]",
)
@click.option("--judge-model", multiple=True, help="With --labels judge: the model that judged; repeatable.")
@click.option("--judge-revision", default="", help="Its revision.")
@click.option("--judge-strategy", default="", help="Its strategy.")
@click.option(
    "--relevant-from",
    type=click.IntRange(1),
    help="Least relevant grade.  [default: that of the export's scale, else 1]",
)
@click.option("--name", required=True, help="Name of the set, for people and reports.")
@click.option(
    "--collection", help="Collection of the queries: `qrelay forget` knows them by it.  [default: the export's]"
)
@click.option("--about", default="", help="A sentence about it.")
@click.option("--sample", type=click.IntRange(1), help="Keep this many queries.  [default: all]")
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Folder to write; must not exist.")
def freeze_command(**given: Any) -> None:
    """Make a frozen evaluation set, which a gate can trust not to change."""
    from qrelay.training.evaluation.freezing import collection_of, freeze, labels_of
    from qrelay.training.evaluation.manifests import relevant_from

    judges = [
        {"model": model, "revision": given["judge_revision"], "strategy": given["judge_strategy"]}
        for model in given["judge_model"]
    ]
    files = files_of(given)
    labels = labels_of(given["labels"], judges, given["corpus"], given["relevant_from"])
    if given["relevant_from"]:
        note(relevant_from(given["relevant_from"], files[-1])[1])
    found = freeze(
        given["out"],
        files,
        name=given["name"],
        labels=labels,
        collection_name=given["collection"] or collection_of(given["corpus"]),
        about=given["about"],
        sample=given["sample"],
        seed=given["seed"],
        say=note,
    )
    judged = ", ".join(judge["model"] for judge in found.judges)
    click.echo(
        f"{found.name}: {len(found.collection.queries)} queries, {len(found.collection.doc_ids)} documents, labels:"
        f" {found.source}{f' ({judged})' if judged else ''}, relevant from grade {found.collection.relevant_from}\n"
        f"sha256 {found.sha256}\n{given['out']}"
    )

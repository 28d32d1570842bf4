"""`qrelay eval`: how good a retriever or reranker is on a collection in BEIR's layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from trainer.evaluation.collection import Collection, Run

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_PLACE = click.Path(path_type=Path, exists=True)


@click.command("eval")
@click.option("--model", required=True, help="Folder or catalogue name of a model, or `bm25`.")
@click.option("--corpus", type=_PLACE, required=True, help="BEIR folder, or its corpus.jsonl[.gz].")
@click.option("--queries", type=_FILE, required=True, help="queries.jsonl[.gz].")
@click.option("--qrels", type=_FILE, required=True, help="BEIR qrels TSV, or TREC qrels; .gz too.")
@click.option(
    "--run", "run_file", type=_FILE, help="TREC run that a cross-encoder orders anew.  [default: BM25 top 100]"
)
@click.option("--depth", default=100, show_default=True, type=click.IntRange(1), help="Documents a query.")
@click.option(
    "--max-length", type=click.IntRange(8), help="Tokens of a text.  [default: 256, a cross-encoder's pair 384]"
)
@click.option(
    "--vectors", type=click.Path(path_type=Path), help="File that keeps the corpus's vectors of this model."
)
@click.option("--against", type=_FILE, help="JSON of another evaluation: paired tests against it.")
@click.option("--measure", "measures", multiple=True, help="Measure of ir-measures.  [default: the usual nine]")
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False), help="JSON to write.")
def evaluate_command(
    model: str, corpus: Path, queries: Path, qrels: Path, run_file: Path | None, depth: int, max_length: int | None,
    vectors: Path | None, against: Path | None, measures: tuple[str, ...], json_file: Path | None,
) -> None:  # fmt: skip
    """Measure MODEL on a collection: BM25, a bi-encoder (exact search), or a cross-encoder over a run.

    Means are over all queries with a relevant document; a query without an answer counts as 0.
    """
    import json

    from qrelay.files import write_atomic
    from trainer.evaluation.collection import read_collection
    from trainer.evaluation.evaluate import comparison_json, evaluate, from_json
    from trainer.evaluation.measures import STANDARD

    collection = read_collection(corpus, queries, qrels)
    with _progress() as progress:
        run = _run_of(model, collection, run_file, depth, max_length, vectors, progress)
    found = evaluate(collection, model, run, measures or STANDARD)
    document = found.as_json()
    if against:
        document["against"] = comparison_json(from_json(json.loads(against.read_bytes())), found)
    if json_file:
        write_atomic(json_file, json.dumps(document, indent=1).encode())
    _print(document)


def _run_of(
    model: str,
    collection: Collection,
    run_file: Path | None,
    depth: int,
    max_length: int | None,
    vectors: Path | None,
    progress: Callable[[str, int, int], None],
) -> Run:
    from qrelay.models.catalogue import resolve
    from trainer.evaluation import systems
    from trainer.evaluation.collection import read_run

    if model == "bm25":
        return systems.bm25_run(collection, depth)
    folder = Path(model) if Path(model).is_dir() else resolve(model).path
    if systems.is_cross_encoder(folder):
        first = read_run(run_file) if run_file else systems.bm25_run(collection, depth)
        encoder = systems.load_cross_encoder(folder, max_length=max_length or 384)
        return systems.cross_encoder_run(collection, encoder, first, depth=depth, progress=progress)
    encoder = systems.load_bi_encoder(folder, max_length=max_length or 256)
    return systems.bi_encoder_run(collection, encoder, depth=depth, vectors=vectors, progress=progress)


@contextmanager
def _progress() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=None)
        yield lambda what, done, total: bar.update(task, description=what, completed=done, total=total)


def _print(document: dict[str, Any]) -> None:
    click.echo(f"{document['system']}: {document['queries']} queries")
    tests = document.get("against", {}).get("measures", {})
    for name, value in document["means"].items():
        line = f"  {name:<8} {value:.4f}"
        if name in tests:
            test = tests[name]
            line += (
                f"  {test['relative']:+.1%} on {test['old']:.4f} (95% {test['low']:+.4f} to {test['high']:+.4f},"
                f" p {test['p_bootstrap']:.4f} bootstrap, {test['p_fisher']:.4f} randomisation);"
                f" {test['wins']} wins, {test['losses']} losses"
            )
        click.echo(line)

"""Options and output that the commands share."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from qrelay.formats.beir import Collection, Run
    from qrelay.training.evaluation.answering import Options

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
PLACE = click.Path(path_type=Path, exists=True)
OUT = click.Path(path_type=Path, dir_okay=False)
_Command = TypeVar("_Command", bound=Callable[..., Any])

_COLLECTION = (
    click.option("--corpus", type=PLACE, help="BEIR folder, or its corpus.jsonl[.gz].  [required]"),
    click.option("--queries", type=FILE, help="queries.jsonl[.gz].  [default: the BEIR folder's]"),
)
_QRELS = click.option("--qrels", type=FILE, help="BEIR's TSV or TREC's; .gz too.  [default: qrels/test.tsv there]")
_RELEVANT = click.option(
    "--relevant-from",
    type=click.IntRange(1),
    help="Least relevant grade (RR, P, R, AP).  [default: that of the export's scale by its manifest, else 1]",
)
_MODELS = (
    click.option("--depth", default=100, show_default=True, type=click.IntRange(1), help="Documents a query."),
    click.option(
        "--max-length",
        type=click.IntRange(8),
        help="Tokens of a text, or of a cross-encoder's pair, at most.  [default: the model's own]",
    ),
    click.option(
        "--vectors", type=click.Path(path_type=Path), help="Folder (or .npz file) that keeps vectors of a corpus."
    ),
    click.option("--query-prompt", "--prefix", help="Text before each query.  [default: the model's own prompt]"),
    click.option("--document-prompt", help="Text before each document.  [default: the model's own prompt]"),
    click.option(
        "--arithmetic",
        default="float32",
        show_default=True,
        type=click.Choice(["float32", "bfloat16"]),
        help="Of a corpus's vectors and of pairs; bfloat16 is faster where the processor has it, and not exact.",
    ),
    click.option("--device", default="", help="cpu, cuda, cuda:1, …  [default: a GPU where there is one]"),
)


def collection_options(command: _Command) -> _Command:
    """--corpus, --queries, --qrels, --relevant-from."""
    return _all((*_COLLECTION, _QRELS, _RELEVANT), command)


def corpus_options(command: _Command) -> _Command:
    """--corpus, --queries."""
    return _all(_COLLECTION, command)


def model_options(command: _Command) -> _Command:
    """How models answer."""
    return _all(_MODELS, command)


def _all(options: tuple[Callable[[_Command], _Command], ...], command: _Command) -> _Command:
    for option in reversed(options):
        command = option(command)
    return command


def files_of(given: Mapping[str, Any]) -> tuple[Path, Path, Path]:
    """corpus, queries and qrels as given, or those of the folder that --corpus is.

    Raises:
        click.UsageError: one is not named and cannot be found.
    """
    from qrelay.formats.lines import file_in

    corpus = required(given, "corpus")
    missing = [name for name in ("queries", "qrels") if not given[name]]
    if missing and not corpus.is_dir():
        raise click.UsageError(
            f"Missing option '--{missing[0]}': needed where --corpus is no folder in BEIR's layout."
        )
    queries = given["queries"] or file_in(corpus, "queries.jsonl")
    return corpus, queries, given["qrels"] or file_in(corpus, "qrels/test.tsv")


def collection_of(given: Mapping[str, Any]) -> Collection:
    """The collection that the options name, with notes on its qrels."""
    from qrelay.formats.beir import read_collection
    from qrelay.training.evaluation.manifests import relevant_from

    files = files_of(given)
    least, remark = relevant_from(given["relevant_from"], files[-1])
    note(remark)
    collection = read_collection(*files, relevant_from=least)
    for remark in collection.remarks():
        note(remark)
    return collection


def note(text: str) -> None:
    """Something that people should know, beside the output; nothing where it is empty."""
    if text:
        click.echo(f"note: {text}", err=True)


def run_of(path: Path, collection: Collection) -> Run:
    """A run over the collection; passages of it stand for their documents, with a note."""
    from qrelay.formats.documents import fold_run
    from qrelay.formats.runs import read_run

    run, folded = fold_run(read_run(path), collection.text_of)
    if folded:
        note(f"{folded} passages of {path} stand for their documents, each with its best passage's score")
    return run


def system_of(path: Path) -> str:
    """The name of the system whose run the file is."""
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


def options_of(given: Mapping[str, Any], collection: Collection) -> Options:
    """How the options say that models answer the collection; `run_file` is the first run of cross-encoders."""
    from qrelay.training.evaluation.answering import Options

    prompts = {"query": given["query_prompt"], "document": given["document_prompt"]}
    return Options(
        depth=given["depth"],
        first=run_of(given["run_file"], collection) if given.get("run_file") else None,
        max_length=given["max_length"] or 0,
        prompts={kind: prompt for kind, prompt in prompts.items() if prompt is not None},
        arithmetic=given["arithmetic"],
        vectors=given["vectors"],
        device=given["device"],
    )


def required(given: Mapping[str, Any], name: str) -> Any:
    """The option's value. Raises click.UsageError: it was not given."""
    if not given[name]:
        raise click.UsageError(f"Missing option '--{name.replace('_', '-')}'.")
    return given[name]


def write_json(path: Path | None, document: Mapping[str, Any]) -> None:
    """The document, where a path is named; numbers that are none are null."""
    from qrelay.files import write_atomic

    if path:
        write_atomic(path, json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

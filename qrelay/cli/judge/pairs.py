"""Annotated pairs on the command line: where they come from, and how the configured judges label them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.options import data_dir_option

if TYPE_CHECKING:
    from qrelay.formats.annotated_pairs import GradedPair
    from qrelay.judging.qualification.table import Table
    from qrelay.judging.settings import JudgeSettings

FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


def source_options(where: str = "", *, queries: str = "", qrels: str = "") -> list[Callable[[Any], Any]]:
    """The files that pairs come from. where: more on --corpus; queries, qrels: their defaults."""
    return [
        click.option("--slice", "slice_", type=FILE, help="TSV of annotated pairs; grades may be empty."),
        click.option(
            "--corpus",
            type=click.Path(path_type=Path, exists=True),
            help=f"BEIR folder or its corpus.jsonl[.gz], instead of --slice{where}.",
        ),
        click.option("--queries", type=FILE, help=f"BEIR queries.jsonl[.gz].{queries}"),
        click.option("--qrels", type=FILE, help=f"BEIR's TSV or TREC's; .gz too.{qrels}"),
    ]


def pairs_options(command: Any) -> Any:
    """Where graded pairs come from."""
    options = [
        *source_options("; with --queries and --qrels"),
        click.option("--rest", type=FILE, help="TSV of more pairs, judged but not graded: for the relevant share."),
        click.option("--answers", type=FILE, help="JSONL of reference answers: _id, answers."),
        click.option("--max-words", default=160, show_default=True, help="Words of a document that are judged."),
        click.option("--relevant-from", type=int, required=True, help="The least grade that counts as relevant."),
        data_dir_option(),
    ]
    for option in reversed(options):
        command = option(command)
    return command


async def judged_pairs(
    settings: JudgeSettings, options: dict[str, Any], embedders: Sequence[str] | None = None
) -> Table:
    """The pairs with the judges' labels, and with retrieval scores unless `embedders` is None."""
    from qrelay.judging.load import load_panel
    from qrelay.judging.qualification.stages import StageOptions, score_pairs
    from qrelay.judging.qualification.table import measure
    from qrelay.judging.shots import unseen
    from qrelay.progress import shown, step

    _refuse_own_model(settings, embedders or ())
    given, corpus = _pairs(options)
    pairs = unseen(given, settings.members().values())
    _refuse_trained(settings, pairs)
    if len(pairs) < len(given):
        click.echo(
            f"left out {len(given) - len(pairs)} pairs of queries that judge.shots shows as examples", err=True
        )
    stages = {}
    if embedders is not None:
        stages = score_pairs(pairs, StageOptions(embedders, corpus), lambda what: click.echo(what, err=True))
    panel = load_panel(settings)
    try:
        with shown(), step("judging", total=len(pairs), unit="pairs") as judging:
            table = await measure(panel, pairs, stages, options["relevant_from"], judging.advance)
            return replace(table, collection=_named(options))
    finally:
        panel.close()


def _named(options: dict[str, Any]) -> str:
    """What the pairs came from: the folder's name, or the file's."""
    named: Path | None = options["corpus"] or options["slice_"]
    if named is None:
        return ""
    return named.resolve().name if named.is_dir() else named.name.partition(".")[0]


def _refuse_own_model(settings: JudgeSettings, embedders: Sequence[str]) -> None:
    """A judge that gives the retriever's own score is no judge of it: it would know exactly as much."""
    for name, own in settings.members().items():
        if own.backend == "embedder" and own.model in embedders[:1]:
            raise click.UsageError(
                f"the judge {name} is {own.model}, the retriever's embedder (--embedder), whose score is called "
                "dense: judge by another model"
            )


def _refuse_trained(settings: JudgeSettings, pairs: Sequence[GradedPair]) -> None:
    """A judge that was trained on a query's labels knows people's answers: measuring it there flatters it."""
    for name, own in settings.members().items():
        if own.backend in ("cross-encoder", "embedder") and own.model != "hash":
            from qrelay.models.catalogue import resolve
            from qrelay.training.gate.facts import query_hash, read_query_hashes

            asked = {query_hash(pair.query): pair.query_id for pair in pairs}
            known = sorted(asked[each] for each in asked.keys() & (read_query_hashes(resolve(own.model).path) or ()))
            if known:
                raise click.UsageError(
                    f"the judge {name} was trained on {len(known)} of these {len(asked)} queries ({known[0]}, …): "
                    "measure it on pairs of other queries, or train it without these"
                )


def _pairs(options: dict[str, Any]) -> tuple[list[GradedPair], list[tuple[str, str]]]:
    """The pairs, and the corpus (title, text) that BM25 counts in."""
    from qrelay.formats.annotated_pairs import corpus_texts, read_annotated_pairs, read_beir

    beir = [options["corpus"], options["queries"], options["qrels"]]
    rest = read_annotated_pairs(options["rest"], ungraded=True) if options["rest"] else []
    if options["slice_"] and not any(beir):
        graded = read_annotated_pairs(options["slice_"])
        known = {(pair.query_id, pair.passage_id) for pair in graded}
        return graded + [pair for pair in rest if (pair.query_id, pair.passage_id) not in known], []
    if not all(beir) or options["slice_"]:
        raise click.UsageError("give --slice FILE, or --corpus, --queries and --qrels")
    words = options["max_words"]
    pairs = read_beir(*beir, answers=options["answers"], max_words=words)
    return pairs + rest, corpus_texts(options["corpus"], max_words=words)


def judge_settings(config: Path | None, data_dir: Path) -> JudgeSettings:
    """The judge's settings."""
    from qrelay.judging.settings import JudgeSettings
    from qrelay.settings import load_settings

    return load_settings(JudgeSettings, "judge", file=config, data_dir=data_dir)

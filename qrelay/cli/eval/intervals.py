"""`qrelay eval intervals` and `qrelay eval sample`: a judge's qrels made right by a sample that people graded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.eval.agreement import read_runs
from qrelay.cli.eval.options import FILE, OUT, corpus_options, files_of, note, write_json
from qrelay.cli.group import example
from qrelay.cli.options import json_file_option, json_option
from qrelay.output import Rows, echo_json, show

if TYPE_CHECKING:
    from qrelay.formats.annotated_pairs import GradedPair
    from qrelay.formats.beir import Run
    from qrelay.training.evaluation.agreement import Judged

_SCALE = "[default: that of the export's scale by its manifest, else 1]"
_SHARED = (
    click.option("--qrels", type=FILE, required=True, help="The judge's labels: BEIR's TSV or TREC's; .gz too."),
    click.option("--run", "runs", type=FILE, multiple=True, required=True, help="TREC run of a system; repeatable."),
    click.option("--measure", "measures", multiple=True, help="Measure of ir-measures.  [default: nDCG@10]"),
    click.option("--relevant-from", type=click.IntRange(1), help=f"Least relevant grade of the judge.  {_SCALE}"),
)
_WORDS = 1_000
"""Of a passage that people read: all of it, nearly always."""
_NEEDED = {"query": ("queries_needed", "pairs_to_grade"), "pair": ("pairs_needed",)}
"""What is said of a width, by the unit."""


def _shared(command: Any) -> Any:
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.command(
    "intervals",
    epilog=example(
        "qrelay eval intervals --qrels judge.qrels --people graded.tsv --run bm25.run --run dense.run --width 0.1"
    ),
)
@_shared
@click.option(
    "--people", type=FILE, required=True, help="The sample that people graded: of `qrelay eval sample`, or qrels."
)
@click.option(
    "--relevant-from-people", type=click.IntRange(1), help="Least relevant grade of people.  [default: the judge's]"
)
@click.option(
    "--target",
    type=click.Choice(["population", "these"]),
    default="population",
    show_default=True,
    help="The mean of all queries like these, or of these queries alone.",
)
@click.option("--width", type=click.FloatRange(min=0, min_open=True), help="Say how many grades this width needs.")
@json_option()
@json_file_option()
def intervals_command(**given: Any) -> None:
    """Estimate what people would measure, from a judge's labels and a sample that people graded.

    Prediction-powered 95% intervals of each system and of its difference to the first one. The sample must be drawn
    by chance: whole queries, or pairs with the probabilities of `qrelay eval sample`.
    """
    from qrelay.formats.graded_sample import read_graded_sample
    from qrelay.training.evaluation.powered import Wanted, powered

    llm, people = _judged(given), read_graded_sample(given["people"])
    lowest = min((grade for grades in people.grades.values() for grade in grades.values()), default=0)
    note(f"people's lowest grade is {lowest}: gains are the grades, so count them from 0" if lowest else "")
    found = powered(
        llm,
        people,
        _systems(given, llm),
        given["measures"] or ("nDCG@10",),
        Wanted(given["target"], given["width"]),
        relevant_from=given["relevant_from_people"] or llm.relevant_from,
    )
    write_json(given["json_file"], found)
    if given["as_json"]:
        echo_json(found)
    else:
        _print(found, given["width"])


def _judged(given: Mapping[str, Any]) -> Judged:
    from qrelay.formats.beir import read_qrels
    from qrelay.training.evaluation.agreement import Judged
    from qrelay.training.evaluation.manifests import relevant_from

    least, remark = relevant_from(given["relevant_from"], given["qrels"])
    note(remark)
    return Judged(read_qrels(given["qrels"]), least)


def _systems(given: Mapping[str, Any], llm: Judged) -> dict[str, Run]:
    """The runs, with a note on those that the labels have nothing to say of."""
    from qrelay.formats.documents import nothing_shared

    runs = read_runs(given["runs"])
    for name, run in runs.items():
        note(nothing_shared(run, llm.qrels, name, str(given["qrels"])))
    return runs


def _print(found: Mapping[str, Any], width: float | None) -> None:
    whole = found["unit"] == "query"
    of = "all queries like these" if found["target"] == "population" else "these queries"
    drawn = f"{found['queries_graded']} of {found['queries']} queries" if whole else f"of {found['pairs']} pairs"
    click.echo(f"unit: {found['unit']}; people graded {found['pairs_graded']} pairs, {drawn}; means of {of}")
    for measure, rows in found["measures"].items():
        more = ["people only", "correlation"] if whole else []
        more += [name.replace("_", " ") for name in _NEEDED[found["unit"]]] if width else []
        cells = [_cells(row, [] if width is None else _NEEDED[found["unit"]]) for row in rows]
        show(Rows((measure, "judge only", "estimate", "95% interval", *more), cells))


def _cells(row: Mapping[str, Any], needed: Sequence[str]) -> list[str]:
    cells = [row["system"], f"{row['judge_only']:.4f}", f"{row['estimate']:.4f}", _interval(row)]
    if "people_only" in row:
        cells += [_interval(row["people_only"]), f"{row['correlation']:.2f}"]
    return cells + ["more than there are" if row[name] is None else str(row[name]) for name in needed]


def _interval(row: Mapping[str, Any]) -> str:
    return f"{row['low']:.4f} to {row['high']:.4f}"


@click.command(
    "sample",
    epilog=example("qrelay eval sample --qrels judge.qrels --run bm25.run --corpus beir --n 20 --out to-grade.tsv"),
)
@_shared
@corpus_options
@click.option(
    "--unit",
    type=click.Choice(["query", "pair"]),
    default="query",
    show_default=True,
    help="Draw whole queries, for every measure; or pairs, for P@k and DCG@k: those most often that move them most.",
)
@click.option("--n", "count", type=click.IntRange(1), required=True, help="Queries, or about so many pairs, in all.")
@click.option("--people", type=FILE, help="What people graded so far: its grades are taken over.")
@click.option("--seed", default=0, show_default=True, help="Another seed draws others; a larger --n adds to it.")
@click.option("--out", type=OUT, required=True, help="TSV to write, as `qrelay judge slice` does; `grade` is empty.")
def sample_command(**given: Any) -> None:
    """Draw what people should grade for `qrelay eval intervals`, as a table to fill in.

    Let people grade every row. To go on, call it with a larger --n and the graded file as --people.
    """
    from qrelay.errors import InputError
    from qrelay.formats.annotated_pairs import write_annotated_pairs
    from qrelay.formats.graded_sample import GradedSample, read_graded_sample

    if given["out"].exists():
        raise InputError(f"{given['out']} exists, perhaps with grades in it: choose another --out")
    before = read_graded_sample(given["people"]) if given["people"] else GradedSample({})
    rows = list(_drawn(given, before))
    chances = None if given["unit"] == "query" else [chance for _, chance in rows]
    write_annotated_pairs(given["out"], (pair for pair, _ in rows), inclusion=chances)
    to_grade = sum(pair.grade is None for pair, _ in rows)
    queries = len({pair.query_id for pair, _ in rows})
    click.echo(f"{given['out']}: {len(rows)} pairs of {queries} queries, {to_grade} of them to grade")


def _drawn(given: Mapping[str, Any], before: Any) -> Iterator[tuple[GradedPair, float]]:
    """The pairs with people's grades so far, never the judge's, and their probabilities."""
    from dataclasses import replace

    from qrelay.formats.annotated_pairs import read_beir
    from qrelay.training.evaluation.next_grades import drawn_pairs, whole_queries

    llm, measures = _judged(given), given["measures"] or ("nDCG@10",)
    runs = _systems(given, llm)
    if given["unit"] == "query":
        chosen = dict.fromkeys(whole_queries(llm.qrels, runs, measures, given["count"], given["seed"]), 1.0)
    else:
        chosen = drawn_pairs(llm, runs, measures, given["count"], given["seed"])
    texts = {(pair.query_id, pair.passage_id): pair for pair in read_beir(*files_of(given), max_words=_WORDS)}
    lost = {(query_id, doc_id) for query_id, grades in before.grades.items() for doc_id in grades} - chosen.keys()
    note(f"{len(lost)} pairs that people graded are not in this sample and are left out" if lost else "")
    for key, chance in chosen.items():
        grade = before.grades.get(key[0], {}).get(key[1])
        yield replace(texts[key], grade=grade, reference_answers=()), chance

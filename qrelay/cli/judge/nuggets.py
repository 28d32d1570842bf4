"""`qrelay judge nuggets create | assign | score`: what a good answer must say, and which texts say it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import Group, example
from qrelay.cli.judge.asking import OUT, ask, engine_options, pairs_options, read_pairs, settings_of
from qrelay.cli.judge.pairs import FILE
from qrelay.cli.options import json_option
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.output import Rows, echo_json, show

if TYPE_CHECKING:
    from qrelay.formats.annotated_pairs import GradedPair
    from qrelay.judging.asking import Asker
    from qrelay.judging.nuggets.records import Assignment, NuggetList, Text
    from qrelay.judging.nuggets.scores import Scored
    from qrelay.types import Missing

_EXAMPLE = "qrelay judge nuggets create --corpus beir-folder --relevant-from 2 --out nuggets.jsonl"


@click.group("nuggets", cls=Group, epilog=example(_EXAMPLE))
def nuggets() -> None:
    """Nuggets: facts that a good answer must say, and which texts say them."""


@nuggets.command(epilog=example(_EXAMPLE))
@pairs_options()
@click.option("--relevant-from", type=int, required=True, help="The least grade that counts as relevant.")
@click.option("--from-answers", type=FILE, help="JSONL of reference answers (_id, answers): read these, no passages.")
@click.option("--out", type=OUT, required=True, help="JSONL of nugget lists, as the nuggetizer package has them.")
@engine_options()
@json_option()
def create(**given: Any) -> None:
    """List the nuggets of each query, from its relevant passages, and say which are vital.

    At most 30 a query, the vital ones first. A killed run continues (OUT.journal.jsonl). Exit code 3: some queries
    have no list, or some nuggets no importance; the lines say why.
    """
    from qrelay.files import write_atomic
    from qrelay.judging.asking import side_by_side
    from qrelay.judging.nuggets.create import create as made
    from qrelay.judging.nuggets.records import list_line

    settings = settings_of(given)
    sources = _sources(read_pairs(given, given["from_answers"]), given)

    async def work(asker: Asker, advance: Callable[[float], None]) -> list[NuggetList]:
        async def one(source: tuple[str, str, Sequence[tuple[str, str]]]) -> NuggetList:
            return await made(asker, *source, words=given["words"], min_mass=settings.min_grade_mass)

        return await side_by_side(sources, one, advance)

    found = ask(settings, given["out"], work, "queries", len(sources))
    write_atomic(given["out"], "".join(map(list_line, found)))
    held = [nugget for each in found for nugget in each.nuggets]
    facts = {
        "queries": len(found),
        "nuggets": len(held),
        "importance": dict(Counter(each.importance or "missing" for each in held)),
        "unread_windows": sum(each.unread for each in found),
        "missing": _reasons(each.missing for each in found),
    }
    _told(facts, given, bool(facts["missing"]) or any(each.missing for each in held))


def _sources(
    pairs: Sequence[GradedPair], given: Mapping[str, Any]
) -> list[tuple[str, str, Sequence[tuple[str, str]]]]:
    """(query id, query, (title, text) of its relevant passages, the best first) of every query."""
    by_query: dict[str, list[GradedPair]] = {}
    for pair in pairs:
        by_query.setdefault(pair.query_id, []).append(pair)
    found: list[tuple[str, str, Sequence[tuple[str, str]]]] = []
    for query_id, held in by_query.items():
        relevant = [each for each in held if each.grade is not None and each.grade >= given["relevant_from"]]
        best = sorted(relevant, key=lambda each: -(each.grade or 0))
        references = [("", text) for text in held[0].reference_answers]
        passages = references if given["from_answers"] else [(each.title, each.text) for each in best]
        found.append((query_id, held[0].query, passages))
    return found


@nuggets.command(
    epilog=example("qrelay judge nuggets assign --nuggets nuggets.jsonl --texts answers.jsonl --out assigned.jsonl")
)
@click.option("--nuggets", "lists", type=FILE, required=True, help="JSONL from `create`, or from nuggetizer.")
@click.option("--texts", type=FILE, help='Answers of systems: JSONL of query_id, run_id, and "text" or "answer".')
@pairs_options(words=400)
@click.option(
    "--most", type=click.IntRange(1), default=20, show_default=True, help="Nuggets of a list that are used."
)
@click.option("--out", type=OUT, required=True, help="JSONL of the texts with what they say of each nugget.")
@engine_options()
@json_option()
def assign(**given: Any) -> None:
    """Say for each answer (--texts) or passage whether it supports each nugget of its query, in part, or not.

    A killed run continues (OUT.journal.jsonl). Exit code 3: something is missing; the lines say why.
    """
    from qrelay.files import write_atomic
    from qrelay.judging.asking import side_by_side
    from qrelay.judging.nuggets.assign import assign as assigned
    from qrelay.judging.nuggets.records import assignment_line, read_lists

    settings, lists = settings_of(given), read_lists(given["lists"])
    texts = _texts(given)

    async def work(asker: Asker, advance: Callable[[float], None]) -> list[Assignment]:
        async def one(text: Text) -> Assignment:
            shown = {"words": given["words"], "most": given["most"], "min_mass": settings.min_grade_mass}
            return await assigned(asker, text, lists.get(text.query_id), **shown)

        return await side_by_side(texts, one, advance)

    found = ask(settings, given["out"], work, "texts", len(texts))
    write_atomic(given["out"], "".join(map(assignment_line, found)))
    held = [nugget for each in found for nugget in each.nuggets]
    facts = {
        "texts": len(found),
        "assignments": dict(Counter(each.assignment or "missing" for each in held)),
        "missing": _reasons([*(each.missing for each in found), *(each.missing for each in held)]),
    }
    _told(facts, given, bool(facts["missing"]))


def _texts(given: Mapping[str, Any]) -> list[Text]:
    from qrelay.judging.nuggets.records import Text, read_answers

    if given["texts"]:
        if given["slice_"] or given["corpus"]:
            raise click.UsageError("give --texts, or passages by --slice or --corpus, not both")
        return read_answers(given["texts"])
    return [Text(each.query_id, "", each.passage_id, each.title, each.text) for each in read_pairs(given)]


@nuggets.command(epilog=example("qrelay judge nuggets score assigned.jsonl --leaderboard nuggets.eval.jsonl"))
@click.argument("file", type=FILE)
@click.option("--leaderboard", type=OUT, help="JSONL of systems' scores to write, for TREC AutoJudge.")
@click.option("--run", "run_file", type=OUT, help="TREC run of passages to write, ordered by --measure.")
@click.option("--measure", default="all", show_default=True, help="all, vital, weighted, these _strict, or expected.")
@click.option(
    "--nugget-docs",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder to write: which passages support which nugget, for TREC AutoJudge.",
)
@json_option()
def score(
    file: Path, leaderboard: Path | None, run_file: Path | None, measure: str, nugget_docs: Path | None, as_json: bool
) -> None:
    """Score texts by the nuggets that they support: shares of all, of the vital ones, weighted; strict ones count a
    partly supported nugget as not supported.

    A text with a nugget that is not assigned has no score: it is missing, and in no mean.
    """
    from qrelay.judging.nuggets.records import read_assignments
    from qrelay.judging.nuggets.scores import MEASURES, means, scored

    if measure not in MEASURES:
        raise click.UsageError(f"--measure {measure}: there are {', '.join(MEASURES)}")
    assignments = read_assignments(file)
    rows = [scored(each) for each in assignments]
    _write_scores(rows, leaderboard, run_file, measure)
    if nugget_docs:
        _write_nugget_docs(assignments, nugget_docs)
    runs, missing = means(rows), _reasons(each.missing for each in rows)
    if as_json:
        scores = [_as_row(each) for each in rows]
        echo_json({"texts": len(rows), "missing": missing, "runs": runs, "scores": scores})
        return
    table = [(run or "passages", *(_number(values[name]) for name in MEASURES)) for run, values in runs.items()]
    show(Rows(("run", *MEASURES), table))
    click.echo(f"{len(rows)} texts; missing: {_listed(missing)}")


def _write_scores(rows: Sequence[Scored], leaderboard: Path | None, run_file: Path | None, measure: str) -> None:
    from qrelay.files import write_atomic
    from qrelay.formats.leaderboards import leaderboard_lines
    from qrelay.formats.runs import run_lines

    if leaderboard:
        told = (
            (each.run_id or "passages", each.query_id, f"nugget_{name}", value)
            for each in _of_systems(rows, leaderboard)
            for name, value in each.values.items()
        )
        write_atomic(leaderboard, "".join(leaderboard_lines(told)))
    if run_file:
        run: dict[str, dict[str, float]] = {}
        for each in rows:
            value = each.values[measure]
            if value is not None:
                run.setdefault(each.query_id, {})[each.text_id] = value
        write_atomic(run_file, "".join(run_lines(run, f"nugget_{measure}")))


def _of_systems(rows: Sequence[Scored], leaderboard: Path) -> Sequence[Scored]:
    if any(not each.run_id for each in rows):
        raise click.UsageError(f"{leaderboard} would rank systems, and these texts are passages: give --run")
    return rows


def _write_nugget_docs(assignments: Iterable[Assignment], folder: Path) -> None:
    """A file a query: nugget -> the passages that support it, as `autojudge-evaluate qrel-evaluate` reads them."""
    from qrelay.files import AtomicFiles

    by_query: dict[str, dict[str, list[str]]] = {}
    for each in assignments:
        held = by_query.setdefault(each.query_id, {})
        for one in each.nuggets:
            docs = held.setdefault(one.nugget.text, [])
            docs += [each.text_id] if one.assignment == "support" else []
    with AtomicFiles() as files:
        for query_id, held in by_query.items():
            if "/" in query_id:
                raise click.UsageError(f"the query id {query_id!r} cannot be a file's name: rename it")
            told = {nugget: ["OR", {"OPEN_ENDED_ANSWER": docs}] for nugget, docs in held.items()}
            files.open(folder / f"nuggets_{query_id}.json").write(json.dumps(told, ensure_ascii=False).encode())
        files.commit()


def _as_row(each: Scored) -> dict[str, Any]:
    missing = {"missing": each.missing.reason} if each.missing else {}
    return {"qid": each.query_id, "run_id": each.run_id, "text_id": each.text_id, **each.values, **missing}


def _reasons(missing: Iterable[Missing | None]) -> dict[str, int]:
    return dict(sorted(Counter(each.reason for each in missing if each).items()))


def _told(facts: Mapping[str, Any], given: Mapping[str, Any], partial: bool) -> None:
    if given["as_json"]:
        echo_json(facts)
    else:
        told = "; ".join(
            f"{name}: {_listed(each) if isinstance(each, dict) else each}" for name, each in facts.items()
        )
        click.echo(f"{given['out']}: {told}")
    if partial:
        raise SystemExit(EXIT_PARTIAL)


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items()) or "none"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"

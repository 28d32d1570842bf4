"""`qrelay judge prefer`: which of two passages answers better, where labels tie."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.judge.asking import OUT, ask, engine_options, pairs_options, read_pairs, settings_of
from qrelay.cli.judge.pairs import FILE
from qrelay.cli.options import json_option
from qrelay.exitcodes import EXIT_PARTIAL
from qrelay.output import echo_json

if TYPE_CHECKING:
    from qrelay.formats.annotated_pairs import GradedPair
    from qrelay.judging.asking import Asker
    from qrelay.judging.preferences import Compared, Group


@click.command(
    "prefer", epilog=example("qrelay judge prefer --corpus beir-folder --least 1 --out prefs.jsonl --run finer.run")
)
@pairs_options()
@click.option("--scores", type=FILE, help="TREC run of the judge's scores; ties are then scores within --margin.")
@click.option("--margin", type=click.FloatRange(0), default=0.05, show_default=True, help="Of --scores.")
@click.option("--least", type=float, required=True, help="The least grade (or score) whose ties are worth breaking.")
@click.option(
    "--most",
    type=click.IntRange(1),
    default=200,
    show_default=True,
    help="Comparisons a query (two questions each); one a passage at least.",
)
@click.option("--dry-run", is_flag=True, help="Say how many questions there are, and ask none.")
@click.option("--out", type=OUT, required=True, help="JSONL of comparisons to write.")
@click.option("--run", "run_file", type=OUT, help="TREC run to write: the labels' order, and within ties the finer.")
@engine_options()
@json_option()
def prefer(**given: Any) -> None:
    """Ask which of two passages answers better where their labels tie, in both orders, and order them by it.

    A group of n that tie takes about n log2(n) comparisons. A killed run continues (OUT.journal.jsonl). Exit code 3:
    some comparisons are missing; the lines say why.
    """
    from qrelay.judging.preferences import schedule

    queries = _queries(read_pairs(given), given)
    pairs = {query_id: schedule(groups, given["most"]) for query_id, groups in queries.items()}
    comparisons = sum(map(len, pairs.values()))
    facts: dict[str, Any] = {"queries": len(queries), "comparisons": comparisons, "questions": 2 * comparisons}
    if not given["dry_run"]:
        found = _compared(pairs, given)
        _write(queries, found, given)
        held = [each for own in found.values() for each in own]
        facts |= {
            "agreed": sum(each.agreed for each in held),
            "contradicted": sum(each.missing is None and not each.agreed for each in held),
            "missing": sum(each.missing is not None for each in held),
        }
    if given["as_json"]:
        echo_json(facts)
    else:
        click.echo(", ".join(f"{count} {name}" for name, count in facts.items()))
    if facts.get("missing"):
        raise SystemExit(EXIT_PARTIAL)


def _queries(pairs: Sequence[GradedPair], given: Mapping[str, Any]) -> dict[str, list[Group]]:
    """query id -> its groups. Pairs without a grade (or score) are in none."""
    from qrelay.formats.runs import read_run
    from qrelay.judging.preferences import tied
    from qrelay.types import Passage

    scores = read_run(given["scores"]) if given["scores"] else None
    held: dict[str, list[tuple[Passage, float]]] = {}
    texts: dict[str, str] = {}
    for each in pairs:
        texts[each.query_id] = each.query
        label = scores.get(each.query_id, {}).get(each.passage_id) if scores is not None else each.grade
        if label is not None:
            passage = Passage(each.passage_id, each.passage_id, each.title, each.text)
            held.setdefault(each.query_id, []).append((passage, float(label)))
    margin = given["margin"] if scores is not None else None
    return {
        query_id: tied(query_id, texts[query_id], own, margin=margin, least=given["least"])
        for query_id, own in held.items()
    }


def _compared(pairs: Mapping[str, Sequence[Any]], given: Mapping[str, Any]) -> dict[str, list[Compared]]:
    from qrelay.judging.asking import side_by_side
    from qrelay.judging.preferences import compare

    settings = settings_of(given)

    async def work(asker: Asker, advance: Callable[[float], None]) -> list[list[Compared]]:
        async def one(own: Sequence[Any]) -> list[Compared]:
            return await compare(asker, own, words=given["words"], min_mass=settings.min_grade_mass)

        return await side_by_side(pairs.values(), one, advance)

    return dict(zip(pairs, ask(settings, given["out"], work, "queries", len(pairs)), strict=True))


def _write(
    queries: Mapping[str, Iterable[Group]], found: Mapping[str, list[Compared]], given: Mapping[str, Any]
) -> None:
    from qrelay.files import AtomicFiles
    from qrelay.formats.runs import run_lines
    from qrelay.judging.preferences import as_row, ordered

    with AtomicFiles() as files:
        file = files.open(given["out"])
        for own in found.values():
            file.writelines(json.dumps(as_row(each), ensure_ascii=False).encode() + b"\n" for each in own)
        if given["run_file"]:
            run = {query_id: ordered(groups, found[query_id]) for query_id, groups in queries.items()}
            files.open(given["run_file"]).write("".join(run_lines(run, "preferences")).encode())
        files.commit()

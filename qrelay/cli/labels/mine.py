"""`qrelay mine`: what mining makes of a collection, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option, data_dir_option, json_option
from qrelay.labels.opening import open_ledger
from qrelay.output import Rows, echo_json, show

if TYPE_CHECKING:
    from qrelay.labels.examples import Example
    from qrelay.labels.ledger.reader import Label, Snapshot
    from qrelay.labels.mining.explain import Explained
    from qrelay.labels.mining.rules import MiningRules

_STEPS = {
    "candidates": "candidates that the retrievers found",
    "judged": "with a label",
    "graded": "with a grade",
    "not_relevant": "not relevant by it",
    "past_guards": "past the filters",
    "hard": "hard: they misled a ranker",
    "chosen": "chosen as hard negatives",
    "easy": "chosen as easy negatives, beside them",
}


@click.command(epilog=example("qrelay mine --collection docs --explain q17"))
@click.option("--collection", required=True, help="The collection to mine.")
@click.option("--explain", "query_id", metavar="QUERY_ID", help="Explain every candidate of this query.")
@click.option("--ledger", help="Path or URL.  [default: the sink's setting, else ledger.sqlite in --data-dir]")
@click.option("--judge", help="Only this judge's labels: the beginning of its hash, or its strategy.")
@click.option("--overrides", is_flag=True, help="People's decisions win over the judges' labels.")
@click.option("--round-examples", type=click.IntRange(min=0), help="Maximum examples of a round; 0: all.")
@click.option("--round-negatives", type=click.IntRange(min=0), help="Maximum negatives of a round; 0: all.")
@data_dir_option()
@config_option()
@json_option()
def mine(
    collection: str,
    query_id: str | None,
    ledger: str | None,
    judge: str | None,
    overrides: bool,
    round_examples: int | None,
    round_negatives: int | None,
    data_dir: Path,
    config: Path | None,
    as_json: bool,
) -> None:
    """Show what mining chooses: counts by reason over a collection, or --explain one query.

    Reads the ledger, also while services write to it, and changes nothing: `qrelay export` writes what is chosen.
    """
    from dataclasses import asdict, replace

    from qrelay.labels.choice import counting_judges
    from qrelay.labels.examples import examples
    from qrelay.labels.mining.funnel import Funnel

    with open_ledger(ledger, data_dir, config) as (opened, settings), opened.snapshot() as snapshot:
        snapshot.require_collection(collection)
        rules, limits = settings.rules, settings.round_limits
        judges = counting_judges(snapshot, collection, rules, judge)
        ids = None if query_id is None else [query_id]
        found = examples(snapshot, collection, judges, rules, people=overrides, ids=ids)
        if query_id is not None:
            _explain(snapshot, collection, query_id, next(found, None), rules, as_json)
            return
        funnel = Funnel()
        for mined in found:
            funnel.add(mined)
    if round_examples is not None:
        limits = replace(limits, examples=round_examples)
    if round_negatives is not None:
        limits = replace(limits, negatives=round_negatives)
    counted = funnel.as_json(limits)
    if as_json:
        echo_json({"collection": collection, **counted, "rules": asdict(rules)})
        return
    _print_funnel(collection, counted)


def _explain(
    snapshot: Snapshot, collection: str, query_id: str, mined: Example | None, rules: MiningRules, as_json: bool
) -> None:
    from itertools import islice

    from qrelay.errors import InputError
    from qrelay.labels.ledger.reasons import reasons
    from qrelay.labels.mining.explain import explain

    if mined is None:
        known = [each.query_id for each in islice(snapshot.labelled_queries(collection, page=3), 3)]
        raise InputError(
            f"the ledger holds no judged query {query_id!r} of collection {collection}, whose queries are"
            f" {', '.join(map(repr, known))}, …: give a query's id, no passage's and no document's"
        )
    rows = explain(mined, rules, reasons(snapshot.connection, collection, [query_id]))
    if as_json:
        head = {"collection": collection, "query_id": query_id, "query": mined.query.text}
        echo_json({**head, "example": bool(mined.positives), "candidates": [row.as_json() for row in rows]})
        return
    click.echo(f"{query_id}: {mined.query.text}")
    _print_rows(rows)
    click.echo("" if mined.positives else "no example: it takes a positive and a hard negative")


def _print_rows(rows: list[Explained]) -> None:
    cells = [
        (
            row.candidate.passage.passage_id,
            ", ".join(_score(*score) for score in row.candidate.scores),
            _label(row.label) + (f": {row.said}" if row.said else ""),
            row.judge,
            row.words,
        )
        for row in rows
    ]
    headings = ("passage", "ranks (scores)", "label", "judge", "why")
    show(Rows(headings, cells, prose=("ranks (scores)", "label", "why"), frame=False))


def _score(system: str, score: float | None, rank: int) -> str:
    place = str(rank) if rank else "-"
    return f"{system} {place}" if score is None else f"{system} {place} ({score:.4g})"


def _label(label: Label | None) -> str:
    if label is None:
        return "none"
    if label.grade is None:
        return f"missing: {label.missing_reason}"
    return f"grade {label.grade}" if label.p_relevant is None else f"grade {label.grade}, P {label.p_relevant:.2f}"


def _print_funnel(collection: str, found: dict[str, Any]) -> None:
    click.echo(f"{collection}: {found['queries']} queries, {found['examples']} with an example")
    for step, count in found["steps"].items():
        click.echo(f"{count:>10}  {_STEPS[step]}")
    for role, reasons in found["reasons"].items():
        counted = ", ".join(f"{reason} {count}" for reason, count in reasons.items() if count)
        click.echo(f"{role}: {counted or 'none'}")
    taken = found["round"]
    click.echo(f"one round takes {taken['examples']} examples with {taken['negatives']} negatives")

"""`qrelay eval leaderboard`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from qrelay.cli.eval.agreement import read_runs
from qrelay.cli.eval.options import FILE, OUT, note
from qrelay.cli.group import example

if TYPE_CHECKING:
    from qrelay.formats.beir import Qrels
    from qrelay.formats.leaderboards import Row


@click.command(
    "leaderboard",
    epilog=example("qrelay eval leaderboard --qrels judge.qrels --run bm25.run --out judge.eval.jsonl"),
)
@click.option("--qrels", type=FILE, required=True, help="BEIR's TSV or TREC's; .gz too.")
@click.option(
    "--relevant-from", type=click.IntRange(1), help="Least relevant grade.  [default: the export's, else 1]"
)
@click.option(
    "--run", "runs", type=FILE, multiple=True, required=True, help="TREC run, named as its file; repeatable."
)
@click.option("--measure", "measures", multiple=True, help="Measure of ir-measures.  [default: the usual nine]")
@click.option("--out", type=OUT, required=True, help="JSONL: run_id, topic_id, measure, value.")
def leaderboard_command(
    qrels: Path, relevant_from: int | None, runs: tuple[Path, ...], measures: tuple[str, ...], out: Path
) -> None:
    """Write systems' scores under some qrels as TREC AutoJudge's leaderboard.

    One file under people's qrels and one under a judge's are what `auto-judge-evaluate meta-evaluate` compares
    (formats `jsonl`). Queries without a relevant document are left out, as in `qrelay eval`.
    """
    from qrelay.files import write_atomic
    from qrelay.formats.beir import read_qrels
    from qrelay.formats.leaderboards import leaderboard_lines
    from qrelay.training.evaluation.manifests import relevant_from as least_of
    from qrelay.training.evaluation.measures import STANDARD

    least, remark = least_of(relevant_from, qrels)
    note(remark)
    found = {query: grades for query, grades in read_qrels(qrels).items() if max(grades.values(), default=0) >= least}
    write_atomic(out, "".join(leaderboard_lines(_rows(found, runs, measures or STANDARD, least))))
    click.echo(f"{out}: {len(runs)} systems, {len(found)} queries")


def _rows(qrels: Qrels, files: tuple[Path, ...], measures: tuple[str, ...], least: int) -> Iterator[Row]:
    from qrelay.training.evaluation.measures import per_query

    for name, run in read_runs(files).items():
        values = per_query(qrels, run, measures, relevant_from=least)
        for at, query_id in enumerate(sorted(qrels)):
            yield from ((name, query_id, measure, float(values[measure][at])) for measure in measures)

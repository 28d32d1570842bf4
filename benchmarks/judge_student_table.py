"""What trained judges are worth beside the others and in an ensemble with them, on the pairs that they scored.

    python -m benchmarks.judge_student_table liveqa-med --work W --cache FILE --vectors FOLDER

Reads the scores that `judge_student` (LoRA on people's grades) and `judge_generated` (questions that a model wrote)
left in --work, and the labels of the judgment cache. Maps are cross-validated by query. An ensemble with a student
stands beside the same one without it, paired by query; p is one-sided, of the student bringing nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from contextlib import closing
from dataclasses import astuple, replace
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np

from benchmarks.judge_student import kept
from benchmarks.public import COLLECTIONS, cell, difference, options
from benchmarks.tables import CONSENSUS, MPNET, Kept, differences, part, table_of
from qrelay.bench.table import Grid, markdown_lines
from qrelay.judging.cache import open_cache
from qrelay.judging.qualification.systems import Evaluation, evaluate
from qrelay.judging.qualification.table import Table

DENSE_TOO: Final = f"dense:{MPNET}"
ENSEMBLES: Final[Mapping[str, tuple[str, ...]]] = {
    "mpnet": (DENSE_TOO,),
    "MiniLM, mpnet": ("dense", DENSE_TOO),
    "0.5B, MiniLM": ("0.5B", "dense"),
    "0.5B, mpnet": ("0.5B", DENSE_TOO),
    "1.5B, mpnet": ("1.5B", DENSE_TOO),
    "1.5B, consensus": ("1.5B", CONSENSUS),
}
SINGLE: Final = {"0.5B": "0.5B", "1.5B": "1.5B", "MiniLM": "dense", "mpnet": DENSE_TOO, CONSENSUS: CONSENSUS}


def table(name: str, chosen: argparse.Namespace) -> Table:
    """The collection's table of `judge_table`."""
    load = once(partial(Kept, folder=chosen.vectors, engine="openvino"))
    with closing(open_cache(chosen.cache)) as cache:
        return table_of(COLLECTIONS[name], chosen.data / name, cache, load)[0]


def shown(evaluation: Evaluation, row: str, system: str, beside: str = "") -> list[str]:
    """A row of the table. beside: the system that it is compared with."""
    score, metrics = evaluation.systems[system].score, evaluation.systems[system].metrics
    cells = [row, cell(metrics["auc"], metrics["auc_ci"]), cell(metrics["auc_within_query"])]
    tests = differences(evaluation.table, score, evaluation.systems[beside].score).values() if beside else ()
    compared = [difference(*astuple(test)) for test in tests]
    return [*cells, cell(metrics["kappa_binary"]), *[*compared, "", ""][:2]]


def report(name: str, chosen: argparse.Namespace) -> list[str]:
    """The lines of the page. A judge of which the cache lacks labels is in no row."""
    said, _ = kept(chosen.work, name)
    rows = sorted(set.intersection(*({int(row) for row in scores} for scores in said.values())))
    told = part(table(name, chosen), rows)
    students = {system: np.array([scores[str(row)] for row in rows]) for system, scores in said.items()}
    told = replace(told, stages={**told.stages, **students})
    known = {*told.labels, *told.stages}
    ensembles = {row: inputs for row, inputs in ENSEMBLES.items() if {*inputs} <= known}
    with_student = {f"{row}, {s}": (*inputs, s) for row, inputs in ensembles.items() for s in said}
    evaluation = evaluate(told, {**ensembles, **with_student})
    grid = []
    for system in said:
        base = f"{system.split()[0]} untrained"
        grid.append(shown(evaluation, system, system, base if base in said and base != system else ""))
    grid += [
        shown(evaluation, row, system) for row, system in SINGLE.items() if system in known and row not in ensembles
    ]
    for row in ensembles:
        grid.append(shown(evaluation, row, row))
        grid += [shown(evaluation, f"… {s}", f"{row}, {s}", row) for s in said]
    heads = ["", "AUC (95 %)", "within", "kappa", "AUC beside", "within beside"]
    counted = f"{len(set(told.queries))} queries, {len(rows):,} pairs, {told.relevant.sum()} relevant"
    return [f"{COLLECTIONS[name].title}: {counted}", "", *markdown_lines(Grid("", heads, grid))]


def main() -> None:
    """See the module."""
    parser = options(__doc__)
    parser.add_argument("collection", choices=("liveqa-med", "llmjudge-dl23"))
    parser.add_argument("--work", type=Path, required=True)
    chosen = parser.parse_args()
    print("\n".join(report(chosen.collection, chosen)))


if __name__ == "__main__":
    main()

"""What trained judges are worth beside the others and in an ensemble with them, on the pairs that they scored.

    python -m benchmarks.judge_student_table liveqa-med --work W --cache FILE --vectors FOLDER

Reads the scores that `judge_student` (LoRA on people's grades) and `judge_generated` (questions that a model wrote)
left in --work, and the labels of the judgment cache. Maps are cross-validated by query. An ensemble with a student
stands beside the same one without it, paired by query; p is one-sided, of the student bringing nothing.
"""

from __future__ import annotations

import argparse
import json
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache as once
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.judge_table import COLLECTIONS, CONSENSUS, MPNET, Kept, table_of
from qrelay.bench.table import Grid, markdown_lines
from qrelay.judging.cache import open_cache
from qrelay.judging.qualification.systems import Evaluation, evaluate
from qrelay.judging.qualification.table import Table
from qrelay.stats.agreement import auc
from qrelay.stats.intervals import PairedTest, paired_bootstrap

DENSE_TOO: Final = f"dense:{MPNET}"
ENSEMBLES: Final[Mapping[str, tuple[str, ...]]] = {
    "0.5B, MiniLM": ("0.5B", "dense"),
    "0.5B, mpnet": ("0.5B", DENSE_TOO),
    "1.5B, mpnet": ("1.5B", DENSE_TOO),
    "1.5B, consensus": ("1.5B", CONSENSUS),
}
SINGLE: Final = {"0.5B": "0.5B", "1.5B": "1.5B", "MiniLM": "dense", "mpnet": DENSE_TOO, CONSENSUS: CONSENSUS}


def table(name: str, options: argparse.Namespace) -> Table:
    """The collection's table of `judge_table`, kept in --work."""
    path: Path = options.work / f"table-{name}.pkl"
    if not path.exists():
        load = once(partial(Kept, folder=options.vectors, engine="openvino"))
        cache = open_cache(options.cache)
        try:
            found, _ = table_of(COLLECTIONS[name], options.data / name, cache, load)
        finally:
            cache.close()
        path.write_bytes(pickle.dumps(found))
    told: Table = pickle.loads(path.read_bytes())
    return told


def students(name: str, work: Path) -> dict[str, dict[int, float]]:
    """System -> row -> score. A fold's gains are put on one scale by its slope and the cut of relevance."""
    found: dict[str, dict[int, float]] = {}
    for path in sorted(work.glob(f"student-{name}-*.json")):
        model = path.stem.removeprefix(f"student-{name}-").split("-instruct")[0]
        for system, said in json.loads(path.read_text()).items():
            if system == "untrained":
                found[f"{model} untrained"] = {int(row): gain for row, gain in said.items()}
                continue
            scores: dict[int, float] = {}
            for fold in said.values():
                middle = fold["cuts"][1]
                scores |= {int(row): fold["slope"] * (gain - middle) for row, gain in fold["scores"].items()}
            found[f"{model} {system}"] = scores
    path = work / f"generated-{name}.json"
    for system, said in (json.loads(path.read_text()) if path.exists() else {}).items():
        asked = f"generated {system} ({said['questions']} questions)"
        found[asked] = {int(row): score for row, score in said["scores"].items()}
    return found


def part(whole: Table, rows: Sequence[int], more: Mapping[str, Mapping[int, float]]) -> Table:
    """These rows of the table, with the students' scores as further systems."""
    at = np.array(rows)
    stages = {system: scores[at] for system, scores in whole.stages.items()}
    stages |= {system: np.array([scores[row] for row in rows]) for system, scores in more.items()}
    labels = {judge: tuple(each[row] for row in rows) for judge, each in whole.labels.items()}
    return replace(whole, pairs=tuple(whole.pairs[row] for row in rows), labels=labels, stages=stages)


def paired(told: Table, one: NDArray[np.float64], other: NDArray[np.float64], *, within: bool) -> PairedTest:
    """AUC over all pairs, or the mean of those within queries, of one less the other; queries drawn anew."""
    y, queries = told.relevant, told.queries
    if not within:
        return paired_bootstrap(lambda i: auc(y[i], one[i]), lambda i: auc(y[i], other[i]), queries)
    own = [np.flatnonzero(queries == each) for each in np.unique(queries)]
    both = [rows for rows in own if 0 < y[rows].sum() < len(rows)]
    a, b = (np.array([auc(y[rows], score[rows]) for rows in both]) for score in (one, other))
    return paired_bootstrap(lambda i: float(a[i].mean()), lambda i: float(b[i].mean()), np.arange(len(both)))


def shown(evaluation: Evaluation, told: Table, row: str, system: str, beside: str = "") -> list[str]:
    """A row of the table. beside: the system that it is compared with."""
    score, metrics = evaluation.systems[system].score, evaluation.systems[system].metrics
    low, high = metrics["auc_ci"]
    cells = [row, f"{metrics['auc']:.3f} ({low:.3f} to {high:.3f})", f"{metrics['auc_within_query']:.3f}"]
    cells.append(f"{metrics['kappa_binary']:.3f}")
    if not beside:
        return [*cells, "", ""]
    tests = [paired(told, score, evaluation.systems[beside].score, within=each) for each in (False, True)]
    return [*cells, *(f"{t.difference:+.3f} ({t.low:+.3f} to {t.high:+.3f}), p {t.p_value:.3f}" for t in tests)]


def report(name: str, options: argparse.Namespace) -> list[str]:
    """The lines of the page."""
    said = students(name, options.work)
    rows = sorted(set.intersection(*(set(scores) for scores in said.values())))
    told = part(table(name, options), rows, said)
    fusions = dict(ENSEMBLES)
    for ensemble, inputs in ENSEMBLES.items():
        fusions |= {f"{ensemble}, {student}": (*inputs, student) for student in said}
    evaluation = evaluate(told, fusions)
    counted = f"{len(set(told.queries))} queries, {len(rows):,} pairs, {told.relevant.sum()} relevant"
    grid: list[Any] = []
    for system in said:
        base = f"{system.split()[0]} untrained"
        beside = base if base in said and base != system else ""
        grid.append(shown(evaluation, told, system, system, beside))
    grid += [shown(evaluation, told, row, system) for row, system in SINGLE.items()]
    for ensemble in ENSEMBLES:
        grid.append(shown(evaluation, told, ensemble, ensemble))
        grid += [shown(evaluation, told, f"… {s}", f"{ensemble}, {s}", ensemble) for s in said]
    heads = ["", "AUC (95 %)", "within", "kappa", "AUC beside", "within beside"]
    return [f"{COLLECTIONS[name].title}: {counted}", "", *markdown_lines(Grid("", heads, grid))]


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("collection", choices=("liveqa-med", "llmjudge-dl23"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--cache", default=".qrelay/judge-cache.sqlite")
    parser.add_argument("--vectors", type=Path, default=Path(".qrelay/vectors"))
    options = parser.parse_args()
    print("\n".join(report(options.collection, options)))


if __name__ == "__main__":
    main()

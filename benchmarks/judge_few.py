"""What few grades are worth, with maps of another collection as a prior and without.

    python -m benchmarks.judge_few --cache FILE --vectors FOLDER --engine openvino

Half of a collection's queries, drawn anew each time, are graded as far as n pairs go; a map of the 0.5B and MiniLM's
cosine is fitted on these and measured on the other half. Without a prior 5 relevant and 5 other pairs are needed: how
often there are is shown. Figures are means: first with a prior over all draws, then with a prior and without over the
draws that gave a map without. LLMJudge is half A, so that half B stays unseen.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.judge_table import COLLECTIONS, Kept, table_of
from qrelay.bench.table import Grid, markdown_lines
from qrelay.errors import InputError
from qrelay.judging.cache import open_cache
from qrelay.judging.calibration import CalibrationMap
from qrelay.judging.qualification.fitting import apply_map, fit_map
from qrelay.judging.qualification.table import Table
from qrelay.stats.agreement import auc, kappa
from qrelay.stats.calibration import ece

INPUTS: Final = ("0.5B", "0.5B/best", "dense")
GRADES: Final = (0, 16, 32, 64, 128)
FIGURES: Final = ("AUC", "kappa", "ECE")


Figures = list[float]
"""As `FIGURES`."""
Curve = dict[int, list[tuple[Figures, Figures | None]]]
"""Grades -> of every draw (with the prior, alone); None: too few for a map alone."""


def curve(table: Table, prior: CalibrationMap, draws: int, seed: int = 0) -> Curve:
    """What maps from few grades are worth."""
    generator = np.random.default_rng(seed)
    found: Curve = {n: [] for n in GRADES}
    queries = np.unique(table.queries)
    for _ in range(draws):
        chosen = np.isin(table.queries, generator.permutation(queries)[: len(queries) // 2])
        here, there = _part(table, np.flatnonzero(chosen)), np.flatnonzero(~chosen)
        order = generator.permutation(len(here.pairs))
        for n in GRADES:
            moved = _figures(table, fit_map(here, INPUTS, order[:n], priors=[prior]), there)
            try:
                alone = _figures(table, fit_map(here, INPUTS, order[:n]), there)
            except InputError:
                alone = None
            found[n].append((moved, alone))
    return found


def _part(table: Table, rows: NDArray[np.int64]) -> Table:
    """These rows, as a table of their own."""
    pairs = tuple(table.pairs[row] for row in rows)
    labels = {name: tuple(column[row] for row in rows) for name, column in table.labels.items()}
    return replace(
        table, pairs=pairs, labels=labels, stages={name: each[rows] for name, each in table.stages.items()}
    )


def _figures(table: Table, fitted: CalibrationMap, rows: NDArray[np.int64]) -> Figures:
    said, y = apply_map(fitted, table), table.relevant[rows]
    return [auc(y, said.ranking[rows]), kappa(y, said.relevant[rows]), ece(y, said.p[rows])]


def markdown(curves: Mapping[str, Curve], draws: int) -> str:
    """A row a collection and number of grades."""
    head = ["collection", "grades", *(f"{each}: prior; prior, alone" for each in FIGURES), "maps alone"]
    rows = []
    for title, found in curves.items():
        for n, each in found.items():
            both = [(moved, alone) for moved, alone in each if alone is not None]
            shown = [f"{value:.3f}" for value in np.mean([moved for moved, _ in each], 0)]
            if both:
                means = np.mean(both, 0).T
                shown = [f"{of_all}; {a:.3f}, {b:.3f}" for of_all, (a, b) in zip(shown, means, strict=True)]
            rows.append([title, str(n), *shown, f"{len(both)} of {draws}"])
    return "\n".join(markdown_lines(Grid("", head, rows)))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--cache", default=".qrelay/judge-cache.sqlite")
    parser.add_argument("--vectors", type=Path, default=Path(".qrelay/vectors"))
    parser.add_argument("--engine", choices=("torch", "openvino"), default="torch")
    parser.add_argument("--draws", type=int, default=40)
    arguments = parser.parse_args()
    load = partial(Kept, folder=arguments.vectors, engine=arguments.engine)
    tables, cache = {}, open_cache(arguments.cache)
    for name, half in (("liveqa-med", ""), ("llmjudge-dl23", "a")):
        tables[name], _ = table_of(COLLECTIONS[name], arguments.data / name, cache, load, half)
    cache.close()
    curves = {}
    for name, other in zip(tables, reversed(tables), strict=True):
        prior = fit_map(tables[other], INPUTS, tables[other].graded)
        curves[COLLECTIONS[name].title] = curve(tables[name], prior, arguments.draws)
    print(markdown(curves, arguments.draws))


if __name__ == "__main__":
    main()

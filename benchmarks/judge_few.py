"""What few grades are worth, with maps of another collection as a prior and without.

    python -m benchmarks.judge_few --cache FILE --vectors FOLDER --engine openvino

Half of a collection's queries, drawn anew each time, are graded as far as n pairs go; a map of the 0.5B and MiniLM's
cosine is fitted on these and measured on the other half. Without a prior 5 relevant and 5 other pairs are needed: how
often there are is shown, and figures are means over those draws. LLMJudge is half A, so that half B stays unseen.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from benchmarks.judge_table import COLLECTIONS, Kept, table_of
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


def curve(table: Table, prior: CalibrationMap, draws: int, seed: int = 0) -> dict[tuple[str, int], list[list[float]]]:
    """("prior" or "alone", grades) -> `FIGURES` of every draw that gave a map."""
    generator = np.random.default_rng(seed)
    found: dict[tuple[str, int], list[list[float]]] = {}
    queries = np.unique(table.queries)
    for _ in range(draws):
        chosen = np.isin(table.queries, generator.permutation(queries)[: len(queries) // 2])
        order, there = generator.permutation(np.flatnonzero(chosen)), np.flatnonzero(~chosen)
        for n in GRADES:
            for name, priors in (("prior", [prior]), ("alone", [])):
                try:
                    fitted = fit_map(table, INPUTS, order[:n], priors=priors)
                except InputError:
                    continue
                found.setdefault((name, n), []).append(_figures(table, fitted, there))
    return found


def _figures(table: Table, fitted: CalibrationMap, rows: NDArray[np.int64]) -> list[float]:
    said, y = apply_map(fitted, table), table.relevant[rows]
    return [auc(y, said.ranking[rows]), kappa(y, said.relevant[rows]), ece(y, said.p[rows])]


def markdown(curves: Mapping[str, Mapping[tuple[str, int], Sequence[Sequence[float]]]], draws: int) -> str:
    """A row a collection and number of grades."""
    lines = [["collection", "grades", *(f"{each}: prior, alone" for each in FIGURES), "maps alone"]]
    lines.append(["---"] * len(lines[0]))
    for title, found in curves.items():
        for n in GRADES:
            sides = [np.mean(found[name, n], 0) if (name, n) in found else None for name in ("prior", "alone")]
            shown = [
                ", ".join("-" if side is None else f"{side[column]:.3f}" for side in sides)
                for column in range(len(FIGURES))
            ]
            lines.append([title, str(n), *shown, f"{len(found.get(('alone', n), []))} of {draws}"])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


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

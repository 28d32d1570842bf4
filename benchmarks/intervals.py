"""Do the intervals of `qrelay eval intervals` hold? Human grades of TREC DL 2019 partly hidden, over and over.

    python -m benchmarks.intervals [--labels labels.qrels] [--samples 500] [--graded 20] [--pairs 500]

For every draw some queries (or pairs) keep their human grades, the others have a judge's alone; the truth is the mean
by all human grades. Judges: all-MiniLM-L6-v2's cosine cut into grades, qrels of any other judge (--labels), and two
simulated ones. "these": queries drawn without replacement from the 43, the truth is their mean. "population": 43
queries drawn with replacement from the 43, which are then the population. Prints for each judge, unit, target and
measure the mean correlation, the share of intervals that hold the truth over all systems (13 of the 37 runs, or 40
pairs of the 37), the least and the greatest share of a system, the mean width, and that over the width that is
allowed: people's own, times sqrt(1 - r^2) for these queries and sqrt(1 - r^2 (1 - n/N)) for the population.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np

from qrelay.formats.annotated_pairs import read_beir
from qrelay.formats.beir import Qrels, Run, read_qrels
from qrelay.formats.graded_sample import GradedSample
from qrelay.formats.runs import read_run
from qrelay.judging.qualification.stages import StageOptions, score_pairs
from qrelay.stats.columns import Floats
from qrelay.stats.powered import Target, powered_mean, sampled_mean
from qrelay.training.evaluation.measures import per_query
from qrelay.training.evaluation.pair_sample import Frame, Sum, chances_of

MEASURES = ("nDCG@10", "P@10", "R@100", "RR@10")
RELEVANT = 2
CUTS = (0.45, 0.6, 0.7)
"""Cosines from which the grade is 1, 2 and 3: round numbers, not fitted."""
SIMULATED = (0.7, 1.5)
"""Standard deviations of a simulated judge's grade."""
EVERY, DIFFERENCES = 3, 40


def cosine_grades(data: Path, kept: Qrels) -> Qrels:
    """The embedder's cosines of the judged pairs, cut into grades."""
    pairs = read_beir(data, data / "queries.jsonl", data / "qrels" / "test.tsv")
    scores = score_pairs(pairs, StageOptions(), print)["dense"]
    found: Qrels = {query_id: {} for query_id in kept}
    for pair, grade in zip(pairs, np.digitize(scores, CUTS).tolist(), strict=True):
        found[pair.query_id][pair.passage_id] = grade
    return found


def simulated(people: Qrels, noise: float) -> Qrels:
    """Grades that are too kind to bad passages, too strict to good ones, and noisy."""
    generator = np.random.default_rng(1)
    return {
        query_id: {
            doc_id: int(np.clip(np.rint(0.7 * grade + 0.6 + generator.normal(0, noise)), 0, 3))
            for doc_id, grade in grades.items()
        }
        for query_id, grades in people.items()
    }


def table(qrels: Qrels, runs: Mapping[str, Run]) -> dict[str, Floats]:
    """measure -> [systems, queries]."""
    found = [per_query(qrels, run, MEASURES, relevant_from=RELEVANT) for run in runs.values()]
    return {measure: np.array([values[measure] for values in found]) for measure in MEASURES}


def differences(systems: int) -> list[tuple[int, int]]:
    """Pairs of systems by chance, the same for every judge."""
    every = [(i, j) for i in range(systems) for j in range(i)]
    return [every[i] for i in np.random.default_rng(5).permutation(len(every))[:DIFFERENCES]]


def draws(queries: int, samples: int, target: Target) -> Iterator[np.ndarray]:
    """Rows of the queries of each draw, those that people graded first."""
    generator = np.random.default_rng(3)
    for _ in range(samples):
        yield generator.permutation(queries) if target == "these" else generator.integers(0, queries, queries)


def by_query(y: Floats, f: Floats, graded: int, samples: int, target: Target) -> str:
    """y, f: [systems, queries], by people's labels and the judge's."""
    hits, widths, people, alone = (np.zeros((samples, len(y))) for _ in range(4))
    for i, rows in enumerate(draws(y.shape[1], samples, target)):
        sample, rest = rows[:graded], rows[graded:]
        for s in range(len(y)):
            found = powered_mean(y[s, sample], f[s, sample], f[s, rest], target=target)
            hits[i, s] = found.interval.low - 1e-12 <= y[s].mean() <= found.interval.high + 1e-12
            alone[i, s] = found.people_only.low - 1e-12 <= y[s].mean() <= found.people_only.high + 1e-12
            widths[i, s], people[i, s] = found.width, found.people_only.high - found.people_only.low
    r = np.array(
        [np.corrcoef(one, other)[0, 1] if one.std() and other.std() else 0.0 for one, other in zip(y, f, strict=True)]
    )
    allowed = people.mean(0) * np.sqrt(1 - r**2 * (1.0 if target == "these" else 1 - graded / y.shape[1]))
    each = hits.mean(0)
    return (
        f"r {r.mean():.2f}  coverage {hits.mean():.3f} ({each.min():.3f} to {each.max():.3f})"
        f"  width {widths.mean():.3f}  over allowed {(widths.mean(0) / allowed).mean():.3f}"
        f"  people only: coverage {alone.mean():.3f} width {people.mean():.3f}"
    )


def by_pair(
    frame: Frame, people: Qrels, runs: Sequence[Run], measure: str, pairs: int, samples: int
) -> Iterator[str]:
    """Means of these queries, and differences of one system and the next, from about `pairs` graded pairs."""
    sums = Sum.of(measure, RELEVANT)
    weights = np.array([frame.weights(sums, run) for run in runs])
    weights = np.concatenate([weights, np.diff(weights, axis=0)])
    chances = chances_of(weights[: len(runs)].sum(0), pairs)
    names = [query_id for query_id, rows in zip(frame.queries, frame.rows, strict=True) for _ in frame.docs[rows]]
    grades = np.array([people[query_id].get(doc_id, 0) for query_id, doc_id in zip(names, frame.docs, strict=True)])
    truth = [frame.sums(each * sums.worth(grades)).mean() for each in weights]
    generator = np.random.default_rng(3)
    hits, widths = np.zeros((samples, len(weights))), np.zeros((samples, len(weights)))
    for i in range(samples):
        drawn = generator.random(len(grades)) < chances
        sample = replace(frame, graded=np.where(drawn, grades, -1), chance=np.where(drawn, chances, 1.0))
        worth, errors = sample.corrected(sums)
        for s, each in enumerate(weights):
            found = sampled_mean(sample.sums(each * worth), sample.variances(each * errors), target="these")
            hits[i, s], widths[i, s] = found.low <= truth[s] <= found.high, found.high - found.low
    for what, part in (("systems", slice(0, len(runs))), ("differences", slice(len(runs), None))):
        share = hits[:, part].mean(0)
        yield (
            f"{what}: coverage {share.mean():.3f} ({share.min():.3f} to {share.max():.3f})"
            f"  width {widths[:, part].mean():.3f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data/trec-dl19"))
    parser.add_argument("--labels", type=Path, action="append", default=[], help="qrels of one more judge")
    parser.add_argument("--no-cosine", action="store_true")
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--graded", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=500)
    given = parser.parse_args()
    people = read_qrels(given.data / "qrels" / "test.tsv")
    runs = {path.name: read_run(path) for path in sorted((given.data / "runs").glob("*.gz"))}
    judges = {f"simulated, noise {noise}": simulated(people, noise) for noise in SIMULATED}
    judges |= {path.stem: read_qrels(path) for path in given.labels}
    if not given.no_cosine:
        judges["cosine"] = cosine_grades(given.data, people)
    of_people = table(people, runs)
    for name, qrels in judges.items():
        of_judge = table(qrels, runs)
        for measure in MEASURES:
            y, f = of_people[measure], of_judge[measure]
            pairs = differences(len(y))
            apart = [np.array([each[i] - each[j] for i, j in pairs]) for each in (y, f)]
            for target in get_args(Target):
                for what, sides in (("systems", (y[::EVERY], f[::EVERY])), ("differences", apart)):
                    line = by_query(sides[0], sides[1], given.graded, given.samples, target)
                    print(f"{name}  by query  {measure}  {target}  {what}: {line}", flush=True)
        frame = Frame.of(qrels, GradedSample({}))
        some = list(runs.values())[::EVERY]
        for measure in ("DCG@10", "P@10"):
            for line in by_pair(frame, people, some, measure, given.pairs, given.samples):
                print(f"{name}  by pair, {given.pairs} of {len(frame.docs)}  {measure}  these  {line}", flush=True)


if __name__ == "__main__":
    main()

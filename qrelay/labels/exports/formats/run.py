"""A TREC run of one system: `query_id Q0 passage_id rank score tag`, the system's own results, best first.

A passage that the system scored without ranking it (rank 0) is none of its results and stays out, and so does one
that only rounds before the query's latest returned: a run is of one round. Evaluation tools ignore the rank column,
sort by score, and break ties by id: the scores are therefore made to fall strictly from rank to rank, in single
precision, which is what trec_eval keeps. A score that does not fall (a tie, or one that is not known) becomes the
next smaller number; where the first is not known, ranks give the scores (1/rank). By document each one stands where
its first passage does.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from qrelay.labels.examples import Example
from qrelay.labels.exports.request import Options
from qrelay.labels.exports.writing import Lines, Output, open_splits
from qrelay.types import Candidate, Score


def open_writer(output: Output, options: Options) -> Lines:
    """A line a result of `options.system`."""
    return Lines(open_splits(output, options, ".run"), lambda item: lines(item, options.system))


def lines(item: Example, system: str) -> Iterator[bytes]:
    """The system's results for one query."""
    current = [each for each in item.query.candidates if each.passage.passage_id not in item.query.earlier]
    best: dict[str, Score] = {}
    for passage_id, score in sorted(_ranked(current, system), key=lambda each: (each[1].rank, each[0])):
        best.setdefault(item.name_of(passage_id), score)
    scores = falling(list(best.values()))
    for place, (name, value) in enumerate(zip(best, scores, strict=True), start=1):
        yield f"{item.query.query_id} Q0 {name} {place} {value:.9g} {system}\n".encode()


def falling(scores: Sequence[Score]) -> list[float]:
    """The scores in the order of ranks, each smaller than the one before it in single precision."""
    import numpy as np

    least = np.float32(-math.inf)
    found: list[float] = []
    for place, (_, score, _) in enumerate(scores, start=1):
        if score is None and not found:
            value = np.float32(1.0)
        elif score is None:
            value = np.float32(1.0 / place) if all(each.score is None for each in scores) else np.float32(found[-1])
        else:
            value = np.float32(score)
        if found and value >= np.float32(found[-1]):
            value = np.nextafter(np.float32(found[-1]), least)
        found.append(float(value))
    return found


def _ranked(candidates: Sequence[Candidate], system: str) -> Iterator[tuple[str, Score]]:
    for candidate in candidates:
        score = candidate.score(system)
        if score is not None and score.rank > 0:
            yield candidate.passage.passage_id, score

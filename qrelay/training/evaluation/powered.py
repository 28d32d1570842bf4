"""Measures of systems on a judge's labels, made right by a sample that people graded: estimates with intervals.

    powered(Judged(llm_qrels), sample, {"bm25": run, "dense": other}, ["nDCG@10"])["measures"]["nDCG@10"]

The unit is the query where people graded whole queries: a measure is then one number a query under either labels,
nDCG with each one's own ideal, and `qrelay.stats.powered` does the rest (so do Oosterhuis et al., "Reliable
confidence intervals for information retrieval evaluation using generative A.I.", KDD 2024). Where pairs were drawn,
`pair_sample.py` does it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from qrelay.errors import InputError
from qrelay.formats.beir import Qrels, Run
from qrelay.formats.graded_sample import GradedSample
from qrelay.formats.runs import ranked
from qrelay.stats.columns import Floats
from qrelay.stats.powered import Powered, Target, powered_mean
from qrelay.training.evaluation.agreement import Judged
from qrelay.training.evaluation.measures import per_query

_SHALLOW: Final = re.compile(r"(?:P|RR|DCG)(?:\(.*\))?@([1-9]\d*)")
"""Measures that read the grades of the first k alone."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """target: of what the means are. width: of an interval, to say how much must be graded for it."""

    target: Target = "population"
    width: float | None = None
    level: float = 0.95


def powered(
    llm: Judged,
    people: GradedSample,
    runs: Mapping[str, Run],
    measures: Sequence[str],
    wanted: Wanted,
    *,
    relevant_from: int = 1,
) -> dict[str, Any]:
    """For each measure every system, and every system's difference to the first one. Means are over all queries of
    the judge's qrels; one without a relevant passage counts as 0. relevant_from: people's least relevant grade.

    Raises:
        InputError: a graded query or pair that the judge did not label, queries graded in part, too few of them, no
            common pair, an unknown measure.
    """
    if not runs:
        raise InputError("no system: give the runs whose measures are wanted")
    _check_ids(llm.qrels, people, runs)
    if people.unit == "pair":
        from qrelay.training.evaluation.pair_sample import by_pair

        return by_pair(llm, people, runs, measures, wanted, relevant_from=relevant_from)
    return _by_query(llm, people, runs, measures, wanted, relevant_from)


def _by_query(
    llm: Judged,
    people: GradedSample,
    runs: Mapping[str, Run],
    measures: Sequence[str],
    wanted: Wanted,
    relevant_from: int,
) -> dict[str, Any]:
    pairs = {query_id: needed(llm.qrels[query_id], query_id, runs, measures) for query_id in llm.qrels}
    _refuse_parts(people, pairs)
    queries = sorted(llm.qrels)
    there = np.array([query_id in people.grades for query_id in queries])
    said = [per_query(llm.qrels, run, measures, relevant_from=llm.relevant_from) for run in runs.values()]
    graded = [per_query(people.grades, run, measures, relevant_from=relevant_from) for run in runs.values()]
    each = sum(map(len, pairs.values())) / len(pairs)

    def row(name: str, y: Floats, f: Floats) -> dict[str, Any]:
        found = powered_mean(y, f[there], f[~there], target=wanted.target, level=wanted.level)
        return {"system": name, "judge_only": float(f.mean()), **_row(found, wanted, each)}

    return {
        "unit": "query",
        "target": wanted.target,
        "level": wanted.level,
        "queries": len(queries),
        "queries_graded": int(there.sum()),
        "pairs_graded": sum(len(people.grades[query_id].keys() & pairs[query_id]) for query_id in people.grades),
        "measures": {
            measure: [
                row(name, combined([values[measure] for values in graded]), combined([v[measure] for v in said]))
                for name, combined in combinations(list(runs))
            ]
            for measure in measures
        },
    }


def combinations(names: Sequence[str]) -> Iterator[tuple[str, Any]]:
    """(name, what takes its values from those of all systems): each system, then its difference to the first one."""
    for i, name in enumerate(names):
        yield name, lambda values, i=i: values[i]
    for i, name in enumerate(names[1:], 1):
        yield f"{name} - {names[0]}", lambda values, i=i: values[i] - values[0]


def _row(found: Powered, wanted: Wanted, pairs_a_query: float) -> dict[str, Any]:
    interval, people = found.interval, found.people_only
    row = {
        **asdict(interval),
        "people_only": asdict(people),
        "correlation": found.correlation,
        "weight": found.weight,
    }
    if wanted.width is not None:
        more = found.needed(wanted.width)
        row["queries_needed"] = more
        row["pairs_to_grade"] = None if more is None else round((more - found.graded) * pairs_a_query)
    return row


def needed(grades: Mapping[str, int], query_id: str, runs: Mapping[str, Run], measures: Sequence[str]) -> set[str]:
    """Documents of the query that people must grade for these measures: all that the judge labelled, or where every
    measure reads only the first k, those of them that a run puts there."""
    depths = [_SHALLOW.fullmatch(measure) for measure in measures]
    if not all(depths):
        return set(grades)
    depth = max(int(found[1]) for found in depths if found)
    return {doc_id for run in runs.values() for doc_id in ranked(run.get(query_id, {}))[:depth]} & grades.keys()


def _check_ids(llm: Qrels, people: GradedSample, runs: Mapping[str, Run]) -> None:
    graded = {query_id: people.grades.get(query_id, {}) for query_id in [*people.grades, *people.open]}
    if strange := sorted(graded.keys() - llm.keys()):
        raise InputError(
            f"{len(strange)} graded queries have no labels of the judge, {strange[0]!r} the first: the sample must be"
            " of the queries of --qrels"
        )
    for query_id, grades in graded.items():
        ranked_here = {doc_id for run in runs.values() for doc_id in run.get(query_id, {})}
        if grades and not grades.keys() & (ranked_here | llm[query_id].keys()):
            raise InputError(
                f"no pair that people graded for the query {query_id!r} is in a run or has a label of the judge"
                f" ({next(iter(grades))!r}, say): are the ids of one collection, and all of passages or of documents?"
            )


def _refuse_parts(people: GradedSample, pairs: Mapping[str, set[str]]) -> None:
    """Queries that are graded in part; those of which nothing is graded are not in the sample yet."""
    lacking = {query_id: pairs[query_id] - grades.keys() for query_id, grades in people.grades.items()}
    if parts := [query_id for query_id, absent in lacking.items() if absent]:
        first = parts[0]
        raise InputError(
            f"{len(parts)} queries are graded in part; {first!r} lacks {len(lacking[first])} of {len(pairs[first])}"
            f" pairs ({min(lacking[first])!r}, say): have them graded. Rows of a query may be removed only where it"
            " was never chosen for its grades"
        )

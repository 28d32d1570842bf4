"""A judged set as columns: what the ledger writes is made of these, whatever they were read from.

`of_record` reads a record. Whoever holds a set in another form reads that into columns itself, and spares the
objects of a record, of which a set has hundreds (the sink does, of protobuf messages).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from qrelay.labels.ledger.times import microseconds
from qrelay.types import Graded, JudgedSet, JudgeIdentity, Judgment, Query, Score, Utility

SILENT: Final = -1
"""The rank of a passage of which a system said nothing."""
Systems = Mapping[str, tuple[Sequence[float | None], Sequence[int]]]
"""system -> (scores, ranks), each in the candidates' order."""


class Judged(NamedTuple):
    """One judgment. told: what holds `cached`, `raw_reply` and `prompt_tokens`. outcome: what holds the fields of a
    Graded (grade true) or a Missing."""

    passage_id: str
    judgment_key: str
    judged_us: int
    judge: JudgeIdentity
    told: Any
    grade: bool
    outcome: Any
    utility: Utility | None


@dataclass(frozen=True, slots=True)
class Columns:
    """A set: a list a field of its candidates, all in their order, and its judgments. record: makes its record."""

    record: Callable[[], JudgedSet]
    query: Query
    index_version: str
    passage_ids: list[str]
    doc_ids: list[str]
    titles: list[str]
    texts: list[str]
    sampled: list[int]
    metadata: list[Mapping[str, str]]
    """Empty where no passage has any."""
    systems: Systems
    trace: list[list[Any]]
    judgments: list[Judged]


def of_record(record: JudgedSet) -> Columns:
    """The set's columns. Raises TypeError: a time has no zone."""
    found = record.candidate_set
    passages = [candidate.passage for candidate in found.candidates]
    return Columns(
        record=lambda: record,
        query=found.query,
        index_version=found.index_version,
        passage_ids=[passage.passage_id for passage in passages],
        doc_ids=[passage.doc_id for passage in passages],
        titles=[passage.title for passage in passages],
        texts=[passage.text for passage in passages],
        sampled=[int(candidate.sampled) for candidate in found.candidates],
        metadata=[p.metadata for p in passages] if any(p.metadata for p in passages) else [],
        systems=systems_of([candidate.scores for candidate in found.candidates]),
        trace=[[t.stage, t.replica, t.model, t.queue_s, t.compute_s] for t in found.trace],
        judgments=[_judged(judgment) for judgment in record.judgments],
    )


def systems_of(scores: Sequence[Sequence[Score]]) -> Systems:
    """The systems' columns, from the scores of each candidate."""
    first = [score.system for score in scores[0]] if scores else []
    if all([score.system for score in each] == first for each in scores):  # most often every system ranked all
        by_system = zip(*scores, strict=True)
        return {name: _without_names(column) for name, column in zip(first, by_system, strict=True)}
    found: dict[str, tuple[list[float | None], list[int]]] = {}
    for i, each in enumerate(scores):
        for score in each:
            if score.system not in found:
                found[score.system] = ([None] * len(scores), [SILENT] * len(scores))
            values, ranks = found[score.system]
            values[i], ranks[i] = score.score, score.rank
    return found


def _without_names(scores: Sequence[Score]) -> tuple[Sequence[float | None], Sequence[int]]:
    _, values, ranks = zip(*scores, strict=True)
    return values, ranks


def _judged(judgment: Judgment) -> Judged:
    outcome = judgment.outcome
    grade = isinstance(outcome, Graded)
    utility = outcome.utility if isinstance(outcome, Graded) else None
    when = microseconds(judgment.judged_at)
    return Judged(judgment.passage_id, judgment.judgment_key, when, judgment.judge, judgment, grade, outcome, utility)

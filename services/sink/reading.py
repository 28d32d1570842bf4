"""A judged set's message as the columns that the ledger writes: read as it stands, without the records that
`wire.from_proto` makes of it, which cost more than all the rest of a commit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from math import isnan
from typing import Any, Final

from qrelay import wire
from qrelay.errors import MalformedInput
from qrelay.labels.ledger.columns import Columns, Judged, Systems, systems_of
from qrelay.types import JudgeIdentity
from qrelay.v1 import records_pb2

_SECONDS: Final = range(-62_135_596_800, 253_402_300_800)
_NANOS: Final = range(1_000_000_000)
"""What a datetime holds, in seconds since 1970 and within a second."""


def columns_of(message: records_pb2.JudgedSet) -> Columns:
    """The set's columns.

    Raises:
        MalformedInput: a judgment has no outcome, or a value cannot be.
    """
    with wire.fitting("JudgedSet"):
        return _columns(message)


def _columns(message: records_pb2.JudgedSet) -> Columns:
    found = message.candidate_set
    passages = [candidate.passage for candidate in found.candidates]
    metadata = [passage.metadata for passage in passages]
    judges: dict[bytes, JudgeIdentity] = {}
    return Columns(
        record=cache(partial(wire.from_proto, message)),
        query=wire.from_proto(found.query),
        index_version=found.index_version,
        passage_ids=[passage.passage_id for passage in passages],
        doc_ids=[passage.doc_id for passage in passages],
        titles=[passage.title for passage in passages],
        texts=[passage.text for passage in passages],
        sampled=[int(candidate.sampled) for candidate in found.candidates],
        metadata=list(map(dict, metadata)) if any(metadata) else [],
        systems=_systems(found.candidates),
        trace=[[t.stage, t.replica, t.model, t.queue_seconds, t.compute_seconds] for t in found.trace],
        judgments=[_judged(judgment, judges) for judgment in message.judgments],
    )


def _systems(candidates: Sequence[Any]) -> Systems:
    """The columns straight away where every system said something of all candidates, as most often."""
    scores = [candidate.scores for candidate in candidates]
    width = len(scores[0]) if scores else 0
    if set(map(len, scores)) != {width}:
        return _scattered(candidates)
    told = [(score.system, score.score, score.rank) for each in scores for score in each]
    found: dict[str, tuple[Sequence[float | None], Sequence[int]]] = {}
    for system in range(width):
        names, values, ranks = zip(*told[system::width], strict=True)
        if len(set(names)) > 1 or not all(values) or isnan(sum(values)):  # zero may be none; NaN takes its rank along
            return _scattered(candidates)
        found[names[0]] = values, ranks
    return found if len(found) == width else _scattered(candidates)


def _scattered(candidates: Sequence[Any]) -> Systems:
    return systems_of([[wire.from_proto(score) for score in candidate.scores] for candidate in candidates])


def _judged(message: Any, judges: dict[bytes, JudgeIdentity]) -> Judged:
    """judges: those of the set so far, by their bytes; nearly all of its judgments share one."""
    kind = message.WhichOneof("outcome")
    if kind is None:
        raise MalformedInput(f"judgment of passage {message.passage_id!r} has no outcome: set graded or missing")
    outcome, grade = getattr(message, kind), kind == "graded"
    utility = wire.from_proto(outcome.utility) if grade and outcome.HasField("utility") else None
    identity, when = message.judge.SerializeToString(), _microseconds(message.judged_at)
    if identity not in judges:
        judges[identity] = wire.from_proto(message.judge)
    judge = judges[identity]
    return Judged(message.passage_id, message.judgment_key, when, judge, message, grade, outcome, utility)


def _microseconds(stamp: Any) -> int:
    seconds, nanos = stamp.seconds, stamp.nanos
    if seconds not in _SECONDS or nanos not in _NANOS:
        raise ValueError(f"{seconds} seconds and {nanos} nanoseconds since 1970 are no time")
    return int(seconds * 1_000_000 + nanos // 1000)

"""Trace steps: who worked on a record, with which model, for how long.

A core whose model may change while it runs opens its own step, in the same call that computes, so that the step names
the model of this very result: `opened`. The servicer completes it with what the core does not know: the replica and
the times. A core that asked several models opens a step for each; the times are the last one's. For a stage whose
model stays the same the worker writes the whole step: `closed`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qrelay.types import CandidateSet, JudgedSet, TraceStep


def opened(record: CandidateSet, stage: str, model: str) -> CandidateSet:
    """The set with a step of `stage` that names `model`, to be completed by `closed`."""
    return replace(record, trace=(*record.trace, TraceStep(stage, "", model, 0.0, 0.0)))


def closed(record: Any, step: TraceStep) -> Any:
    """The record with `step` in its trace: in place of the step that the core opened, whose model stays, else as one
    more. A record without a trace comes back as it is."""
    match record:
        case CandidateSet():
            return replace(record, trace=_closed(record.trace, step))
        case JudgedSet():
            return replace(record, candidate_set=closed(record.candidate_set, step))
        case _:
            return record


def is_open(record: Any, stage: str) -> bool:
    """Whether the record's core opened a step of `stage`."""
    return isinstance(record, CandidateSet) and _open(record.trace, stage)


def _closed(trace: tuple[TraceStep, ...], step: TraceStep) -> tuple[TraceStep, ...]:
    if not _open(trace, step.stage):
        return (*trace, step)
    before = [replace(each, replica=step.replica) if _open((each,), step.stage) else each for each in trace[:-1]]
    return (*before, replace(step, model=trace[-1].model))


def _open(trace: tuple[TraceStep, ...], stage: str) -> bool:
    return bool(trace) and trace[-1].stage == stage and not trace[-1].replica

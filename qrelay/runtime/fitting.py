"""What a message may lose so that it fits a queue's limit: texts, the largest first, never the query."""

from __future__ import annotations

from dataclasses import replace

from qrelay.runtime.stage import Record
from qrelay.types import Candidate, CandidateSet, JudgedSet, without_text


def without_largest_text(record: Record) -> Record | None:
    """The record whose largest passage, of equals the last, has neither title nor text; None where it has no text to
    lose."""
    if isinstance(record, JudgedSet):
        smaller = without_largest_text(record.candidate_set)
        return replace(record, candidate_set=smaller) if isinstance(smaller, CandidateSet) else None
    if not isinstance(record, CandidateSet) or not any(map(_size, record.candidates)):
        return None
    kept = list(record.candidates)
    largest = max(range(len(kept)), key=lambda place: (_size(kept[place]), place))
    kept[largest] = without_text(kept[largest])
    return replace(record, candidates=tuple(kept))


def _size(candidate: Candidate) -> int:
    return len(candidate.passage.title) + len(candidate.passage.text)

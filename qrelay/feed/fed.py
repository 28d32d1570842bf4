"""What can be fed: a query, for the retriever; or a query with its candidates, for the judge."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from qrelay.runtime.topology import Queue
from qrelay.types import CandidateSet, Query

Fed = Query | CandidateSet


def fed_query(record: Fed) -> Query:
    """The query of it."""
    return record.query if isinstance(record, CandidateSet) else record


def with_query(record: Fed, **changes: Any) -> Fed:
    """The record with a query that has these fields."""
    if isinstance(record, CandidateSet):
        return replace(record, query=replace(record.query, **changes))
    return replace(record, **changes)


def subject_of(record: Fed) -> str:
    """Where it is fed. Raises InvalidQuery: no collection can have its name."""
    queue = Queue.RERANKED if isinstance(record, CandidateSet) else Queue.QUERIES
    return queue.subject(fed_query(record).collection)

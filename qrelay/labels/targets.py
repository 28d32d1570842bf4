"""The passages that a line of grades is about: the one that it names, or with documents those of its document.

A document that is worth nothing has no passage that is worth something: its grade, the scale's lowest, is that of
each of its judged passages. A higher grade is some passage's, and where several were judged nobody but a person can
say which one's: such a line is bad. A document without a judged passage cannot be told to the ledger, whose labels
are of passages.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.labels.ledger.names import Names, names_of
from qrelay.labels.ledger.overrides import NewOverride
from qrelay.naming import examples
from qrelay.scales import bounds


@dataclass(slots=True)
class Resolved:
    """found: what is to be recorded. bad: line number -> why it cannot be. unjudged: lines of documents without a
    judged passage."""

    found: list[NewOverride] = field(default_factory=list)
    bad: dict[int, str] = field(default_factory=dict)
    unjudged: int = 0


def resolve(
    connection: sa.Connection,
    lines: Mapping[int, NewOverride],
    query_numbers: Mapping[str, int],
    *,
    documents: bool,
) -> Resolved:
    """`lines`: by line number, of queries that `query_numbers` knows; with `documents` their passage_id is a
    document's."""
    resolved = Resolved()
    by_query: dict[int, list[int]] = {}
    for number, each in lines.items():
        by_query.setdefault(query_numbers[each.query_id], []).append(number)
    for query_no, names in names_of(connection, list(by_query), judged=documents):
        for number in by_query[query_no]:
            _add(resolved, number, lines[number], names, documents)
    return resolved


def require_passage(connection: sa.Connection, query_no: int, passage_id: str) -> None:
    """Refuses an id that is a document's, or has not the form of the passages' ids. Raises InputError."""
    for _, names in names_of(connection, [query_no]):
        if problem := names.no_passage(passage_id):
            raise InputError(problem)


def _add(resolved: Resolved, number: int, line: NewOverride, names: Names, documents: bool) -> None:
    if not documents:
        if problem := names.no_passage(line.passage_id):
            resolved.bad[number] = f"{problem}, or import documents' grades with --documents"
        else:
            resolved.found.append(line)
        return
    if problem := names.no_document(line.passage_id):
        resolved.bad[number] = f"{problem}, or import passages' grades without --documents"
        return
    passages = names.judged_of(line.passage_id)
    if len(passages) > 1 and line.grade != bounds(line.scale)[0]:
        resolved.bad[number] = (
            f"the document {line.passage_id!r} has {len(passages)} judged passages, {examples(passages)}, and its"
            f" grade {line.grade} does not say which of them is worth it: grade them (`qrelay label set`)"
        )
        return
    resolved.unjudged += not passages
    resolved.found += [replace(line, passage_id=each) for each in passages]

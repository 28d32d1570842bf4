"""Which judged sets a `where` means, for those who judge again.

Conditions are looked up in the label that counts (`choice.py`), as an export shows it; `judge` and `strategy` say
among whose labels. Where `human` is asked for, people's overrides are labels too, and count first. A set comes with
its matching passages marked as sampled and with all their judgments; its other candidates are not sampled, so that a
judge asks about the matching ones alone.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Final

from qrelay.errors import InputError
from qrelay.labels.choice import describe_judges, one_a_pair
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.reader import Snapshot
from qrelay.labels.where import Where
from qrelay.types import JudgedSet, JudgeIdentity

_PAGE: Final = 64


def select_sets(
    ledger: Ledger, collection: str, where: Where, relevant_grades: Mapping[str, int], after: str = ""
) -> Iterator[JudgedSet]:
    """The matching sets by query_id, of the ids beyond `after`. Each page is a snapshot of its own: a reader that
    judges between two sets for hours holds nothing open.

    Raises:
        UnknownCollection: the ledger holds no query of it.
        InputError: a judge or strategy that the ledger does not know, or a scale without a relevant grade.
    """
    with ledger.snapshot() as snapshot:
        snapshot.require_collection(collection)
        _require_judges(snapshot, where)
    last: str | None = after
    while last is not None:
        with ledger.snapshot() as snapshot:
            last, page = _page(snapshot, collection, where, relevant_grades, last)
        yield from page


def _page(
    snapshot: Snapshot, collection: str, where: Where, relevant_grades: Mapping[str, int], after: str
) -> tuple[str | None, list[JudgedSet]]:
    """(last id that was looked at, or None at the end; the matching sets)."""
    judges = {no: judge for no, judge in snapshot.judges().items() if where.names(judge)}
    every = snapshot.judges(retracted=True)
    retracted = {every[number].identity for number in snapshot.retracted}
    ids = [where.query_id] if where.query_id else None
    read = snapshot.labelled_queries(
        collection,
        candidates=False,
        ids=ids,
        after=after,
        page=_PAGE,
        overrides=where.asks_people,
        relevant_grades=relevant_grades,
    )
    queries = list(islice(read, _PAGE))
    found = []
    for query in queries:
        if matching := where.kept(one_a_pair(query, judges), judges, relevant_grades).keys():
            record = snapshot.judged_set(collection, query.query_id)
            assert record is not None, "a query vanished from its snapshot: this is a bug"
            found.append(_narrowed(record, matching, retracted))
    return (queries[-1].query_id if len(queries) == _PAGE else None), [each for each in found if each.judgments]


def _narrowed(record: JudgedSet, matching: Collection[str], retracted: set[JudgeIdentity]) -> JudgedSet:
    """The set with the matching passages that have a text as its sampled ones, and their judgments but those of
    retracted judges."""
    chosen = {
        c.passage.passage_id
        for c in record.candidate_set.candidates
        if c.passage.passage_id in matching and c.passage.text
    }
    candidates = tuple(replace(c, sampled=c.passage.passage_id in chosen) for c in record.candidate_set.candidates)
    return JudgedSet(
        replace(record.candidate_set, candidates=candidates),
        tuple(
            judgment
            for judgment in record.judgments
            if judgment.passage_id in chosen and judgment.judge not in retracted
        ),
    )


def _require_judges(snapshot: Snapshot, where: Where) -> None:
    judges = snapshot.judges()
    if (where.judges or where.strategies) and not any(map(where.names, judges.values())):
        asked = " and ".join([f"judge={p}" for p in where.judges] + [f"strategy={s}" for s in where.strategies])
        raise InputError(f"where: the ledger knows no judge with {asked}; it knows {describe_judges(judges)}")

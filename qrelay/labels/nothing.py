"""Why a list of pairs for review is empty, in a sentence that says what to do."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.reader import Snapshot
from qrelay.labels.review import DISAGREEMENT, measured
from qrelay.types import COMBINED

_judgments, _queries = schema.judgments.c, schema.queries.c


def why_empty(ledger: Ledger, collection: str, kind: str) -> str:
    """Of a first page without a pair, of a collection that the ledger holds. `kind`: DISAGREEMENT or UNCERTAINTY."""
    with ledger.snapshot() as snapshot:
        graded = _graded_by(snapshot, collection)
        if not graded:
            return f"no label of {collection} has a grade yet: {_missing(snapshot, collection)}"
        waiting = _count(snapshot, measured(snapshot, collection, kind))
        if waiting:
            verb = "judges differ on" if kind == DISAGREEMENT else "have a probability"
            return f"all {waiting} pairs of {collection} that {verb} are reviewed; --overridden lists them too"
        if kind == DISAGREEMENT:
            return _agreed(snapshot, collection, graded)
    return f"no label of {collection} has a probability: its judges give grades alone"


def _agreed(snapshot: Snapshot, collection: str, graded: list[int]) -> str:
    judges = snapshot.judges()
    opinions = [number for number in graded if number > 0 and judges[number].identity.strategy not in COMBINED]
    if len(opinions) < 2:
        who = f"one judge ({judges[opinions[0]].identity.strategy})" if opinions else "no judge of its own opinion"
        return (
            f"only {who} has labelled {collection}, so nobody disagrees: `qrelay judge rejudge` with another judge "
            "adds a second opinion, and --by uncertainty needs one judge alone"
        )
    shared = _shared(snapshot, collection, opinions)
    if not shared:
        return f"no pair of {collection} has labels of two judges: `qrelay judge rejudge` judges the same pairs again"
    return f"the {len(opinions)} judges of {collection} agree on all {shared} pairs that two of them labelled"


def _of(collection: str) -> Any:
    return schema.judgments.join(schema.queries, _judgments.query_no == _queries.query_no), (
        _queries.collection == collection
    )


def _graded_by(snapshot: Snapshot, collection: str) -> list[int]:
    """Numbers of the judges that graded a pair."""
    tables, here = _of(collection)
    chosen = sa.select(_judgments.judge_no).distinct().select_from(tables).where(here, _judgments.grade.is_not(None))
    return list(snapshot.connection.execute(chosen).scalars())


def _shared(snapshot: Snapshot, collection: str, opinions: list[int]) -> int:
    """Pairs that two judges or more graded."""
    tables, here = _of(collection)
    pairs = (
        sa.select(_judgments.query_no)
        .select_from(tables)
        .where(here, _judgments.grade.is_not(None), _judgments.judge_no.in_(opinions))
        .group_by(_judgments.query_no, _judgments.passage_id)
        .having(sa.func.count(sa.distinct(_judgments.judge_no)) > 1)
        .subquery()
    )
    return _count(snapshot, pairs)


def _missing(snapshot: Snapshot, collection: str) -> str:
    tables, here = _of(collection)
    reason = _judgments.missing_reason
    chosen = sa.select(reason, sa.func.count()).select_from(tables).where(here).group_by(reason).order_by(reason)
    found = [f"{count} are missing ({why})" for why, count in snapshot.connection.execute(chosen)]
    return ", ".join(found) or "its queries were judged without a pair"


def _count(snapshot: Snapshot, rows: Any) -> int:
    return int(snapshot.connection.execute(sa.select(sa.func.count()).select_from(rows)).scalar() or 0)

"""A collection's row: taken before anything of the collection is written, held until the transaction ends.

So writers of one collection queue up, and the numbers of its changes become visible in their order: who has read up
to change n never finds a new row at or below n. On SQLite a writer is alone anyway.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.database import insert_new

_columns = schema.collections.c
_TAKE: Final = (
    schema.collections.update()
    .where(_columns.collection == sa.bindparam("wanted"))
    .values(change_no=_columns.change_no + sa.bindparam("step"))
    .returning(_columns.change_no)
)
_NEW: Final[dict[str, Any]] = {"change_no": 0, "hard_examples": 0, "disagreements": 0, "judged": 0}


def begin_changes(connection: sa.Connection, collections: Iterable[str]) -> dict[str, int]:
    """collection -> the number of the change that this transaction makes to it. Taken in the order of their names, so
    that two writers cannot wait for each other."""
    return {collection: _take(connection, collection, 1) for collection in sorted(collections)}


def hold(connection: sa.Connection, collections: Iterable[str]) -> None:
    """As `begin_changes`, for those who alter no label but must not pass a commit."""
    for collection in sorted(collections):
        _take(connection, collection, 0)


def _take(connection: sa.Connection, collection: str, step: int) -> int:
    while (number := connection.execute(_TAKE, {"wanted": collection, "step": step}).scalar()) is None:
        connection.execute(insert_new(schema.collections), {"collection": collection, **_NEW})
    return int(number)

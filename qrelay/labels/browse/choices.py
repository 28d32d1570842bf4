"""What a list of queries can be narrowed to."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.reader import JudgeRow, Snapshot
from qrelay.labels.ledger.states import CollectionStats


@dataclass(frozen=True, slots=True)
class Choices:
    """judges: those whose labels count, people aside, by strategy and model."""

    collections: tuple[CollectionStats, ...]
    rounds: tuple[int, ...]
    judges: tuple[JudgeRow, ...]


def choices(snapshot: Snapshot) -> Choices:
    """Of the whole ledger."""
    rounds = snapshot.connection.execute(sa.select(schema.queries.c.round).distinct()).scalars()
    judges = [judge for judge in snapshot.judges().values() if judge.judge_no > 0]
    judges.sort(key=lambda judge: (judge.identity.strategy, judge.identity.model, judge.judge_hash))
    return Choices(tuple(snapshot.stats()), tuple(sorted(rounds)), tuple(judges))

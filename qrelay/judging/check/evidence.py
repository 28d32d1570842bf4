"""The ledger's labels and scores of one collection as columns, a row a pair; rows of one query stand together."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qrelay.judging.check.known import KnownAnswers
from qrelay.models.registry.ledgerside import LedgerPair, LedgerQuery
from qrelay.progress import step
from qrelay.types import SYSTEMS, JudgeIdentity

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Evidence:
    """query, passage: ids of each row; p: judge hash -> P(relevant) a row, nan where it gave no grade; relevant: the
    same as 1 or 0; scores: system -> score a row, or nan; counts: P(relevant) of the label that an export takes;
    judges: those that graded something here. All [rows]."""

    query: NDArray[np.int64]
    query_ids: tuple[str, ...]
    passages: tuple[str, ...]
    p: Mapping[str, Floats]
    relevant: Mapping[str, Floats]
    scores: Mapping[str, Floats]
    counts: Floats
    counted: Mapping[str, int]
    judges: Mapping[str, JudgeIdentity]

    def pair(self, row: np.integer[Any]) -> tuple[str, str]:
        """(query_id, passage_id)."""
        return self.query_ids[self.query[row]], self.passages[row]

    def groups(self, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
        """These rows, ascending, query by query."""
        return np.split(rows, np.flatnonzero(np.diff(self.query[rows])) + 1) if len(rows) else []


def gather(queries: Iterable[LedgerQuery], judges: Mapping[str, JudgeIdentity], known: KnownAnswers) -> Evidence:
    """Reads the ledger once; `known` is told of every query too."""
    query, ids, passages = array("q"), list[str](), list[str]()
    p, relevant = ({hashed: array("d") for hashed in judges} for _ in range(2))
    scores, counts = {system: array("d") for system in SYSTEMS}, array("d")
    counted = dict.fromkeys(judges, 0)
    with step("reading the ledger", unit="queries") as reading:
        for each in queries:
            known.add(each)
            for pair in each.pairs:
                query.append(len(ids))
                passages.append(pair.passage_id)
                _append(pair, p, relevant, scores, counts)
                counted[pair.counts] = counted.get(pair.counts, 0) + (pair.counts in pair.labels)
            ids.append(each.query_id)
            reading.advance(1)
    here = {hashed: judge for hashed, judge in judges.items() if not np.isnan(p[hashed]).all()}
    return Evidence(
        np.array(query, np.int64),
        tuple(ids),
        tuple(passages),
        {hashed: np.array(p[hashed]) for hashed in here},
        {hashed: np.array(relevant[hashed]) for hashed in here},
        {name: column for name, found in scores.items() if not np.isnan(column := np.array(found)).all()},
        np.array(counts),
        {hashed: counted[hashed] for hashed in here},
        here,
    )


def _append(
    pair: LedgerPair,
    p: Mapping[str, array[float]],
    relevant: Mapping[str, array[float]],
    scores: Mapping[str, array[float]],
    counts: array[float],
) -> None:
    for hashed in p:
        label = pair.labels.get(hashed)
        p[hashed].append(np.nan if label is None else label.p_relevant)
        relevant[hashed].append(np.nan if label is None else label.relevant)
    for system, column in scores.items():
        column.append(pair.scores.get(system, np.nan))
    counting = pair.labels.get(pair.counts)
    counts.append(np.nan if counting is None else counting.p_relevant)

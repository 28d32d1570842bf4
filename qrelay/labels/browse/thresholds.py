"""How many labels lie where between not relevant and relevant, by judge: what a threshold of P(relevant) would take.

histograms = Histograms()                        # one for as long as the process lives
with ledger.snapshot() as snapshot:
    found = histograms.of(snapshot, "docs", rules.relevant_grades)

The first look at a collection reads all its labels (a second a million), later ones what was added since. A label
never changes or goes, and numbered changes say what is new.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.reader import JudgeRow, Snapshot
from qrelay.scales import Scale

BINS: Final = 100
"""Of P(relevant); bin i holds i/100 up to (i + 1)/100, and the last one 1 alone."""
_JUST_BELOW: Final = 1e-6
"""0.29 times 100 is a little under 29."""
_q, _j, _g = schema.queries.c, schema.judgments.c, schema.generations.c


class _Kind(NamedTuple):
    judge_no: int
    bin: int | None
    grade: int | None


@dataclass(slots=True)
class _Known:
    change_no: int = 0
    counts: Counter[_Kind] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class Histogram:
    """A judge's labels of a collection. relevant, others: how many in each bin [BINS + 1], by its own grade."""

    judge: JudgeRow
    relevant: tuple[int, ...]
    others: tuple[int, ...]
    missing: int

    @property
    def labels(self) -> int:
        """With a grade."""
        return sum(self.relevant) + sum(self.others)

    @property
    def bins(self) -> list[int]:
        """Labels in each bin [BINS + 1]."""
        return [one + other for one, other in zip(self.relevant, self.others, strict=True)]

    def reaching(self, bound: int) -> int:
        """Labels whose P(relevant) is `bound` hundredths or more."""
        return sum(self.bins[bound:])

    def below(self, bound: int) -> int:
        """Labels whose P(relevant) is less than `bound` hundredths."""
        return sum(self.bins[:bound])


class Histograms:
    """See the module. Threads take turns."""

    def __init__(self) -> None:
        self._known: dict[str, _Known] = {}
        self._turn = threading.Lock()

    def of(self, snapshot: Snapshot, collection: str, relevant_grades: Mapping[str, int]) -> list[Histogram]:
        """Of every judge that labelled something of the collection, retracted ones aside, by strategy and model."""
        with self._turn:
            known = self._known.setdefault(collection, _Known())
            last = snapshot.change_no(collection)
            if last > known.change_no:
                known.counts.update(_added(snapshot.connection, collection, known.change_no))
                known.change_no = last
            counts = Counter(known.counts)
        judges = snapshot.judges()
        here = {kind.judge_no for kind in counts} & set(judges)
        found = [_histogram(judges[no], counts, relevant_grades) for no in here]
        found.sort(key=lambda each: (each.judge.identity.strategy, each.judge.identity.model, each.judge.judge_hash))
        return found


def _added(connection: sa.Connection, collection: str, after: int) -> dict[_Kind, int]:
    """Labels that changes beyond `after` brought. Of all changes the generations need not be asked."""
    joined = schema.queries.join(schema.judgments, _j.query_no == _q.query_no)
    conditions: list[Any] = [_q.collection == collection]
    if after:
        joined = joined.join(schema.generations, sa.and_(_g.query_no == _j.query_no, _g.generation == _j.generation))
        conditions += [_q.change_no > after, _g.change_no > after]
    scaled = _j.p_relevant * BINS + _JUST_BELOW
    place = sa.func.floor(scaled) if connection.dialect.name == "postgresql" else sa.cast(scaled, sa.Integer)
    chosen = sa.select(_j.judge_no, place, _j.grade, sa.func.count()).select_from(joined).where(*conditions)
    rows = connection.execute(chosen.group_by(_j.judge_no, place, _j.grade))
    return {_Kind(no, None if bin_ is None else int(bin_), grade): int(count) for no, bin_, grade, count in rows}


def _histogram(judge: JudgeRow, counts: Counter[_Kind], relevant_grades: Mapping[str, int]) -> Histogram:
    relevant, others, missing = [0] * (BINS + 1), [0] * (BINS + 1), 0
    for kind, count in counts.items():
        if kind.judge_no != judge.judge_no:
            continue
        if kind.bin is None:
            missing += count
        else:
            row = relevant if _relevant(judge.identity.scale, kind, relevant_grades) else others
            row[min(max(kind.bin, 0), BINS)] += count
    return Histogram(judge, tuple(relevant), tuple(others), missing)


def _relevant(scale: str, kind: _Kind, relevant_grades: Mapping[str, int]) -> bool:
    """By the grade; by P(relevant) on a scale that nobody explains."""
    try:
        return Scale.halved(scale, relevant_grades).relevant(kind.grade)
    except InputError:
        return (kind.bin or 0) >= BINS // 2

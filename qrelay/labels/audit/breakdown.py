"""Where labels, positives and negatives come from.

Dimensions: source (the query's attribute `source`), index_version, judge, generation, and retrieved_by: the
first-stage systems that ranked the passage. Of each dimension the first GROUPS names are kept apart, in the order of
query_ids; what comes after them is counted together under OTHERS.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, Final

from qrelay.labels.audit.judges import Judges
from qrelay.labels.examples import Example
from qrelay.labels.ledger.reader import Label
from qrelay.ranks import current_model, rank_of
from qrelay.types import BI_ENCODER, CROSS_ENCODER, SMALL_CROSS_ENCODER, Candidate

DIMENSIONS: Final = ("source", "index_version", "judge", "generation", "retrieved_by")
COLUMNS: Final = ("queries", "pairs", "graded", "relevant", "positives", "negatives")
GROUPS: Final = 100
OTHERS: Final = "(others)"
UNKNOWN: Final = "(none)"
RANKS: Final = ((1, "1"), (5, "2-5"), (10, "6-10"), (20, "11-20"), (50, "21-50"), (100, "51-100"))
_RERANKERS: Final = (CROSS_ENCODER, BI_ENCODER, SMALL_CROSS_ENCODER)


class Breakdown:
    """The check."""

    def __init__(self, judges: Judges) -> None:
        self._judges = judges
        self._groups: dict[str, dict[str, Counter[str]]] = {name: {} for name in DIMENSIONS}
        self._reasons: Counter[str] = Counter()
        self._ranks: Counter[str] = Counter()
        self._totals: Counter[str] = Counter()

    def add(self, record: Example) -> None:
        """One query."""
        self._totals.update(queries=1, examples=bool(record.positives))
        roles = {each.passage_id: each.role + "s" for each in (*record.positives, *record.negatives)}
        candidates, in_query = record.candidates, set()
        for passage_id, label in record.labels.items():
            for dimension, name in self._names(record, label, candidates[passage_id]):
                group = self._group(dimension, name)
                in_query.add((dimension, name))
                self._count(group, label, roles.get(passage_id, ""))
        for dimension, name in in_query:
            self._group(dimension, name)["queries"] += 1
        self._of_examples(record)

    def _count(self, group: Counter[str], label: Label, role: str) -> None:
        group["pairs"] += 1
        group["graded"] += label.grade is not None
        group["relevant"] += self._judges.relevant(label)
        if role:
            group[role] += 1

    def _names(self, record: Example, label: Label, candidate: Candidate) -> Iterator[tuple[str, str]]:
        found = (
            record.query.attribute("source") or UNKNOWN,
            record.query.index_version or UNKNOWN,
            self._judges.every[label.judge_no].judge_hash,
            str(label.generation),
            retrieved_by(candidate),
        )
        for dimension, name in zip(DIMENSIONS, found, strict=True):
            yield dimension, name if self._kept(dimension, name) else OTHERS

    def _kept(self, dimension: str, name: str) -> bool:
        groups = self._groups[dimension]
        return name in groups or len(groups) < GROUPS

    def _group(self, dimension: str, name: str) -> Counter[str]:
        return self._groups[dimension].setdefault(name, Counter())

    def _of_examples(self, record: Example) -> None:
        self._totals.update(positives=len(record.positives), negatives=len(record.negatives))
        self._reasons.update(verdict.reason for verdict in record.negatives)
        if not record.positives:
            return
        labelled = [each for each in record.query.candidates if each.passage.passage_id in record.labels]
        system = current_model(labelled)
        self._ranks.update(rank_bin(rank_of(verdict.judged.candidate, system)) for verdict in record.positives)

    def totals(self) -> dict[str, int]:
        """queries, examples, positives, negatives."""
        return {name: self._totals[name] for name in ("queries", "examples", "positives", "negatives")}

    def result(self) -> dict[str, Any]:
        """by: dimension -> group -> COLUMNS; negatives_by_reason; positives_by_rank: of the current model."""
        return {
            "by": {dimension: _table(groups) for dimension, groups in self._groups.items()},
            "negatives_by_reason": dict(sorted(self._reasons.items())),
            "positives_by_rank": {name: self._ranks[name] for name in RANK_NAMES},
        }


RANK_NAMES: Final = (*(name for _, name in RANKS), "over 100", "unranked")


def rank_bin(rank: float) -> str:
    """One of RANK_NAMES."""
    if rank == float("inf"):
        return "unranked"
    return next((name for up_to, name in RANKS if rank <= up_to), "over 100")


def retrieved_by(candidate: Candidate) -> str:
    """The first-stage systems that ranked the passage, joined by "+"."""
    found = {score.system for score in candidate.scores if score.rank > 0} - set(_RERANKERS)
    return "+".join(sorted(found)) or UNKNOWN


def _table(groups: Mapping[str, Counter[str]]) -> dict[str, dict[str, int]]:
    return {name: {column: counts[column] for column in COLUMNS} for name, counts in sorted(groups.items())}

"""What an export counts while it is written, for its manifest."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from qrelay.labels.exports.catalogue import EXAMPLES_USE, GRADES_USE, QRELS_USE
from qrelay.labels.exports.item import Item
from qrelay.labels.exports.request import Request
from qrelay.labels.exports.source import Source
from qrelay.labels.exports.spill import Spill
from qrelay.labels.exports.splits import Leaks
from qrelay.labels.ledger.people import HUMAN, relevant_grade
from qrelay.labels.ledger.reader import JudgeRow, Label
from qrelay.labels.mining.rules import Verdict
from qrelay.labels.permission import Usage
from qrelay.labels.qualification import NEGATIVES, POSITIVES, USES
from qrelay.types import JudgeIdentity


class Tally:
    """Counts of one export, and the check that its labels may be what they are used as."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self.usage = Usage(request.report, request.allowed)
        self.rows = 0
        self.queries = 0
        self.read = 0
        self.overrides = 0
        self.missing: Counter[str] = Counter()
        self.grades: Counter[int] = Counter()
        self.emptied: list[str] = []
        self._judges: dict[int, JudgeRow] = {}
        self._generations: dict[int, set[int]] = {}
        self._sides: dict[str, Counter[str]] = {}
        self._spill = Spill()
        self._leaks = Leaks(self._spill)

    def close(self) -> None:
        """Frees what was kept."""
        self._spill.close()

    def before(self, item: Item, source: Source) -> None:
        """A query that is about to be written.

        Raises:
            NotQualified: a label would teach whose judge may not; see `labels/permission.py`.
        """
        self.read += 1
        for label in item.labels.values():
            self._count(label, item.judges[label.judge_no])
        kind = self._request.format
        if kind.use == EXAMPLES_USE and item.example is not None:
            self._train_on_all(item.example.positives, POSITIVES, item)
            self._train_on_all(item.example.negatives, NEGATIVES, item)
        elif kind.use in (QRELS_USE, GRADES_USE):
            teaches = kind.teaches(item.split)
            for label in item.graded():
                uses = (POSITIVES if source.relevant(label) else NEGATIVES,) if teaches else USES
                self.usage.add(item.judges[label.judge_no], label, uses, teaches=teaches)

    def after(self, item: Item, source: Source, rows: int) -> None:
        """The same query, written as so many rows."""
        self.rows += rows
        self.queries += bool(rows)
        if not rows and self._request.since:
            self.emptied.append(item.query.query_id)
        wanted = self._request.splits
        if wanted and rows:
            self._leaks.add(wanted.names.index(item.split), source.shared(item))
            side = self._sides.setdefault(item.split, Counter())
            side["queries"] += 1
            side["rows"] += rows

    def splits(self) -> dict[str, dict[str, int]]:
        """Queries and rows of each split, in their order."""
        names = self._request.splits.names if self._request.splits else ()
        return {name: {key: self._sides.get(name, Counter())[key] for key in ("queries", "rows")} for name in names}

    @property
    def shared_by_two_splits(self) -> int:
        """Texts, documents or values of the attribute that stand on two sides: 0, or the splits leak."""
        return self._leaks.found

    def judges(self) -> list[dict[str, Any]]:
        """The judges whose labels were read, by hash."""
        found = sorted(self._judges.values(), key=lambda judge: judge.judge_hash)
        return [
            _describe(judge.judge_hash, judge.identity, sorted(self._generations[judge.judge_no])) for judge in found
        ]

    def relevant_grades(self) -> dict[str, int]:
        """scale -> the least relevant grade on it, of the judges' scales as far as it is known."""
        known, found = self._request.rules.relevant_grades, dict[str, int]()
        for judge in self._judges.values():
            scale = judge.identity.scale
            if judge.identity.strategy == HUMAN or scale in known:
                found[scale] = relevant_grade(scale, known)
        return dict(sorted(found.items()))

    def _count(self, label: Label, judge: JudgeRow) -> None:
        self._judges[label.judge_no] = judge
        self._generations.setdefault(label.judge_no, set()).add(label.generation)
        self.overrides += label.human
        if label.grade is None:
            self.missing[str(label.missing_reason)] += 1
        else:
            self.grades[label.grade] += 1

    def _train_on_all(self, verdicts: Sequence[Verdict], use: str, item: Item) -> None:
        for verdict in verdicts:
            label = item.labels[verdict.passage_id]
            self.usage.add(item.judges[label.judge_no], label, (use,), teaches=True)


def _describe(judge_hash: str, identity: JudgeIdentity, generations: list[int]) -> dict[str, Any]:
    return {"judge": judge_hash, **asdict(identity), "generations": generations}

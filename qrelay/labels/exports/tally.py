"""What an export counts while it is written, for its manifest."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from typing import Any

from qrelay.labels.choice import relevant
from qrelay.labels.examples import Example
from qrelay.labels.exports.catalogue import EXAMPLES_USE, GRADES_USE, QRELS_USE
from qrelay.labels.exports.request import Request
from qrelay.labels.exports.source import Source
from qrelay.labels.exports.spill import Spill
from qrelay.labels.exports.splits import Leaks
from qrelay.labels.ledger.precedence import HUMAN
from qrelay.labels.ledger.reader import JudgeRow, Label
from qrelay.labels.permission import Usage
from qrelay.labels.qualification import NEGATIVES, POSITIVES, USES
from qrelay.scales import Scale, known


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

    def before(self, example: Example) -> None:
        """A query that is about to be written.

        Raises:
            NotQualified: a label would be trained on that may not be; see `labels/permission.py`.
        """
        self.read += 1
        for label in example.labels.values():
            self._count(label, example.judges[label.judge_no])
        kind = self._request.format
        if kind.use == EXAMPLES_USE:
            for verdicts, use in ((example.positives, POSITIVES), (example.negatives, NEGATIVES)):
                for verdict in verdicts:
                    self._use(example, example.labels[verdict.passage_id], (use,), trains=True)
        elif kind.use in (QRELS_USE, GRADES_USE):
            trains, grades = kind.trains(example.split), self._request.rules.relevant_grades
            for label in example.graded():
                uses = (POSITIVES if relevant(label, example.judges, grades) else NEGATIVES,) if trains else USES
                self._use(example, label, uses, trains=trains)

    def after(self, example: Example, source: Source, rows: int) -> None:
        """The same query, written as so many rows."""
        self.rows += rows
        self.queries += bool(rows)
        if not rows and self._request.since:
            self.emptied.append(example.query.query_id)
        wanted = self._request.splits
        if wanted and rows:
            self._leaks.add(wanted.names.index(example.split), source.shared(example.query, wanted))
            side = self._sides.setdefault(example.split, Counter())
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
            {
                "judge": each.judge_hash,
                **asdict(each.identity),
                "generations": sorted(self._generations[each.judge_no]),
            }
            for each in found
        ]

    def relevant_grades(self) -> dict[str, int]:
        """scale -> the least relevant grade on it, of the judges' scales as far as it is known."""
        grades, found = self._request.rules.relevant_grades, dict[str, int]()
        for judge in self._judges.values():
            scale = judge.identity.scale
            if judge.identity.strategy == HUMAN or known(scale, grades):
                found[scale] = Scale.halved(scale, grades).relevant_grade
        return dict(sorted(found.items()))

    def _count(self, label: Label, judge: JudgeRow) -> None:
        self._judges[label.judge_no] = judge
        self._generations.setdefault(label.judge_no, set()).add(label.generation)
        self.overrides += label.human
        if label.grade is None:
            self.missing[str(label.missing_reason)] += 1
        else:
            self.grades[label.grade] += 1

    def _use(self, example: Example, label: Label, uses: tuple[str, ...], *, trains: bool) -> None:
        self.usage.add(example.judges[label.judge_no], label, uses, trains=trains)

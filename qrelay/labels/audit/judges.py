"""Whose labels an audit is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qrelay.labels import choice
from qrelay.labels.ledger.reader import JudgeRow, Label


@dataclass(frozen=True, slots=True)
class Judges:
    """Who is who: `every` judge of the ledger by number, people too, and those whose labels are `audited`: never
    people, for it is the judges that are audited."""

    every: Mapping[int, JudgeRow]
    audited: Mapping[int, JudgeRow]
    relevant_grades: Mapping[str, int]

    def relevant(self, label: Label) -> bool:
        """Whether the label says relevant. Raises InputError: its scale has no relevant grade."""
        return choice.relevant(label, self.every, self.relevant_grades)

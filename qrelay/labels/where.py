"""`where`: which labels are meant, in a small language that is parsed strictly and never executed.

    grade=2 and p_relevant<0.6              grade: the judge's own, on its scale
    strategy=graded and missing=timeout

Terms are joined by `and`. Numbers compare with = < <= > >=; words with =. Empty means every label.
`human`: the label that counts is a person's override; `relevant`: it is relevant on its scale.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from qrelay.errors import InputError
from qrelay.labels.choice import relevant
from qrelay.labels.ledger.reader import JudgeRow, Label
from qrelay.types import MISSING_REASONS

_TERM: Final = re.compile(r"([a-z_]+)(?:\s*(<=|>=|=|<|>)\s*(\S+))?")
_NUMBER: Final = re.compile(r"-?\d{1,9}(\.\d{1,15})?")
_COMPARE: Final[Mapping[str, Callable[[float, float], bool]]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NUMBERS: Final = ("grade", "p_relevant", "entropy")
FLAGS: Final = ("relevant", "missing", "human")
WORDS: Final = ("judge", "strategy", "query_id", "missing")
ALLOWED: Final = (
    "grade=2 (also < <= > >=), p_relevant<0.6, entropy>1.0 (nats), relevant, human, missing,"
    f" missing=REASON ({', '.join(MISSING_REASONS)}), judge=HASHPREFIX, strategy=NAME, query_id=ID; joined by `and`"
)
"""What a text may hold, for people."""


@dataclass(frozen=True, slots=True)
class Term:
    """One condition. `operator` and `value` are empty for a flag."""

    name: str
    operator: str = ""
    value: str = ""


@dataclass(frozen=True, slots=True)
class Where:
    """A parsed text. `labels` are conditions on one label; the others choose a query and judges, and are empty
    where the text does not name them."""

    labels: tuple[Term, ...] = ()
    query_id: str = ""
    judges: frozenset[str] = field(default_factory=frozenset)
    """Beginnings of judge hashes."""
    strategies: frozenset[str] = field(default_factory=frozenset)

    @property
    def asks_relevance(self) -> bool:
        """Whether a condition needs to know what is relevant on a label's scale."""
        return any(term.name == "relevant" for term in self.labels)

    @property
    def asks_people(self) -> bool:
        """Whether a condition speaks of people's overrides, which the reader must then ask for."""
        return any(term.name == "human" for term in self.labels)

    def names(self, judge: JudgeRow) -> bool:
        """Whether it speaks of this judge: a judge must satisfy every one of its terms."""
        return all(judge.judge_hash.startswith(prefix) for prefix in self.judges) and all(
            judge.identity.strategy == strategy for strategy in self.strategies
        )

    def kept(
        self, labels: Mapping[str, Label], judges: Mapping[int, JudgeRow], relevant_grades: Mapping[str, int]
    ) -> dict[str, Label]:
        """The labels of which every condition holds; a number of a missing label satisfies none.

        Raises:
            InputError: a condition asks for relevance, and a judge's scale has no relevant grade.
        """

        def holds(label: Label) -> bool:
            says = self.asks_relevance and relevant(label, judges, relevant_grades)
            return all(_holds(term, label, says) for term in self.labels)

        return {passage_id: label for passage_id, label in labels.items() if holds(label)}


def parse_where(text: str) -> Where:
    """The conditions in `text`.

    Raises:
        InputError: a term that is not known, or a value that cannot be; the text lists what is allowed.
    """
    terms = [_term(part) for part in re.split(r"\s+and\s+", text.strip())] if text.strip() else []
    query_ids = _values(terms, "query_id")
    if len(query_ids) > 1:
        raise InputError(f"where: no label is of {len(query_ids)} queries: give query_id once")
    return Where(
        labels=tuple(term for term in terms if term.name in (*NUMBERS, *FLAGS)),
        query_id=next(iter(query_ids), ""),
        judges=_values(terms, "judge"),
        strategies=_values(terms, "strategy"),
    )


def _values(terms: list[Term], name: str) -> frozenset[str]:
    return frozenset(term.value for term in terms if term.name == name)


def _term(part: str) -> Term:
    found = _TERM.fullmatch(part.strip())
    if found is None:
        raise _refused(part)
    name, compared, value = found[1], found[2] or "", found[3] or ""
    number = name in NUMBERS and compared and _NUMBER.fullmatch(value)
    word = name in WORDS and compared == "="
    flag = name in FLAGS and not compared
    if not (number or word or flag):
        raise _refused(part)
    if name == "grade" and "." in value:
        raise InputError(f"where: {part!r}: a grade is a whole number")
    if name == "missing" and word and value not in MISSING_REASONS:
        raise InputError(f"where: {part!r}: there is no such reason; there are {', '.join(MISSING_REASONS)}")
    return Term(name, compared, value)


def _refused(part: str) -> InputError:
    return InputError(f"where: {part[:80]!r} is not understood; allowed are {ALLOWED}")


def _holds(term: Term, label: Label, relevant: bool) -> bool:
    match term.name:
        case "relevant":
            return relevant
        case "human":
            return label.human
        case "missing":
            return label.grade is None and term.value in ("", label.missing_reason)
        case "grade":
            measured: float | None = label.grade
        case "p_relevant":
            measured = label.p_relevant
        case _:
            measured = label.entropy
    return measured is not None and _COMPARE[term.operator](measured, float(term.value))

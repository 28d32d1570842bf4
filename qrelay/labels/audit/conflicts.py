"""Conflicts: the same text for the same query with grades that contradict each other.

Texts are the same when they have the same words, and so are queries: two query_ids with one text are one query. Two
labels contradict each other when they are on one scale with different grades, or on different scales with one
relevant and the other not. Memory: the labels of queries whose text comes more than once, about 300 bytes each;
finding these takes about 70 bytes a query.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qrelay.labels.audit.judges import Judges
from qrelay.labels.audit.texts import text_key
from qrelay.labels.examples import Example
from qrelay.labels.ledger.reader import Snapshot
from qrelay.labels.ledger.states import query_pages

_EXAMPLES: Final = 20
_PAGE: Final = 1000


@dataclass(frozen=True, slots=True)
class _Grade:
    """A graded label of some text. `counts`: exports take it."""

    query_id: str
    passage_id: str
    judge_no: int
    scale: str
    grade: int
    relevant: bool
    counts: bool


def repeated_queries(snapshot: Snapshot, collection: str) -> set[int]:
    """The keys of query texts that several query_ids have."""
    pages = query_pages(snapshot.connection, collection, _PAGE)
    return repeated(text_key(row.text) for page in pages for row in page)


def repeated(keys: Iterable[int]) -> set[int]:
    """Those that come more than once; 0, the key of a text without words, is none of them."""
    seen: set[int] = set()
    twice: set[int] = set()
    for key in keys:
        (twice if key in seen else seen).add(key)
    return twice - {0}


class Conflicts:
    """The check. `repeats`: see `repeated_queries`."""

    def __init__(self, judges: Judges, repeats: Iterable[int] = ()) -> None:
        self._judges = judges
        self._repeats = frozenset(repeats)
        self._waiting: dict[tuple[int, int], list[_Grade]] = {}
        self._counts: Counter[str] = Counter()
        self._examples: list[dict[str, Any]] = []

    def add(self, record: Example) -> None:
        """One query's labels."""
        key = text_key(record.query.text)
        by_text: dict[int, list[_Grade]] = {}
        for text, grade in self._grades(record):
            by_text.setdefault(text, []).append(grade)
        for text, grades in by_text.items():
            if key in self._repeats:
                self._waiting.setdefault((key, text), []).extend(grades)
            else:
                self._look(grades)

    def _grades(self, record: Example) -> Iterator[tuple[int, _Grade]]:
        texts = {each: text_key(candidate.passage.text) for each, candidate in record.candidates.items()}
        counting = {id(label) for label in record.labels.values()}
        for label in record.query.labels:
            text = texts.get(label.passage_id, 0)
            if text and label.grade is not None and not label.human:
                scale = self._judges.every[label.judge_no].identity.scale
                yield (
                    text,
                    _Grade(
                        record.query.query_id,
                        label.passage_id,
                        label.judge_no,
                        scale,
                        label.grade,
                        self._judges.relevant(label),
                        id(label) in counting,
                    ),
                )

    def _look(self, grades: Sequence[_Grade]) -> None:
        self._counts["texts"] += 1
        self._counts["texts_with_several_labels"] += len(grades) > 1
        if not _contradict(grades):
            return
        self._counts["conflicts"] += 1
        self._counts["exported"] += _contradict([each for each in grades if each.counts])
        pairs = {(each.query_id, each.passage_id) for each in grades}
        of_pairs = ([each for each in grades if (each.query_id, each.passage_id) == pair] for pair in pairs)
        self._counts["between_judges"] += any(map(_contradict, of_pairs))
        self._counts["relevance"] += len({each.relevant for each in grades}) > 1
        if len(self._examples) < _EXAMPLES:
            self._examples.append({"labels": [self._described(each) for each in grades]})

    def _described(self, each: _Grade) -> dict[str, Any]:
        return {
            "query_id": each.query_id,
            "passage_id": each.passage_id,
            "judge": self._judges.every[each.judge_no].judge_hash[:12],
            "scale": each.scale,
            "grade": each.grade,
            "exported": each.counts,
        }

    def result(self) -> dict[str, Any]:
        """texts: (query, text) with a grade; of these texts_with_several_labels, conflicts, and of these exported,
        between_judges, relevance: counts, which overlap; examples."""
        for _, grades in sorted(self._waiting.items(), key=lambda item: item[1][0].query_id):
            self._look(grades)
        self._waiting.clear()
        names = ("texts", "texts_with_several_labels", "conflicts", "exported", "between_judges", "relevance")
        return {**{name: self._counts[name] for name in names}, "examples": self._examples}


def _contradict(grades: Sequence[_Grade]) -> bool:
    by_scale: dict[str, set[int]] = {}
    for each in grades:
        by_scale.setdefault(each.scale, set()).add(each.grade)
    of_one_scale = any(len(found) > 1 for found in by_scale.values())
    return of_one_scale or len({each.relevant for each in grades}) > 1

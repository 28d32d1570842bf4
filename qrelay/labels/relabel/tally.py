"""What was counted while a set was judged: shares with intervals, by source; what is missing; examples to read."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final, NamedTuple

from qrelay.formats.training.example import TrainingExample
from qrelay.identity import digest
from qrelay.labels.exports.spill import Spill
from qrelay.labels.relabel.rules import Rules
from qrelay.stats.shares import GroupedShare
from qrelay.types import Graded, Judgment, Missing, Passage

FALSE_NEGATIVES: Final = "false_negatives"
WRONG_POSITIVES: Final = "wrong_positives"
ALL: Final = ""
"""The source that stands for all of them."""
_CHARACTERS: Final = 600
"""Of a passage's text in an example."""


class Seen(NamedTuple):
    """A passage of an example with its judgment. negative: its role in the set."""

    passage: Passage
    judgment: Judgment
    score: float | None
    negative: bool


@dataclass
class _Side:
    """One role of one source: the share that is wrong, and what could not be judged."""

    wrong: GroupedShare = field(default_factory=GroupedShare)
    missing: Counter[str] = field(default_factory=Counter)

    def as_json(self) -> dict[str, Any]:
        """Counts; the share and its 95% interval are null where nothing was judged, never 0."""
        found = self.wrong.interval()
        numbers = (found.estimate, found.low, found.high)
        share, low, high = (None if each != each else round(each, 6) for each in numbers)
        return {
            "judged": self.wrong.units,
            "wrong": self.wrong.hits,
            "share": share,
            "low": low,
            "high": high,
            "missing": sum(self.missing.values()),
            "missing_by_reason": dict(sorted(self.missing.items())),
        }


class Tally:
    """Pairs are counted once, however many rows repeat them. Rows of one query that follow each other are a group."""

    def __init__(self, rules: Rules, examples: int = 10) -> None:
        """examples: how many of either kind are kept to be read, the surest ones."""
        self._rules, self._examples = rules, examples
        self._sides: dict[tuple[str, str], _Side] = {}
        self._pairs = Spill()
        self._query = ""
        self._open: dict[tuple[str, str], list[int]] = {}
        self._worst: dict[str, list[tuple[float, int, dict[str, Any]]]] = {FALSE_NEGATIVES: [], WRONG_POSITIVES: []}
        self._order = count()
        self.rows = 0
        self.calibrations: set[str] = set()

    def add(self, example: TrainingExample, seen: list[Seen], source: str) -> None:
        """A row's passages. source: where it is from, for the shares by source."""
        if example.query != self._query:
            self._close_group()
            self._query = example.query
        self.rows += 1
        for each in seen:
            kind = FALSE_NEGATIVES if each.negative else WRONG_POSITIVES
            key = digest(example.query, each.passage.title, each.passage.text, kind)
            if self._pairs.put(bytes.fromhex(key)[:16], 1) is None:
                self._count(example, each, kind, source)

    def _count(self, example: TrainingExample, seen: Seen, kind: str, source: str) -> None:
        rules, outcome = self._rules, seen.judgment.outcome
        wrong = rules.false_negative(seen.score) if seen.negative else rules.wrong_positive(seen.score)
        for name in {ALL, source}:
            if isinstance(outcome, Missing):
                self._side(kind, name).missing[outcome.reason] += 1
                continue
            hits = self._open.setdefault((kind, name), [0, 0])
            hits[0] += wrong
            hits[1] += 1
        if isinstance(outcome, Graded):
            self.calibrations.add(outcome.calibration)
        if wrong and seen.score is not None:
            surest = seen.score if seen.negative else -seen.score
            self._keep(kind, surest, _told(example, seen, source))

    def _keep(self, kind: str, surest: float, told: dict[str, Any]) -> None:
        heap, entry = self._worst[kind], (surest, -next(self._order), told)
        (heapq.heappush if len(heap) < self._examples else heapq.heappushpop)(heap, entry)

    def _side(self, kind: str, source: str) -> _Side:
        return self._sides.setdefault((kind, source), _Side())

    def _close_group(self) -> None:
        for (kind, source), (hits, units) in self._open.items():
            self._side(kind, source).wrong.add(hits, units)
        self._open.clear()

    def missing(self) -> int:
        """Pairs that could not be judged."""
        return sum(sum(side.missing.values()) for (_, source), side in self._sides.items() if source == ALL)

    def as_json(self) -> dict[str, Any]:
        """Both kinds, in all and by source; and examples, the surest first."""
        self._close_group()
        found: dict[str, Any] = {kind: self._side(kind, ALL).as_json() for kind in (FALSE_NEGATIVES, WRONG_POSITIVES)}
        sources = sorted({source for _, source in self._sides} - {ALL})
        found["by_source"] = {name: dict(self._of(name)) for name in sources}
        found["examples"] = {
            kind: [told for _, _, told in sorted(heap, key=lambda each: each[:2], reverse=True)]
            for kind, heap in self._worst.items()
        }
        return found

    def _of(self, source: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for kind in (FALSE_NEGATIVES, WRONG_POSITIVES):
            yield kind, self._side(kind, source).as_json()

    def close(self) -> None:
        """Frees what was kept. Safe to call twice."""
        self._pairs.close()


def _told(example: TrainingExample, seen: Seen, source: str) -> dict[str, Any]:
    return {
        "query_id": example.query_id,
        "query": example.query,
        "docid": seen.passage.doc_id,
        "title": seen.passage.title,
        "text": seen.passage.text[:_CHARACTERS],
        "p_relevant": seen.score,
        "source": source,
    }

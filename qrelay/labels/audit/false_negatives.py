"""The false-negative rate: sampled negatives that a second, stronger label calls relevant.

The sample is drawn by hash: of all negatives that mining would export, those with the `size` least values of
sha256(seed, query_id, passage_id). That is a simple random sample, the same whatever the order of reading, and a
larger size only adds to it. A sampled pair whose second label is absent or missing is counted as unmeasured, never as
a true negative; where many are, the rate is of those that could be measured.

The negatives are mined without the second labels. With them, a pair that the auditor calls relevant would stop
being a negative and leave the sample, and every audit would find a rate of 0.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qrelay.identity import digest
from qrelay.labels.audit.figures import Figure, estimate, not_measured
from qrelay.labels.audit.judges import Judges
from qrelay.labels.choice import one_a_pair
from qrelay.labels.examples import Example
from qrelay.labels.ledger.reader import JudgeRow
from qrelay.labels.mining.rules import Verdict

SIZE: Final = 100
_EXAMPLES: Final = 20
AUDITOR: Final = "auditor"
HUMAN: Final = "human"


@dataclass(frozen=True, slots=True)
class SampledNegative:
    """A negative of the sample. `relevant`: what the second label says, None where there is none; `grade`: its grade;
    `by`: AUDITOR or HUMAN, or empty."""

    query_id: str
    query: str
    verdict: Verdict
    grade: int | None = None
    relevant: bool | None = None
    by: str = ""

    @property
    def passage_id(self) -> str:
        """Of the negative."""
        return self.verdict.passage_id


class Sample:
    """The `size` negatives with the least hashes; holds no more than these."""

    def __init__(self, size: int = SIZE, seed: int = 0) -> None:
        self._size, self._seed = size, seed
        self._heap: list[tuple[int, SampledNegative]] = []
        self.population = 0
        """Negatives seen."""

    def add(self, negative: SampledNegative) -> None:
        """Takes the negative in if its hash is among the least so far."""
        self.population += 1
        order = int(digest(str(self._seed), negative.query_id, negative.passage_id), 16)
        item = (-order, negative)
        if len(self._heap) < self._size:
            heapq.heappush(self._heap, item)
        elif item[0] > self._heap[0][0]:
            heapq.heapreplace(self._heap, item)

    def drawn(self) -> list[SampledNegative]:
        """By query_id and passage_id."""
        return sorted((each for _, each in self._heap), key=lambda each: (each.query_id, each.passage_id))


class FalseNegatives:
    """The check. `auditor`: the judge of the second labels; `overrides`: people's decisions are second labels, before
    the auditor's; `pairs`: the (query_id, passage_id) of a sample drawn before, instead of drawing one."""

    def __init__(
        self,
        judges: Judges,
        *,
        auditor: JudgeRow | None = None,
        overrides: bool = False,
        size: int = SIZE,
        seed: int = 0,
        pairs: Iterable[tuple[str, str]] | None = None,
    ) -> None:
        self._judges, self._auditor, self._overrides, self._seed = judges, auditor, overrides, seed
        self._pairs = None if pairs is None else frozenset(pairs)
        self.sample = Sample(size if self._pairs is None else len(self._pairs), seed)
        self._negatives = 0

    def add(self, record: Example) -> None:
        """One query's negatives."""
        second: dict[str, tuple[int, bool, str]] | None = None
        for verdict in record.negatives:
            self._negatives += 1
            negative = SampledNegative(record.query.query_id, record.query.text, verdict)
            if self._pairs is None or (negative.query_id, negative.passage_id) in self._pairs:
                second = self._second_labels(record) if second is None else second
                found = second.get(negative.passage_id, (None, None, ""))
                self.sample.add(SampledNegative(negative.query_id, negative.query, verdict, *found))

    def _second_labels(self, record: Example) -> dict[str, tuple[int, bool, str]]:
        """passage_id -> (grade, whether it means relevant, whose it is)."""
        found: dict[str, tuple[int, bool, str]] = {}
        if self._auditor is not None:
            labels = one_a_pair(record.query, {self._auditor.judge_no: self._auditor})
            for passage_id, label in labels.items():
                if label.grade is not None:
                    found[passage_id] = label.grade, self._judges.relevant(label), AUDITOR
        if self._overrides:
            for label in record.query.labels:
                if label.human and label.grade is not None:
                    found[label.passage_id] = label.grade, self._judges.relevant(label), HUMAN
        return found

    def result(self) -> dict[str, Any]:
        """rate, by_reason: figures; population, sampled, measured, unmeasured, false, gone, by: counts; examples."""
        drawn = self.sample.drawn()
        measured = [each for each in drawn if each.relevant is not None]
        false = [each for each in measured if each.relevant]
        reasons = sorted({each.verdict.reason for each in drawn})
        return {
            "rate": self.rate().as_json(),
            "population": self._negatives,
            "sampled": len(drawn),
            "measured": len(measured),
            "unmeasured": len(drawn) - len(measured),
            "false": len(false),
            "gone": 0 if self._pairs is None else len(self._pairs) - len(drawn),
            "seed": self._seed if self._pairs is None else None,
            "by": dict(sorted(Counter(each.by for each in measured).items())),
            "by_reason": {reason: self._rate_of(reason, measured).as_json() for reason in reasons},
            "examples": [_example(each) for each in false[:_EXAMPLES]],
        }

    def rate(self) -> Figure:
        """The rate over the whole sample."""
        return self._rate([each for each in self.sample.drawn() if each.relevant is not None])

    def _rate_of(self, reason: str, measured: Sequence[SampledNegative]) -> Figure:
        return self._rate([each for each in measured if each.verdict.reason == reason])

    def _rate(self, measured: Sequence[SampledNegative]) -> Figure:
        if measured:
            return estimate(sum(bool(each.relevant) for each in measured), len(measured))
        if not self._negatives:
            return not_measured("there are no negatives")
        if self._auditor is None and not self._overrides:
            return not_measured("no second labels were asked for: use --auditor, or --overrides for people's")
        return not_measured(
            "no sampled negative has a second label: draw the sample with `qrelay audit sample`, have it judged again"
        )


def _example(each: SampledNegative) -> dict[str, Any]:
    return {
        "query_id": each.query_id,
        "passage_id": each.passage_id,
        "reason": each.verdict.reason,
        "grade": each.verdict.judged.grade,
        "second_grade": each.grade,
        "by": each.by,
        "query": each.query,
        "text": each.verdict.judged.candidate.passage.text[:300],
    }

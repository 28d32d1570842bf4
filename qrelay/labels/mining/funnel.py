"""How many passages of a collection each step of mining leaves: candidates, judged, past filters, hard, chosen."""

from __future__ import annotations

from collections import Counter
from typing import Any, Final

from qrelay.labels.examples import Example
from qrelay.labels.mining.rounds import ExampleSize, RoundLimits, choose, size_of
from qrelay.labels.mining.rules import EASY, FILTER_REASONS, HARD_REASONS, NEGATIVE, POSITIVE, REASONS, UNJUDGED

_LEFT_OUT_HARD: Final = ("duplicate_of_negative", "near_duplicate_of_negative", "over_limit")


class Funnel:
    """Counts over queries, in any order; holds one short record an example."""

    def __init__(self) -> None:
        self.queries = 0
        self.counts: Counter[tuple[str, str]] = Counter()
        """(role, reason) -> passages."""
        self._sizes: list[ExampleSize] = []

    def add(self, mined: Example) -> None:
        """One query's candidates."""
        self.queries += 1
        self.counts.update((verdict.role, verdict.reason) for verdict in mined.verdicts)
        self.counts.update((UNJUDGED, reason) for _, reason in mined.others)
        if mined.positives:
            self._sizes.append(size_of(mined))

    @property
    def examples(self) -> int:
        """Queries that give an example."""
        return len(self._sizes)

    def steps(self) -> dict[str, int]:
        """Passages left after each step, the first step first.

        candidates; judged: with a label and a text, missing ones included; graded; not_relevant; past_guards: may be
        negatives; hard: of these; chosen: hard ones that are negatives. easy is beside them, of those not hard.
        """
        counted = self.counts
        judged = sum(count for (role, _), count in counted.items() if role != UNJUDGED)
        graded = judged - self._of("missing")
        not_relevant = graded - sum(count for (role, _), count in counted.items() if role == POSITIVE)
        chosen = self._of(*HARD_REASONS)
        return {
            "candidates": counted.total(),
            "judged": judged,
            "graded": graded,
            "not_relevant": not_relevant,
            "past_guards": not_relevant - self._of(*(each for each in FILTER_REASONS if each != "missing")),
            "hard": chosen + self._of(*_LEFT_OUT_HARD),
            "chosen": chosen,
            "easy": counted[NEGATIVE, EASY],
        }

    def by_role(self) -> dict[str, dict[str, int]]:
        """role -> reason -> passages, in the order of the rules' table, zeros included."""
        return {role: {each: self.counts[role, each] for each in reasons} for role, reasons in REASONS.items()}

    def round(self, limits: RoundLimits) -> dict[str, int]:
        """examples and negatives that one round takes of all of them."""
        chosen = choose(self._sizes, limits)
        return {"examples": len(chosen), "negatives": sum(chosen.values())}

    def as_json(self, limits: RoundLimits) -> dict[str, Any]:
        """queries, examples, steps, reasons, round: counts."""
        return {
            "queries": self.queries,
            "examples": self.examples,
            "steps": self.steps(),
            "reasons": self.by_role(),
            "round": self.round(limits),
        }

    def _of(self, *reasons: str) -> int:
        return sum(count for (_, reason), count in self.counts.items() if reason in reasons)

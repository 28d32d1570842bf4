"""The pre-filter: passages that are not worth a model's time, recorded as missing("filtered").

Missing is not grade 0: a passage that was filtered is never exported as judged and never a negative.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from qrelay.judging.strategies.base import lacking
from qrelay.nearest import listed
from qrelay.types import Missing, Passage


@dataclass(frozen=True, slots=True)
class Prefilter:
    """Limits on a passage's text, in characters after stripping; max_chars 0 sets none. metadata: what the judge
    reads of it, as `StrategySpec.metadata`."""

    min_chars: int = 3
    max_chars: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)

    def check(self, passage: Passage) -> Missing | None:
        """Why the passage is not judged; None where it is."""
        chars = len(passage.text.strip())
        if chars == 0:
            return Missing("filtered", "the passage has no text")
        if chars < self.min_chars:
            return Missing("filtered", f"{chars} characters, judge.prefilter.min_chars is {self.min_chars}")
        if self.max_chars and chars > self.max_chars:
            return Missing("filtered", f"{chars} characters, judge.prefilter.max_chars is {self.max_chars}")
        if absent := lacking(self.metadata, passage.metadata):
            there = listed(passage.metadata, "none")
            return Missing("filtered", f"no metadata {absent[0]}, which the rubric shows; the passage has {there}")
        return None

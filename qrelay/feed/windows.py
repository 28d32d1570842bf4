"""Long documents as passages: overlapping windows of words, at most so many a document."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import Final

from qrelay.words import pieces

WORDS: Final = 200
"""As many as most judges read of a passage, and about what an index's windows of 160 tokens hold with their title."""
MOST: Final = 8


@dataclass(frozen=True, slots=True)
class Windows:
    """words: of one window, each character of a script without blanks being one; a window shares a quarter with the
    next. most: windows of one document, the first ones."""

    words: int = WORDS
    most: int = MOST

    def of(self, text: str) -> tuple[list[str], bool]:
        """(windows, whether they hold the whole text); none of a text without a word."""
        step = max(1, self.words * 3 // 4)
        last = step * (self.most - 1) + self.words
        spans = list(islice(pieces(text), last + 1))
        starts = range(0, max(len(spans[:last]) - self.words, 0) + step, step) if spans else range(0)
        found = [text[spans[start][0] : spans[: start + self.words][-1][1]] for start in starts]
        return found[: self.most], len(spans) <= last

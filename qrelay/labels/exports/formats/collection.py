"""What folders with a corpus share: each judged passage once, at its first query, however many queries have it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from qrelay.identity import digest
from qrelay.labels.examples import Example
from qrelay.labels.exports.spill import Spill
from qrelay.types import Passage


class Corpus:
    """The graded passages of an export; by document those that decide, so that a document is there with the passage
    that decided at its first query. Where an id has several texts (by passage: the index changed), the first stands,
    and `notes` counts the others. Memory: see `spill.py`."""

    def __init__(self, notes: Counter[str]) -> None:
        self._notes = notes
        self._texts = Spill()

    def new(self, item: Example) -> Iterator[Passage]:
        """The query's graded passages that no earlier query had."""
        for candidate, _ in item.graded_passages():
            passage = candidate.passage
            text = int(digest(passage.title, passage.text)[:15], 16)
            what = "documents" if item.documents else "passages"
            before = self._texts.put(item.name_of(passage.passage_id).encode(), text)
            if before is None:
                self._notes[what] += 1
                yield passage
            elif before != text:
                self._notes[f"{what}_with_another_text"] += 1

    def close(self) -> None:
        """Frees what was kept."""
        self._texts.close()


def one_line(text: str) -> str:
    """A text for a TSV: every run of white space (tabs and line ends among it) is one blank."""
    return " ".join(text.split())

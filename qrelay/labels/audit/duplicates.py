"""Near-duplicates: within a query's labels, and among all passages that a training example would hold.

Within a query, all pairs of labelled texts are compared, exactly: a negative that is nearly the text of a positive is
likely relevant itself, and two near-duplicates of which one is relevant and one is not cannot both be right.

Among training passages each distinct text (same words: one text) is looked up among those before it by MinHash, which
is an estimate and finds most (`texts.py`), up to `limit` texts of about 4 KB each; where there are more, `complete`
is false and the share is of the first `limit`.
"""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from typing import Any, Final

from qrelay.labels.audit.figures import Figure, share
from qrelay.labels.audit.judges import Judges
from qrelay.labels.audit.texts import NEAR, NearTexts, text_key
from qrelay.labels.examples import Example
from qrelay.labels.ledger.reader import Label
from qrelay.labels.mining.rules import Verdict
from qrelay.labels.mining.texts import Texts

LIMIT: Final = 50_000
_EXAMPLES: Final = 20


class Duplicates:
    """The check."""

    def __init__(self, judges: Judges, *, limit: int = LIMIT) -> None:
        self._judges, self._limit = judges, limit
        self._training = NearTexts()
        self._seen: set[int] = set()
        self._complete = True
        self._counts: Counter[str] = Counter()
        self._examples: list[dict[str, Any]] = []

    def add(self, record: Example) -> None:
        """One query's labels, positives and negatives."""
        self._within(record)
        for verdict in (*record.positives, *record.negatives):
            self._among_training(verdict)

    def _among_training(self, verdict: Verdict) -> None:
        passage = verdict.judged.candidate.passage
        key = text_key(passage.text)
        if not key or key in self._seen:
            return
        if len(self._training) >= self._limit:
            self._complete = False
            return
        self._seen.add(key)
        self._counts["near"] += self._training.meet(passage.passage_id, passage.text, remember=True) is not None

    def _within(self, record: Example) -> None:
        texts, candidates = Texts(), record.candidates
        graded = [(label, candidates[label.passage_id].passage.text) for label in record.labels.values()
                  if label.grade is not None]  # fmt: skip
        roles = {each.passage_id: each.role for each in (*record.positives, *record.negatives)}
        touched: set[str] = set()
        for (one, text), (other, near) in combinations(graded, 2):
            alike = texts.similarity(text, near)
            if alike >= NEAR:
                self._pair(record, (one, other), alike, roles, touched)
        self._counts["negatives"] += len(touched)

    def _pair(
        self,
        record: Example,
        pair: tuple[Label, Label],
        alike: float,
        roles: dict[str, str],
        touched: set[str],
    ) -> None:
        one, other = pair
        here = [roles.get(label.passage_id, "") for label in pair]
        self._counts["pairs"] += 1
        self._counts["positive_pairs"] += here == ["positive", "positive"]
        self._counts["negative_pairs"] += here == ["negative", "negative"]
        conflict = self._judges.relevant(one) != self._judges.relevant(other)
        self._counts["conflicts"] += conflict
        if sorted(here) == ["negative", "positive"]:
            touched.add(pair[here.index("negative")].passage_id)
        if conflict and len(self._examples) < _EXAMPLES:
            self._examples.append(_example(record.query.query_id, pair, alike))

    def near_share(self) -> Figure:
        """Of the distinct training passages."""
        return share(self._counts["near"], len(self._training), "no query has a training example")

    def result(self) -> dict[str, Any]:
        """pairs: near-duplicates within a query; of these positive_pairs, negative_pairs, conflicts; negatives: those
        near a positive; training: passages, near_duplicates, complete; threshold; examples of conflicts."""
        names = ("pairs", "positive_pairs", "negative_pairs", "conflicts", "negatives")
        training = {
            "passages": len(self._training),
            "near_duplicates": self._counts["near"],
            "complete": self._complete,
        }
        counts = {name: self._counts[name] for name in names}
        return {**counts, "training": training, "threshold": NEAR, "examples": self._examples}


def _example(query_id: str, pair: tuple[Label, Label], alike: float) -> dict[str, Any]:
    return {
        "query_id": query_id,
        "passages": [label.passage_id for label in pair],
        "grades": [label.grade for label in pair],
        "similarity": round(alike, 3),
    }

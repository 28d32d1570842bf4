"""Leakage: evaluation queries and passages that are in the training data, by their words or nearly.

Queries are looked for among all queries of the collection, passages among positives and negatives. What is held
is the evaluation set: about 4 KB a text. An evaluation passage that was cut into smaller ones in training is not
found by likeness: give the evaluation's corpus as passages.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from qrelay.labels.audit.evaluation import EvaluationSet
from qrelay.labels.audit.figures import Figure, not_measured
from qrelay.labels.audit.texts import NearTexts, letter_shingles, text_key, word_shingles
from qrelay.labels.examples import Example

_EXAMPLES: Final = 20


class _Known:
    """Evaluation texts of one kind, and those that were met: evaluation id -> how, "same" or "near"."""

    def __init__(self, texts: Iterable[tuple[str, str]], *, of_queries: bool) -> None:
        self._near = NearTexts(letter_shingles if of_queries else word_shingles)
        self._same: dict[int, list[str]] = {}
        self.count = 0
        for identifier, text in texts:
            self.count += 1
            if key := text_key(text):
                self._same.setdefault(key, []).append(identifier)
                self._near.put(identifier, text)
        self.met: dict[str, str] = {}

    def meet(self, text: str) -> list[str]:
        """Marks the evaluation texts that this text is, or is near to; answers those marked for the first time."""
        key = text_key(text)
        if key in self._same:
            found, how = self._same[key], "same"
        else:
            near = self._near.meet("", text, remember=False)
            found, how = ([near[0]] if near else []), "near"
        new = [each for each in found if each not in self.met]
        for each in found:
            self.met[each] = min(self.met.get(each, how), how, key=["same", "near"].index)
        return new


class Leakage:
    """The check on an evaluation set. Raises what `EvaluationSet.read_queries` does."""

    def __init__(self, evaluation: EvaluationSet) -> None:
        self._evaluation = evaluation
        self._queries = _Known(evaluation.read_queries(), of_queries=True)
        self._passages = _Known(evaluation.read_passages(), of_queries=False)
        self._examples: list[dict[str, str]] = []

    def add(self, record: Example) -> None:
        """One query of the collection."""
        query = record.query
        if self._queries.count:
            self._note("query", self._queries.meet(query.text), query.query_id, query.text)
        if self._passages.count:
            for verdict in (*record.positives, *record.negatives):
                passage = verdict.judged.candidate.passage
                self._note("passage", self._passages.meet(passage.text), passage.passage_id, passage.text)

    def _note(self, kind: str, found: Iterable[str], identifier: str, text: str) -> None:
        for each in found:
            if len(self._examples) < _EXAMPLES:
                self._examples.append({"kind": kind, "evaluation_id": each, "id": identifier, "text": text[:300]})

    def figures(self) -> dict[str, Figure]:
        """leakage, leaked_queries, leaked_passages: of what was given; without an interval, for all was looked at."""
        queries = self._figure(self._queries, self._evaluation.queries is not None, "--eval-queries")
        passages = self._figure(self._passages, self._evaluation.corpus is not None, "--eval-corpus")
        known = [each for each in (queries, passages) if each.value is not None]
        together = (
            Figure(sum(each.value or 0 for each in known), sum(each.n or 0 for each in known))
            if known
            else not_measured("no evaluation set was given: use --eval-queries or --eval-corpus")
        )
        return {"leakage": together, "leaked_queries": queries, "leaked_passages": passages}

    @staticmethod
    def _figure(known: _Known, given: bool, option: str) -> Figure:
        return Figure(len(known.met), known.count) if given else not_measured(f"not given: use {option}")

    def result(self) -> dict[str, Any]:
        """queries, passages: count of the evaluation's, leaked, same, near; examples."""
        return {"queries": _counts(self._queries), "passages": _counts(self._passages), "examples": self._examples}


def _counts(known: _Known) -> dict[str, int]:
    how = list(known.met.values())
    return {"count": known.count, "leaked": len(how), "same": how.count("same"), "near": how.count("near")}

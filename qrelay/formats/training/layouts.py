"""Where the rows of each format have their query, positives and negatives, and how they are written back.

| layout | formats | a row |
|---|---|---|
| Listed | FlagEmbedding, Tevatron v1 and v2, BEIR | a list of positives and one of negatives |
| Tuples | n-tuples, triplets and pairs of sentence-transformers; MS MARCO | a column a passage |
| LabelledPairs | scored pairs of sentence-transformers | two texts and a label |
| LabelledLists | labeled lists of sentence-transformers | a query, passages, a label each |

Teacher scores stand where the library reads them: FlagEmbedding in `pos_scores` and `neg_scores` (AbsDataset.py, with
`knowledge_distillation`), Tevatron in each passage's `score` (DistilTrainDataset), sentence-transformers in a label
column: `scores` of an n-tuple, the positive's first (MarginMSELoss, DistillKLDivLoss), `score` of a pair. A set that
has labels of its own has no second place for scores: they replace the labels, where that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qrelay.formats.lines import BadRecord
from qrelay.formats.training.example import (
    Decided,
    Look,
    Row,
    Scores,
    TrainingExample,
    id_of,
    list_of,
    of_text,
    plain,
    query_of,
    source_of,
    text_of,
)

RELEVANT_LABEL: Final = 0.5
"""The least label of a pair or a list that says relevant; labels are 0 and 1, or grades, or probabilities."""
Ask = Callable[[Row], str]
"""A row's query. Raises BadRecord."""


@dataclass(frozen=True)
class Listed:
    """positive, negative: the lists. parallel: how fields begin that run beside either list, a value a passage, and
    are cut and moved with it; empty: none do. inside: whether a passage is an object that has its score itself."""

    name: str
    query: Ask
    positive: str
    negative: str
    look: Look
    scores: Scores
    parallel: tuple[str, str] | None = None
    inside: bool = False

    def example(self, row: Row) -> TrainingExample:
        """Raises BadRecord."""
        positives = tuple(map(self.look, list_of(row, self.positive)))
        negatives = tuple(map(self.look, list_of(row, self.negative, optional=True)))
        query_id = id_of(row, "query_id", "qid", "id")
        return TrainingExample(query_id, self.query(row), positives, negatives, source_of(row))

    def cleaned(self, row: Row, decided: Decided) -> list[dict[str, Any]]:
        """The row with shorter lists; none without a positive, or without a negative where there were some."""
        said = {**row, **self._scored(row, decided)}
        kept, left, promoted = decided.kept_positives, decided.kept_negatives, decided.promoted
        if not (kept or promoted) or (decided.negatives and not left):
            return []
        for positive, negative in self._pairs(said, decided):
            yes, no = said.get(positive), said.get(negative)
            if isinstance(yes, list) and isinstance(no, list):
                said[positive] = [yes[place] for place in kept] + [no[place] for place in promoted]
            elif isinstance(yes, list):
                said[positive] = [yes[place] for place in kept] + [None] * len(promoted)
            if isinstance(no, list):
                said[negative] = [no[place] for place in left]
        return [said]

    def _pairs(self, row: Row, decided: Decided) -> list[tuple[str, str]]:
        """The lists and what runs beside them: (the positives', the negatives')."""
        found = [(self.positive, self.negative)]
        if self.parallel:
            yes, no = self.parallel
            ends = {name.removeprefix(yes) for name in row if name.startswith(yes)}
            ends |= {name.removeprefix(no) for name in row if name.startswith(no)}
            found += [(yes + end, no + end) for end in sorted(ends) if yes + end != self.positive]
        fits = {True: len(decided.positives), False: len(decided.negatives)}
        return [
            pair
            for pair in found
            if all(len(row[name]) == fits[name == pair[0]] for name in pair if isinstance(row.get(name), list))
        ]

    def _scored(self, row: Row, decided: Decided) -> dict[str, Any]:
        """The fields in which the scores stand, before anything is dropped."""
        lists = {self.positive: decided.positives, self.negative: decided.negatives}
        if self.scores == "none" or (not self.inside and not self.parallel):
            return {}
        if self.inside:
            return {
                name: [{**each, "score": said.score} for each, said in zip(row[name], decisions, strict=True)]
                for name, decisions in lists.items()
                if row.get(name)
            }
        names = (f"{each}scores" for each in self.parallel or ())
        return {
            name: [each.score for each in decisions] for name, decisions in zip(names, lists.values(), strict=True)
        }


@dataclass(frozen=True)
class Tuples:
    """A column a passage. lists: whether a cell can hold a list of scores."""

    name: str
    query: Ask
    positive: str
    negatives: Sequence[str]
    look: Look
    scores: Scores
    lists: bool = True

    def example(self, row: Row) -> TrainingExample:
        """Raises BadRecord."""
        negatives = tuple(self.look(_there(row, name)) for name in self.negatives)
        positives = (self.look(_there(row, self.positive)),)
        return TrainingExample(id_of(row, "query_id", "qid"), self.query(row), positives, negatives, source_of(row))

    def cleaned(self, row: Row, decided: Decided) -> list[dict[str, Any]]:
        """A row a positive that is left. No column may be empty, so a dropped negative's is filled with one of the
        row that is left, as FlagEmbedding's and Tevatron's readers fill a group that is too small."""
        kept = decided.kept_negatives
        if self.negatives and not kept:
            return []
        chosen = [kept[place % len(kept)] for place in range(len(self.negatives))]
        negatives = {name: row[self.negatives[place]] for name, place in zip(self.negatives, chosen, strict=True)}
        beside = [decided.negatives[place].score for place in chosen]
        found = [(row[self.positive], decided.positives[0].score)] if decided.kept_positives else []
        found += [(row[self.negatives[place]], decided.negatives[place].score) for place in decided.promoted]
        return [{**row, self.positive: text, **negatives, **self._scored(score, beside)} for text, score in found]

    def _scored(self, score: float | None, beside: list[float | None]) -> dict[str, Any]:
        if self.scores == "none" or not self.lists:
            return {}
        return {"scores": [score, *beside]} if self.negatives else {"score": score}


@dataclass(frozen=True)
class LabelledPairs:
    """A passage a row, with a label that says whether it is relevant."""

    name: str
    query: Ask
    passage: str
    label: str
    scores: Scores

    def example(self, row: Row) -> TrainingExample:
        """Raises BadRecord: also where the label is no number."""
        found = (of_text(_there(row, self.passage)),)
        relevant = _relevant(number(row.get(self.label), self.label))
        yes, no = (found, ()) if relevant else ((), found)
        return TrainingExample(id_of(row, "query_id", "qid"), self.query(row), yes, no, source_of(row))

    def cleaned(self, row: Row, decided: Decided) -> list[dict[str, Any]]:
        """The row, with the label 1 where it was promoted; none where its passage was dropped."""
        (said,) = decided.positives or decided.negatives
        if not said.keep:
            return []
        old = row[self.label]
        label = _as(old, 1) if decided.promoted else old
        if self.scores == "labels" and said.score is not None:
            label = str(said.score) if isinstance(old, str) else said.score
        return [{**row, self.label: label}]


@dataclass(frozen=True)
class LabelledLists:
    """A query, its passages, and a label a passage."""

    name: str
    query: Ask
    passages: str
    labels: str
    scores: Scores

    def example(self, row: Row) -> TrainingExample:
        """Raises BadRecord: also where there is not one label a passage."""
        yes, no = self._places(row)
        found = [of_text(each) for each in list_of(row, self.passages)]
        relevant, others = tuple(found[place] for place in yes), tuple(found[place] for place in no)
        return TrainingExample(id_of(row, "query_id", "qid"), self.query(row), relevant, others, source_of(row))

    def cleaned(self, row: Row, decided: Decided) -> list[dict[str, Any]]:
        """The row with the passages that are left, in its order; one that was promoted has the list's best label.
        None where no passage, or none of a better label than another, is left."""
        labels, (yes, no) = row[self.labels], self._places(row)
        said = dict(zip((*yes, *no), (*decided.positives, *decided.negatives), strict=True))
        best = max(map(float, labels)) if yes else 1.0
        promoted = {no[place] for place in decided.promoted}
        new = {place: _as(labels[place], best) if place in promoted else labels[place] for place in sorted(said)}
        if self.scores == "labels":
            new |= {place: each.score for place, each in said.items() if each.score is not None}
        kept = [place for place in new if said[place].keep]
        values = [new[place] for place in kept]
        if not kept or (len({*map(float, labels)}) > 1 and len({*map(float, values)}) == 1):
            return []
        return [{**row, self.passages: [row[self.passages][place] for place in kept], self.labels: values}]

    def _places(self, row: Row) -> tuple[list[int], list[int]]:
        """Places of passages whose label says relevant, and of the others."""
        passages, labels = list_of(row, self.passages), list_of(row, self.labels)
        if len(passages) != len(labels):
            raise BadRecord(f"{len(passages)} {self.passages}, {len(labels)} {self.labels}: give one label a passage")
        relevant = [_relevant(number(each, self.labels)) for each in labels]
        both: Mapping[bool, list[int]] = {
            side: [place for place, found in enumerate(relevant) if found is side] for side in (True, False)
        }
        return both[True], both[False]


def column_query(name: str) -> Ask:
    """The query that stands in a column."""
    return lambda row: query_of(row, name)


def of_object(value: Any) -> Any:
    """A passage of Tevatron's: an object with text, and where they are known docid and title. Raises BadRecord."""
    from qrelay.types import Passage

    if not isinstance(value, Mapping):
        raise BadRecord(f"a passage must be an object with text, not {type(value).__name__}")
    docid = id_of(value, "docid", "_id", "id")
    title = plain(value["title"], "title") if value.get("title") is not None else ""
    return Passage(docid, docid, title, text_of(value, "text"))


def number(value: object, what: str) -> float:
    """A label. Raises BadRecord: it is no finite number."""
    try:
        found = float(value) if isinstance(value, int | float | str) else float("nan")
    except (ValueError, OverflowError):
        found = float("nan")
    if found != found or abs(found) == float("inf"):
        raise BadRecord(f"{what} must be a finite number, not {str(value)[:40]!r}")
    return found


def _relevant(label: float) -> bool:
    return label >= RELEVANT_LABEL


def _as(old: object, new: float) -> Any:
    """A label of the kind that stands there."""
    return str(int(new)) if isinstance(old, str) else type(old)(new) if isinstance(old, int | float) else new


def _there(row: Row, name: str) -> Any:
    if row.get(name) is None:
        raise BadRecord(f"no {name}: every row of this set has one")
    return row[name]

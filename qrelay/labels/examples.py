"""What the ledger has to train on, a query at a time: the one way from its rows to an example, with every reason.

    ledger's rows ─► the label that counts (`choice.py`) ─► mining (`mining/`) ─► by document, if asked ─► `where`

    judges = counting_judges(snapshot, "docs", rules, None)
    for example in examples(snapshot, "docs", judges, rules):
        example.positives, example.negatives            # both empty where the query trains nothing
        example.verdicts                                # role and reason of every judged passage

Exports, the audit, lineage, `qrelay mine` and the training policy read these. Mining sees every label that counts, so
that a filter does not fall with a positive that `where` leaves out; the conditions then hold for what it chose.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from qrelay.labels.choice import one_a_pair
from qrelay.labels.documents import by_document, deciding, documents_of
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery, Snapshot
from qrelay.labels.mining.mine import mine
from qrelay.labels.mining.rules import NEGATIVE, POSITIVE, JudgedPassage, MiningRules, Verdict
from qrelay.labels.where import Where
from qrelay.types import Candidate

EVERY_LABEL: Final = Where()


@dataclass(frozen=True, slots=True)
class Example:
    """A query with the labels that count, by passage_id, and what mining made of them. By document, labels and
    verdicts are of each document's best passage."""

    query: LabelledQuery
    judges: Mapping[int, JudgeRow]
    labels: Mapping[str, Label]
    verdicts: Sequence[Verdict] = ()
    """Of every candidate with a label and a text, as `mine` orders them; none where mining was not asked for."""
    positives: Sequence[Verdict] = ()
    """The best label first; empty, as the negatives are, without a positive or without a hard negative."""
    negatives: Sequence[Verdict] = ()
    """Hard ones first, the hardest first, then easy ones."""
    documents: Mapping[str, str] = field(default_factory=dict)
    """By document: passage_id -> document."""
    split: str = ""

    @property
    def candidates(self) -> dict[str, Candidate]:
        """The query's candidates by passage_id."""
        return {each.passage.passage_id: each for each in self.query.candidates}

    @property
    def others(self) -> list[tuple[Candidate, str]]:
        """The candidates without a verdict and why, in words of `rules.UNJUDGED_REASONS`, in the ledger's order."""
        seen = {verdict.passage_id for verdict in self.verdicts}
        left = [each for each in self.query.candidates if each.passage.passage_id not in seen]
        return [(each, "no_text" if each.passage.passage_id in self.labels else "not_judged") for each in left]

    def name_of(self, passage_id: str) -> str:
        """The id under which the passage is written: its own, or by document the document's."""
        return self.documents.get(passage_id, passage_id)

    def graded(self) -> Iterator[Label]:
        """The labels that are a grade, by passage_id."""
        return (label for label in self.labels.values() if label.grade is not None)

    def graded_passages(self) -> Iterator[tuple[Candidate, Label]]:
        """The candidates with a grade and a text, by passage_id."""
        candidates = self.candidates
        for label in self.graded():
            found = candidates.get(label.passage_id)
            if found is not None and found.passage.text:
                yield found, label

    def pairs(self) -> Iterator[tuple[Verdict, Verdict]]:
        """Every (positive, negative), the best and the hardest first."""
        return ((positive, negative) for positive in self.positives for negative in self.negatives)


def examples(
    snapshot: Snapshot,
    collection: str,
    judges: Mapping[int, JudgeRow],
    rules: MiningRules,
    *,
    people: bool = False,
    where: Where = EVERY_LABEL,
    mined: bool = True,
    documents: bool = False,
    **read: Any,
) -> Iterator[Example]:
    """Every query of the collection by query_id, whatever is left of its labels. `judges`: those whose labels count
    (`choice.py`); people: overrides that stand are labels; read: what is read of which queries, see
    `Snapshot.labelled_queries`, where nothing is mined without candidates. The others: see `example_of`.

    Raises:
        InputError: a scale without a relevant grade.
    """
    for query in snapshot.labelled_queries(
        collection, overrides=people, relevant_grades=rules.relevant_grades, **read
    ):
        yield example_of(query, judges, rules, where=where, mined=mined, documents=documents)


def example_of(
    query: LabelledQuery,
    judges: Mapping[int, JudgeRow],
    rules: MiningRules,
    *,
    where: Where = EVERY_LABEL,
    mined: bool = True,
    documents: bool = False,
) -> Example:
    """One query's example. `where`: the labels that are meant; mined: whether mining is asked; documents: a row
    stands for a document (`documents.py`). Raises InputError: a scale without a relevant grade."""
    labels = one_a_pair(query, judges)
    passages = [
        JudgedPassage(each, label.grade, label.p_relevant, judges[label.judge_no].identity.scale)
        for each in query.candidates
        if each.passage.text and (label := labels.get(each.passage.passage_id))  # without a text it trains nothing
    ]
    verdicts = mine(passages, rules) if mined else []
    names = documents_of(query) if documents else {}
    if documents:
        labels = deciding(labels, names, judges, rules.relevant_grades)
        verdicts = by_document(verdicts, names, labels)
    if where.labels:
        labels = where.kept(labels, judges, rules.relevant_grades)
        verdicts = [verdict for verdict in verdicts if verdict.passage_id in labels]
    positives = [verdict for verdict in verdicts if verdict.role == POSITIVE]
    negatives = [verdict for verdict in verdicts if verdict.role == NEGATIVE]
    if not positives or not any(verdict.hard for verdict in negatives):
        positives = negatives = []
    return Example(query, judges, labels, verdicts, positives, negatives, names)

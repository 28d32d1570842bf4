"""One query's training example: its positives and its negatives, or None where there is nothing to learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from qrelay.errors import InputError
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery
from qrelay.labels.mining.mine import mine
from qrelay.labels.mining.rules import NEGATIVE, POSITIVE, JudgedPassage, MiningRules, Verdict


@dataclass(frozen=True, slots=True)
class Example:
    """A query with at least one positive and one hard negative, as every training format takes it."""

    query_id: str
    query: str
    positives: tuple[Verdict, ...]
    """The best label first."""
    negatives: tuple[Verdict, ...]
    """Hard ones first, the hardest first, then easy ones."""


def example_of(
    query: LabelledQuery, labels: Mapping[str, Label], judges: Mapping[int, JudgeRow], rules: MiningRules
) -> Example | None:
    """The query's example. `labels`: the label that counts of each passage (`labels.choice.one_a_pair`);
    `judges`: by number, at least those that the labels name.

    None where it has no positive, or no hard negative: an example of easy negatives alone is not one.

    Raises:
        InputError: a label's scale has no relevant grade.
    """
    return example_from(query, mine(judged_passages(query, labels, judges, rules), rules))


def example_from(query: LabelledQuery, verdicts: Sequence[Verdict]) -> Example | None:
    """The example made of a query's verdicts, as `mine` gives them; None as in `example_of`."""
    positives = tuple(verdict for verdict in verdicts if verdict.role == POSITIVE)
    negatives = tuple(verdict for verdict in verdicts if verdict.role == NEGATIVE)
    if not positives or not any(verdict.hard for verdict in negatives):
        return None
    return Example(query.query_id, query.text, positives, negatives)


def judged_passages(
    query: LabelledQuery, labels: Mapping[str, Label], judges: Mapping[int, JudgeRow], rules: MiningRules
) -> list[JudgedPassage]:
    """The candidates that have a label, missing ones included. One without a text teaches nothing.

    Raises:
        InputError: a scale without a relevant grade.
    """
    found = []
    for candidate in query.candidates:
        label = labels.get(candidate.passage.passage_id)
        if label is None or not candidate.passage.text:
            continue
        scale = judges[label.judge_no].identity.scale
        if scale not in rules.relevant_grades:
            raise InputError(
                f"scale {scale!r} of a judge has no relevant grade: set sink.relevant_grades, which knows"
                f" {', '.join(sorted(rules.relevant_grades))}"
            )
        found.append(JudgedPassage(candidate, label.grade, label.p_relevant, scale))
    return found

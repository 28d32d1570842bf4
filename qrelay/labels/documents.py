"""`--by document`: the best passage of a document decides, and one row stands for the document.

    best       relevant on its scale before not; then the higher grade, as a share of its scale; then the higher
               P(relevant); ties by passage_id. A grade, whatever it is, before a missing one: a document is missing
               where each label of its passages is.
    label      the best passage's label is the document's: the conditions of `where` are asked of it alone
    text       the best passage's: judges label passages, and no ledger holds documents
    role       positive where the best passage is. Negative where mining chose a passage of the document, and the best
               one may be a negative too: not relevant, past every filter, and no copy of another negative. A document
               has one role, and by document nothing is a negative that would not be one by passage.

Mining itself looks at passages, so that each filter sees all texts and labels. Which document a passage is of, its
candidate says; of a passage that no system found (people may grade it), its id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from qrelay.errors import InputError
from qrelay.labels.ledger.checks import unfit_for_trec
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery
from qrelay.labels.mining.rules import EASY, NEGATIVE, Verdict
from qrelay.naming import document_of
from qrelay.scales import Scale, bounds, known

_SPARE: Final = (EASY, "not_hard", "over_limit")
"""Reasons of passages that could be negatives as well as the one that mining took."""


def documents_of(query: LabelledQuery) -> dict[str, str]:
    """passage_id -> document, of everything that has a label or was retrieved.

    Raises:
        InputError: a document's id that TREC files cannot hold.
    """
    found = {label.passage_id: document_of(label.passage_id) for label in query.labels}
    for candidate in query.candidates:
        passage = candidate.passage
        found[passage.passage_id] = passage.doc_id or document_of(passage.passage_id)
    if bad := next((document for document in found.values() if unfit_for_trec(document)), None):
        raise InputError(f"the document {bad[:80]!r} has an id with white space, which no file of ids can hold")
    return found


def deciding(
    labels: Mapping[str, Label],
    documents: Mapping[str, str],
    judges: Mapping[int, JudgeRow],
    relevant_grades: Mapping[str, int],
) -> dict[str, Label]:
    """passage_id -> label of the best passage of each document, in the order of documents. `labels`: the one that
    counts of each passage; a scale that `relevant_grades` does not name has no relevant grade."""
    best: dict[str, tuple[tuple[bool, bool, float, float, str], Label]] = {}
    for passage_id, label in labels.items():
        place = _place(label, judges[label.judge_no].identity.scale, relevant_grades)
        held = best.get(documents[passage_id])
        if held is None or place < held[0]:
            best[documents[passage_id]] = place, label
    return {label.passage_id: label for _, (_, label) in sorted(best.items())}


def by_document(
    verdicts: Sequence[Verdict], documents: Mapping[str, str], best: Mapping[str, Label]
) -> list[Verdict]:
    """One verdict a document, about its best passage, in the order of `mine`. A document whose best passage has no
    verdict (no text) has none. `best`: see `deciding`."""
    own = {documents[each.passage_id]: each for each in verdicts if each.passage_id in best}
    first: dict[str, Verdict] = {}
    for verdict in verdicts:
        first.setdefault(documents[verdict.passage_id], verdict)
    return [_role(own[document], each) for document, each in first.items() if document in own]


def _role(best: Verdict, first: Verdict) -> Verdict:
    """`first`: of the document's passages the first in mining's order, which takes positives and hard negatives
    before the rest."""
    if first.hard and best.reason in _SPARE:
        return replace(best, role=NEGATIVE, reason=first.reason, because=first.because)
    return best


def _place(label: Label, scale: str, relevant_grades: Mapping[str, int]) -> tuple[bool, bool, float, float, str]:
    """Sorts the best first."""
    if label.grade is None:
        return True, True, 0.0, 0.0, label.passage_id
    relevant = known(scale, relevant_grades) and Scale.named(scale, relevant_grades).relevant(label.grade)
    share = (label.grade - (label.min_grade or 0)) / _steps(scale)
    return False, not relevant, -share, -(label.p_relevant or 0.0), label.passage_id


def _steps(scale: str) -> int:
    """From the lowest to the highest grade; 1 where the scale's name does not say it."""
    try:
        low, high = bounds(scale)
    except InputError:
        return 1
    return high - low

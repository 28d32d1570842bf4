"""What a judged set adds to the policy's counters: pure, before anything of it is read back from the ledger.

Only the set's own judgments count, by the label that counts among them (`labels/choice.py`): a human override, a
re-judgment or the label of another set comes later and is not counted. A later round is mined whole, as its cached
labels come with it, and counts the pairs that no round before had judged.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

from qrelay.errors import InputError
from qrelay.identity import judge_digest
from qrelay.labels.examples import example_of
from qrelay.labels.ledger.merge import Added
from qrelay.labels.ledger.outbox_rows import Counters
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery
from qrelay.labels.mining.rules import HARD_REASONS, POSITIVE, MiningRules
from qrelay.ranks import disagreed
from qrelay.types import Graded, JudgedSet, Judgment

log = logging.getLogger(__name__)

HARD: Final = frozenset({"hard_relevant", *HARD_REASONS})
"""The reasons of mining that make an example hard."""


def count_sets(sets: Iterable[Added], rules: MiningRules) -> Counters:
    """The sum over the sets. One that mining refuses (a scale without a relevant grade) counts nothing and is
    logged: its labels are committed all the same."""
    total = Counters()
    for added in sets:
        try:
            total += count_set(added.record(), rules, added.passage_ids)
        except InputError as error:
            query = added.record().candidate_set.query
            log.warning("a set is not counted for training", extra={"query_id": query.query_id, "error": str(error)})
    return total


def count_set(record: JudgedSet, rules: MiningRules, only: frozenset[str] | None = None) -> Counters:
    """One set's counters; `only`: of these passages.

    judged: pairs whose label is a grade. disagreements: those of them that exactly one of BM25 and dense has in its
    top `disagreement_rank`. hard_examples: hard positives and hard negatives, of a query that has a positive, for
    without one there is nothing to train on.

    Raises:
        InputError: a judge's scale has no relevant grade.
    """
    query, judges = _labelled(record, rules)
    # Easy negatives are not asked for: they change no hard one, and cost time while the collection is locked.
    verdicts = example_of(query, judges, replace(rules, easy_per_hard=0.0)).verdicts
    new = [verdict for verdict in verdicts if only is None or verdict.passage_id in only]
    judged = [verdict.judged for verdict in new if verdict.judged.grade is not None]
    trains = any(verdict.role == POSITIVE for verdict in verdicts)
    return Counters(
        hard_examples=sum(verdict.reason in HARD for verdict in new) if trains else 0,
        disagreements=sum(bool(disagreed(each.candidate, rules.disagreement_rank)) for each in judged),
        judged=len(judged),
    )


def without_judges(sets: Sequence[Added], hashes: Collection[str]) -> list[Added]:
    """The sets without the judgments of these judges, by hash (`identity.judge_digest`)."""
    if not hashes:
        return list(sets)
    return [added._replace(record=partial(_without, added.record(), hashes)) for added in sets]


def _without(record: JudgedSet, hashes: Collection[str]) -> JudgedSet:
    dropped = {judge for judge in {j.judge for j in record.judgments} if judge_digest(judge) in hashes}
    return JudgedSet(record.candidate_set, tuple(j for j in record.judgments if j.judge not in dropped))


def _labelled(record: JudgedSet, rules: MiningRules) -> tuple[LabelledQuery, dict[int, JudgeRow]]:
    """The set as the ledger reads it, and the judges whose labels count."""
    identities = list({id(j.judge): j.judge for j in record.judgments}.values())  # few, and slow to hash
    digests = {id(judge): judge_digest(judge) for judge in identities}
    numbers = {hashed: number for number, hashed in enumerate(sorted(set(digests.values())))}
    judges = {
        numbers[digests[id(judge)]]: JudgeRow(numbers[digests[id(judge)]], digests[id(judge)], judge)
        for judge in identities
        if not (rules.without_stage_scores and judge.uses_retrieval_scores)
    }
    labels = tuple(_label(judgment, numbers[digests[id(judgment.judge)]]) for judgment in record.judgments)
    query = record.candidate_set.query
    return LabelledQuery(query.query_id, query.text, labels, tuple(record.candidate_set.candidates)), judges


def _label(judgment: Judgment, judge_no: int) -> Label:
    found = judgment.outcome
    if isinstance(found, Graded):
        return Label(judgment.passage_id, judge_no, found.grade, found.min_grade, found.p_relevant, None,
                     found.entropy, found.calibration, 0)  # fmt: skip
    return Label(judgment.passage_id, judge_no, None, None, None, found.reason, None, None, 0)

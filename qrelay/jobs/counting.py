"""What a judged set adds to the policy's counters: pure, before anything of it is read back from the ledger.

Only the set's own judgments count, by the label that counts among them (`labels/choice.py`): a human override, a
re-judgment or the label of another set comes later and is not counted. A later round is mined whole, as its cached
labels come with it, and counts the pairs that no round before had judged.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from typing import Final

from qrelay.errors import InputError
from qrelay.identity import judge_digest
from qrelay.labels.choice import leans_on_stage_scores, one_a_pair
from qrelay.labels.ledger.merge import Added
from qrelay.labels.ledger.outbox_rows import Counters
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery
from qrelay.labels.mining.examples import judged_passages
from qrelay.labels.mining.mine import JudgedPassage, MiningRules, is_relevant, mine, rank_of
from qrelay.types import BM25, DENSE, Graded, JudgedSet, Judgment

log = logging.getLogger(__name__)

HARD: Final = frozenset({"hard_relevant", "top_rank", "bm25_only", "dense_only"})
"""The reasons of mining that make an example hard."""


def count_sets(sets: Iterable[Added], rules: MiningRules) -> Counters:
    """The sum over the sets. One that mining refuses (a scale without a relevant grade) counts nothing and is
    logged: its labels are committed all the same."""
    total = Counters()
    for added in sets:
        try:
            total += count_set(added.record, rules, added.passage_ids)
        except InputError as error:
            query = added.record.candidate_set.query
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
    passages = _labelled(record, rules)
    judged = [
        each for each in passages if each.grade is not None and _counts(each.candidate.passage.passage_id, only)
    ]
    return Counters(
        hard_examples=_hard_examples(passages, rules, only),
        disagreements=sum(_disagrees(each, rules) for each in judged),
        judged=len(judged),
    )


def _counts(passage_id: str, only: frozenset[str] | None) -> bool:
    return only is None or passage_id in only


def without_judges(sets: Sequence[Added], hashes: Collection[str]) -> list[Added]:
    """The sets without the judgments of these judges, by hash (`identity.judge_digest`)."""
    return [added._replace(record=_without(added.record, hashes)) for added in sets] if hashes else list(sets)


def _without(record: JudgedSet, hashes: Collection[str]) -> JudgedSet:
    dropped = {judge for judge in {j.judge for j in record.judgments} if judge_digest(judge) in hashes}
    return JudgedSet(record.candidate_set, tuple(j for j in record.judgments if j.judge not in dropped))


def _hard_examples(passages: list[JudgedPassage], rules: MiningRules, only: frozenset[str] | None) -> int:
    """Easy negatives are not asked for: they change no hard one, and cost time while the collection is locked."""
    if not any(is_relevant(each, rules) for each in passages):
        return 0
    verdicts = mine(passages, replace(rules, easy_per_hard=0.0))
    return sum(verdict.reason in HARD and _counts(verdict.passage_id, only) for verdict in verdicts)


def _disagrees(judged: JudgedPassage, rules: MiningRules) -> bool:
    in_bm25, in_dense = (rank_of(judged.candidate, s) <= rules.disagreement_rank for s in (BM25, DENSE))
    return in_bm25 != in_dense


def _labelled(record: JudgedSet, rules: MiningRules) -> list[JudgedPassage]:
    """The set's candidates with the labels that count among its own."""
    identities = list({id(j.judge): j.judge for j in record.judgments}.values())  # few, and slow to hash
    digests = {id(judge): judge_digest(judge) for judge in identities}
    numbers = {hashed: number for number, hashed in enumerate(sorted(set(digests.values())))}
    judges = {
        numbers[digests[id(judge)]]: JudgeRow(numbers[digests[id(judge)]], digests[id(judge)], judge)
        for judge in identities
        if not (rules.without_stage_scores and leans_on_stage_scores(judge))
    }
    labels = tuple(_label(judgment, numbers[digests[id(judgment.judge)]]) for judgment in record.judgments)
    query, candidates = record.candidate_set.query, tuple(record.candidate_set.candidates)
    labelled = LabelledQuery(query.query_id, query.text, labels, candidates)
    return judged_passages(labelled, one_a_pair(labelled, judges), judges, rules)


def _label(judgment: Judgment, judge_no: int) -> Label:
    found = judgment.outcome
    if isinstance(found, Graded):
        return Label(judgment.passage_id, judge_no, found.grade, found.min_grade, found.p_relevant, None,
                     found.entropy, found.calibration, 0)  # fmt: skip
    return Label(judgment.passage_id, judge_no, None, None, None, found.reason, None, None, 0)

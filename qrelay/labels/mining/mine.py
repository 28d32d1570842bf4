"""Mining: which judged passages train a model, and as what. Pure functions of one query's records.

A judgment's grade says what is relevant; the systems' scores say what is hard.

- positive: grade at or above the scale's relevant grade; *hard* if the current model (`ranks.py`) ranks it below
  `hard_positive_below` (10).
- hard negative: judged, not relevant, past every filter (`filters.py`), and either the current model ranks it in its
  top `negative_rank` (5), or exactly one of BM25 and dense has it in its top `disagreement_rank` (20). At most
  `max_negatives` (10) a query, the highest ranked first, each with a text of its own.
- easy negative: judged, past every filter, not hard, with P(relevant) under `easy_threshold` (0.1): the surest, two
  for every hard one (`easy_per_hard`), as far as there are any. An unjudged passage is none, unlikely as it looks.
- What is missing, or was never judged, is neither.

The filters' teacher is the student too, in part: a label that leans on retrieval scores would train the student on
its own opinion. `without_stage_scores` leaves such labels out before mining, and the pair's next label counts.

The words for roles and reasons are in `rules.py`. The order of the passages never matters; ties go by id.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from qrelay.labels.mining.filters import Pool, is_relevant, nearest
from qrelay.labels.mining.rules import EASY, NEGATIVE, NEITHER, POSITIVE, Because, JudgedPassage, MiningRules, Verdict
from qrelay.ranks import rank_of, why_hard
from qrelay.types import BM25, DENSE


def mine(passages: Sequence[JudgedPassage], rules: MiningRules) -> list[Verdict]:
    """A verdict on every judged passage: positives by grade and probability, hard negatives by rank, easy ones the
    surest first, then the rest by id. The order of `passages` does not matter."""
    pool = Pool.of(passages, rules)
    hard: list[Verdict] = []
    tame: list[JudgedPassage] = []
    rest: list[Verdict] = []
    for judged in passages:
        if is_relevant(judged, rules):
            continue
        if objection := pool.objection(judged):
            rest.append(Verdict(judged, NEITHER, *objection))
        elif reason := why_hard(judged.candidate, pool.system, rules.negative_rank, rules.disagreement_rank):
            hard.append(Verdict(judged, NEGATIVE, reason))
        else:
            tame.append(judged)
    chosen, left = _chosen(sorted(hard, key=lambda verdict: _hardest_first(verdict, pool)), rules.max_negatives, pool)
    easy, not_hard = _easy(tame, chosen, pool)
    rest += left + not_hard
    rest.sort(key=lambda verdict: verdict.passage_id)
    return [_positive(judged, pool) for judged in pool.positives] + chosen + easy + rest


def _positive(judged: JudgedPassage, pool: Pool) -> Verdict:
    rank, limit = rank_of(judged.candidate, pool.system), pool.rules.hard_positive_below
    return Verdict(judged, POSITIVE, "hard_relevant" if rank > limit else "relevant", Because(rank, limit))


def _hardest_first(verdict: Verdict, pool: Pool) -> tuple[bool, float, float, str]:
    candidate = verdict.judged.candidate
    better = min(rank_of(candidate, BM25), rank_of(candidate, DENSE))
    return verdict.reason != "top_rank", rank_of(candidate, pool.system), better, verdict.passage_id


def _chosen(
    negatives: Sequence[Verdict], limit: int, pool: Pool, before: Sequence[Verdict] = ()
) -> tuple[list[Verdict], list[Verdict]]:
    """(at most `limit` of them in their order, with texts that neither they nor those `before` have already; the
    others with the reason that left them out)."""
    kept: list[Verdict] = []
    left: list[Verdict] = []
    for verdict in negatives:
        copy = _copy_of(verdict.judged, [each.judged for each in (*before, *kept)], pool)
        if copy:
            left.append(Verdict(verdict.judged, NEITHER, *copy))
        elif len(kept) >= limit:
            left.append(Verdict(verdict.judged, NEITHER, "over_limit", Because(limit=limit)))
        else:
            kept.append(verdict)
    return kept, left


def _copy_of(judged: JudgedPassage, chosen: Sequence[JudgedPassage], pool: Pool) -> tuple[str, Because] | None:
    words = pool.texts.words(judged.candidate.passage.text)
    for each in chosen:
        if words and pool.texts.words(each.candidate.passage.text) == words:
            return "duplicate_of_negative", Because(other=each.candidate.passage.passage_id)
    near = nearest(judged, chosen, pool)
    return ("near_duplicate_of_negative", near) if near else None


def _easy(tame: Sequence[JudgedPassage], hard: Sequence[Verdict], pool: Pool) -> tuple[list[Verdict], list[Verdict]]:
    """(easy negatives for these hard ones; the others, which are not hard)."""
    limit = math.floor(pool.rules.easy_per_hard * len(hard) + 0.5)
    sure = [judged for judged in tame if (judged.p_relevant or 0.0) < pool.rules.easy_threshold]
    sure.sort(key=lambda judged: (judged.p_relevant or 0.0, judged.candidate.passage.passage_id))
    kept: list[Verdict] = []
    if limit:
        kept, _ = _chosen([Verdict(judged, NEGATIVE, EASY) for judged in sure], limit, pool, hard)
    taken = {verdict.passage_id for verdict in kept}
    others = [judged for judged in tame if judged.candidate.passage.passage_id not in taken]
    return kept, [Verdict(judged, NEITHER, "not_hard") for judged in others]

"""What a query's row says of its labels, so that a list of a million judgments sorts and filters without reading one.

    disagreement   the largest spread of a pair's single judges, 0 to 1 (as `review.by_disagreement` measures it)
    uncertainty    the largest 1 - |2 P(relevant) - 1| of a pair's label that counts, overrides aside
    people         pairs with an override that stands
    people_apart   the largest distance between such an override and the judges' label that counts, 0 to 1
    judges         the first characters of the hashes of the judges with a label, in blanks: " 3f2a… 90bc… "

A new query's are computed from its set before the database's lock is taken; what is added later (another round,
re-judgments, overrides, a retracted judge) has them read and computed again in its transaction, by `refresh.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, NamedTuple

from qrelay.errors import InputError
from qrelay.identity import judge_digest
from qrelay.labels.ledger.precedence import Rank, kind_of, rank
from qrelay.scales import bounds
from qrelay.types import COMBINED, Graded, JudgeIdentity, Judgment

HASH_LETTERS: Final = 12
"""Of a judge's hash in `queries.judges`."""
_NOBODY: Final[Mapping[str, float]] = {}


class Voice(NamedTuple):
    """A judge, as far as a summary asks. single: it has an opinion of its own; width: 0 without a scale LOW-HIGH."""

    kind: int
    judge_hash: str
    single: bool
    low: int
    width: int


class Said(NamedTuple):
    """One label: `expected` is the expected grade; it and `p_relevant` are None where the label is missing."""

    passage_id: str
    voice: Voice
    expected: float | None
    p_relevant: float | None
    generation: int


@lru_cache(1024)
def voice_of(judge: JudgeIdentity) -> Voice:
    """The judge's voice."""
    try:
        low, high = bounds(judge.scale)
    except InputError:
        low = high = 0  # its P(relevant) counts
    return Voice(kind_of(judge), judge_digest(judge), judge.strategy not in COMBINED, low, high - low)


def of_judgments(judgments: Sequence[Judgment]) -> dict[str, Any]:
    """The summary of a query that comes with these judgments."""
    voices = {id(each.judge): voice_of(each.judge) for each in judgments}
    return summary([_said(each, voices[id(each.judge)]) for each in judgments])


def _said(judgment: Judgment, voice: Voice) -> Said:
    outcome = judgment.outcome
    if isinstance(outcome, Graded):
        return Said(judgment.passage_id, voice, outcome.expected_relevance, outcome.p_relevant, 0)
    return Said(judgment.passage_id, voice, None, None, 0)


def summary(labels: Sequence[Said], people: Mapping[str, float] = _NOBODY) -> dict[str, Any]:
    """The columns. `people`: passage_id -> the grade that stands, as a share of its scale."""
    first: dict[str, tuple[Rank, Said]] = {}
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    for said in labels:
        passage_id, voice, _, p, generation = said
        place = rank(voice.kind, p is None, generation, voice.judge_hash)
        if passage_id not in first or place < first[passage_id][0]:
            first[passage_id] = place, said
        if voice.single and p is not None:
            share = _share(said)
            least[passage_id] = min(share, least.get(passage_id, share))
            most[passage_id] = max(share, most.get(passage_id, share))
    counting = {passage_id: said for passage_id, (_, said) in first.items() if said.p_relevant is not None}
    hashes = sorted({said.voice.judge_hash[:HASH_LETTERS] for said in labels})
    return {
        "disagreement": max((most[each] - least[each] for each in least), default=0.0),
        "uncertainty": max((1.0 - abs(2.0 * (said.p_relevant or 0.0) - 1.0) for said in counting.values()), default=0.0),
        "people": len(people),
        "people_apart": max((abs(people[each] - _share(counting[each])) for each in people if each in counting),
                            default=0.0),
        "judges": f" {' '.join(hashes)} " if hashes else "",
    }  # fmt: skip


def _share(said: Said) -> float:
    """What a grade says, 0 to 1: the expected one as a share of the scale, or P(relevant) where there is none."""
    _, voice, expected, p, _ = said
    if voice.width and expected is not None:
        return (expected - voice.low) / voice.width
    return p or 0.0

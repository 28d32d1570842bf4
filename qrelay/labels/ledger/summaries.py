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

from collections.abc import Mapping, Sequence, Set
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from qrelay.errors import InputError
from qrelay.identity import judge_digest
from qrelay.labels.ledger.precedence import Rank, kind_of, rank
from qrelay.scales import bounds
from qrelay.types import COMBINED, JudgeIdentity

if TYPE_CHECKING:
    from qrelay.labels.ledger.rows import JudgmentRow

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


Said = tuple[Rank, float | None, float | None, bool]
"""One label: its rank (the least of a pair counts), what it says (0 to 1), P(relevant), and whether its judge has an
opinion of its own. The two in the middle are None where the label is missing. No class: a commit makes hundreds."""


@lru_cache(1024)
def voice_of(judge: JudgeIdentity) -> Voice:
    """The judge's voice."""
    try:
        low, high = bounds(judge.scale)
    except InputError:
        low = high = 0  # its P(relevant) counts
    return Voice(kind_of(judge), judge_digest(judge), judge.strategy not in COMBINED, low, high - low)


def said(voice: Voice, expected: float | None, p_relevant: float | None, generation: int) -> Said:
    """A label by this judge."""
    place = rank(voice.kind, p_relevant is None, generation, voice.judge_hash)
    return place, _share(voice, expected, p_relevant), p_relevant, voice.single


def _share(voice: Voice, expected: float | None, p_relevant: float | None) -> float | None:
    """The expected grade as a share of its scale, or P(relevant) where it has none."""
    return (expected - voice.low) / voice.width if voice.width and expected is not None else p_relevant


def of_rows(rows: Sequence[JudgmentRow], judges: Sequence[JudgeIdentity]) -> dict[str, Any]:
    """The summary of a query that comes with these judgments; judges[i] made rows[i]."""
    voices = {id(judge): voice_of(judge) for judge in {id(judge): judge for judge in judges}.values()}
    hashes = {voice.judge_hash for voice in voices.values()}
    if len(voices) == 1 and len({row.passage_id for row in rows}) == len(rows):  # most often
        return _columns(0.0, [abs(row.p_relevant - 0.5) for row in rows if row.p_relevant is not None], hashes)
    ranks = {number: (said(voice, None, None, 0), said(voice, 0.0, 0.0, 0)[0]) for number, voice in voices.items()}
    pairs: dict[str, list[Said]] = {}
    for row, judge in zip(rows, judges, strict=True):
        voice, (label, rank_of_grade) = voices[id(judge)], ranks[id(judge)]
        if row.grade is not None:
            share = _share(voice, row.expected_relevance, row.p_relevant)
            label = rank_of_grade, share, row.p_relevant, voice.single
        pairs.setdefault(row.passage_id, []).append(label)
    return summary(pairs, hashes)


def summary(
    pairs: Mapping[str, Sequence[Said]], judges: Set[str], people: Mapping[str, float] = _NOBODY
) -> dict[str, Any]:
    """The columns. `pairs`: passage_id -> its labels; `judges`: the hashes of those who gave them; `people`:
    passage_id -> the grade that stands, as a share of its scale."""
    counting = {passage_id: min(labels) if len(labels) > 1 else labels[0] for passage_id, labels in pairs.items()}
    sure = [abs(p - 0.5) for _, _, p, _ in counting.values() if p is not None]
    spread = max((_spread(labels) for labels in pairs.values() if len(labels) > 1), default=0.0)
    judged = {each: counting[each][1] for each in people if each in counting}
    apart = [abs(people[each] - share) for each, share in judged.items() if share is not None]
    return _columns(spread, sure, judges, len(people), max(apart, default=0.0))


def _columns(
    disagreement: float, sure: Sequence[float], judges: Set[str], people: int = 0, apart: float = 0.0
) -> dict[str, Any]:
    named = " ".join(sorted(each[:HASH_LETTERS] for each in judges))
    return {
        "disagreement": disagreement,
        "uncertainty": 1.0 - 2.0 * min(sure, default=0.5),
        "people": people,
        "people_apart": apart,
        "judges": f" {named} " if named else "",
    }


def _spread(labels: Sequence[Said]) -> float:
    shares = [share for _, share, _, single in labels if single and share is not None]
    return max(shares) - min(shares) if len(shares) > 1 else 0.0

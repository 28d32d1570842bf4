"""Pairwise preferences: which of two passages answers a query better, asked where a judge's labels tie.

Ties. Passages of one query with the same grade form a group, or, where scores are given, passages whose scores are at
most `margin` below the group's first.

Schedule. The passages of a group stand in a circle, in an order drawn from the query and their texts. Each meets
those 1, 2, 4, 8, … places further, so that a group of n is one connected design of about n log2(n) comparisons (all
pairs, where n is at most 5), and no passage meets more than others. Where a query's comparisons exceed `most`, the
longest distances of all its groups go first; groups without distance 1 are left as they are.

Both orders. Each comparison is asked twice, with the passages exchanged. P(first is better) of the two questions is
averaged, which takes out most of a preference for a place, and is the first's share of a win; where the two answers
contradict each other, the comparison is a tie.

Aggregation. Bradley-Terry by choix (Maystre and Grossglauser, NeurIPS 2015), a tie being half a win of each. The
passages of a group are ordered within their grade; grades themselves are never overturned.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import exp
from typing import Any, Final

from qrelay.judging.asking import Asker
from qrelay.judging.prompts import shipped
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.grading import read_grade
from qrelay.judging.strategies.numbered import Text, shuffled
from qrelay.llm.exchange import Prompt, TokenLogprobs
from qrelay.scales import Scale
from qrelay.types import Missing, Passage

CHOICE: Final = Scale.halved("0-1", variants=(("b",), ("a",)))
_ALPHA: Final = 0.1
"""choix's regularisation, in wins of all over all: strengths stay finite where somebody won every time."""
_TITLE_WORDS: Final = 24


@dataclass(frozen=True, slots=True)
class Group:
    """Passages of one query whose labels tie. level: its place among the query's groups, or its grade; higher is
    better."""

    query_id: str
    query: str
    level: int
    passages: tuple[Passage, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """Two passages of a group. p: P(first is better), the mean of both orders; agreed: whether both orders name the
    same one. missing: why there is no answer."""

    query_id: str
    level: int
    first: str
    second: str
    p: float | None = None
    agreed: bool = False
    missing: Missing | None = None

    @property
    def wins(self) -> float:
        """What the first gets of one win: P(first is better), or 0.5 where the orders contradict each other."""
        return 0.5 if not self.agreed or self.p is None else self.p


def tied(
    query_id: str, query: str, labelled: Iterable[tuple[Passage, float]], *, margin: float | None, least: float
) -> list[Group]:
    """The groups of a query, the best first, those of a single passage too. labelled: with grade or score, of which
    those below `least` are left out. margin: None for equal grades, which are then the groups' levels."""
    ordered = sorted((each for each in labelled if each[1] >= least), key=lambda each: (-each[1], each[0].passage_id))
    groups: list[list[tuple[Passage, float]]] = []
    for each in ordered:
        if groups and groups[-1][0][1] - each[1] <= (margin or 0.0):
            groups[-1].append(each)
        else:
            groups.append([each])
    levels = [int(held[0][1]) if margin is None else len(groups) - n for n, held in enumerate(groups)]
    return [
        Group(query_id, query, level, tuple(passage for passage, _ in held))
        for level, held in zip(levels, groups, strict=True)
    ]


def schedule(groups: Sequence[Group], most: int) -> list[tuple[Group, Passage, Passage]]:
    """The comparisons of one query's groups, at most `most` unless distance 1 alone is more."""
    held = [list(_circle(group)) for group in groups]
    while sum(map(len, chain.from_iterable(held))) > most and (longest := max(map(len, held))) > 1:
        held = [rounds[:-1] if len(rounds) == longest else rounds for rounds in held]
    return [
        (group, *pair) for group, rounds in zip(groups, held, strict=True) for pair in chain.from_iterable(rounds)
    ]


def _circle(group: Group) -> Iterable[list[tuple[Passage, Passage]]]:
    """The pairs of each distance."""
    by_text = {(each.title, each.text): each for each in group.passages}
    order = [by_text[text] for text in shuffled(sorted(by_text), group.query, group.level)]
    n, distance, seen = len(order), 1, set()
    while distance <= n // 2:
        pairs = []
        for at in range(n):
            pair = order[at], order[(at + distance) % n]
            key = frozenset(each.passage_id for each in pair)
            if key not in seen:
                seen.add(key)
                pairs.append(pair)
        yield pairs
        distance *= 2


async def compare(
    asker: Asker, pairs: Sequence[tuple[Group, Passage, Passage]], *, words: int = 160, min_mass: float = 0.05
) -> list[Compared]:
    """Both orders of every pair; `words` words of a passage are shown. Raises TransientError, see `Asker`."""
    asked = [_prompt(group, *order, words) for group, a, b in pairs for order in ((a, b), (b, a))]
    replies = await asker.score(asked)
    return [_compared(pair, replies[2 * n], replies[2 * n + 1], min_mass) for n, pair in enumerate(pairs)]


def _prompt(group: Group, first: Passage, second: Passage, words: int) -> Prompt:
    each = {"first": _shown(first, words), "second": _shown(second, words)}
    shared = {"query": hygiene.as_data(group.query)}
    return shipped("preferences").prompt("prefer", CHOICE, (group.query, first.text), shared, each)


def _shown(passage: Passage, words: int) -> str:
    text: Text = hygiene.first_words(passage.title, _TITLE_WORDS), hygiene.first_words(passage.text, words)
    return hygiene.delimited_passage(*text)


def _compared(
    pair: tuple[Group, Passage, Passage],
    one: TokenLogprobs | Missing,
    other: TokenLogprobs | Missing,
    min_mass: float,
) -> Compared:
    group, a, b = pair
    found = [
        each if isinstance(each, Missing) else read_grade(each, CHOICE, min_mass=min_mass) for each in (one, other)
    ]
    ids = (group.query_id, group.level, a.passage_id, b.passage_id)
    forward, backward = found
    if isinstance(forward, Missing):
        return Compared(*ids, missing=forward)
    if isinstance(backward, Missing):
        return Compared(*ids, missing=backward)
    p, q = forward.p_relevant, 1.0 - backward.p_relevant
    return Compared(*ids, (p + q) / 2, (p > 0.5) == (q > 0.5))


def strengths(group: Group, compared: Iterable[Compared]) -> dict[str, float]:
    """passage id -> Bradley-Terry strength, in nats, mean 0. Comparisons that are missing count for nobody; equal
    texts share theirs."""
    import choix
    import numpy as np

    place = {each.passage_id: n for n, each in enumerate(group.passages)}
    wins = np.zeros((len(place), len(place)))
    for each in compared:
        if each.missing is None and each.first in place and each.second in place and each.level == group.level:
            wins[place[each.first], place[each.second]] += each.wins
            wins[place[each.second], place[each.first]] += 1.0 - each.wins
    found = choix.ilsr_pairwise_dense(wins, alpha=_ALPHA)
    return {passage_id: float(found[n]) for passage_id, n in place.items()}


def ordered(groups: Iterable[Group], compared: Sequence[Compared]) -> dict[str, float]:
    """passage id -> level + a share of 1 by strength: a finer score within each group, of one query's groups."""
    found: dict[str, float] = {}
    for group in groups:
        own = strengths(group, compared)
        found |= {passage_id: group.level + 1.0 / (1.0 + exp(-each)) for passage_id, each in own.items()}
    return found


def as_row(each: Compared) -> Mapping[str, Any]:
    """A comparison as its line in the output."""
    told = {"reason": each.missing.reason, "detail": each.missing.detail} if each.missing else None
    fields: dict[str, Any] = {"qid": each.query_id, "level": each.level, "first": each.first, "second": each.second}
    return fields | ({"missing": told} if told else {"p": each.p, "agreed": each.agreed, "wins": each.wins})

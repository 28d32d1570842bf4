"""A passage as a page shows it. Blind, nothing that was measured or decided is in it until the person has graded it:
neither labels nor scores, ranks, other people's grades or what mining made of it, nor the order that ranks gave."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qrelay.labels.browse.one import Given, Shown, Whole
from qrelay.labels.ledger.overrides import Override
from qrelay.labels.mining.explain import Explained
from qrelay.types import Passage, Score

CUT = 4000
"""Characters of a text on the page; the whole one has an address of its own."""


@dataclass(frozen=True, slots=True)
class Card:
    """number: on the page, from 1; cut: characters that are left out; mine: the person's own grade. place: the
    passage's rank. The rest is empty where `hidden`."""

    number: int
    passage: Passage
    text: str
    cut: int
    mine: Override | None
    hidden: bool
    sampled: bool = False
    place: int = 0
    scores: tuple[Score, ...] = ()
    labels: tuple[Given, ...] = ()
    mined: Explained | None = None
    decisions: tuple[Override, ...] = ()
    standing: Override | None = None


def cards(view: Whole, person: str, *, blind: bool) -> list[Card]:
    """The passages of a query: by rank, or blind those with a text in an order that says nothing."""
    passages: Sequence[Shown] = view.passages
    if blind:
        told = [each for each in passages if each.candidate.passage.text]
        passages = sorted(told, key=lambda each: _order(view.record.query.query_id, each))
    return [_card(number, each, person, view.systems, blind) for number, each in enumerate(passages, 1)]


def _card(number: int, shown: Shown, person: str, systems: Sequence[str], blind: bool) -> Card:
    passage, mine = shown.candidate.passage, shown.of(person)
    cut = max(0, len(passage.text) - CUT)
    card = Card(number, passage, passage.text[:CUT], cut, mine, hidden=blind and mine is None)
    if card.hidden:
        return card
    scores = sorted(shown.candidate.scores, key=lambda score: systems.index(score.system))
    return replace(
        card, sampled=shown.candidate.sampled, place=shown.place, scores=tuple(scores), labels=shown.labels,
        mined=shown.mined, decisions=shown.decisions, standing=shown.standing,
    )  # fmt: skip


def _order(query_id: str, shown: Shown) -> str:
    return hashlib.sha256(f"{query_id}\0{shown.candidate.passage.passage_id}".encode()).hexdigest()

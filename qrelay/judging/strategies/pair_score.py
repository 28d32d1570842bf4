"""`pair_score`: an encoder's own score of query and passage; it reads no prompt, so no instruction can reach it.

P(relevant) is a logistic of the log-odds that the backend gives (`qrelay.llm.exchange.PairScore`): of a cross-encoder
what it was trained to say, of an embedder a line in the cosine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from qrelay.errors import QrelayError
from qrelay.identity import digest
from qrelay.judging.strategies.base import Measured, StrategySpec
from qrelay.judging.strategies.grading import graded
from qrelay.judging.strategies.likelihood import BINARY
from qrelay.llm.base import Backend
from qrelay.llm.exchange import PAIR_SCORES, Message, Pair, PairScore
from qrelay.text import passage_text
from qrelay.types import Missing, Passage, Query

_MOST: Final = 30.0
"""Log-odds beyond this are certain to the last digit of a double."""


class PairScores:
    """See the module."""

    def __init__(self) -> None:
        self.spec = StrategySpec("pair_score", BINARY, digest("pair_score"), frozenset({PAIR_SCORES}), PAIR_SCORES)

    def reads(self, query: Query, passages: Sequence[Passage]) -> str:  # noqa: ARG002
        """Nothing beside the pair."""
        return ""

    async def measure(
        self, backend: Backend, query: Query, passages: Sequence[Passage]
    ) -> list[Measured | QrelayError]:
        """One pair a passage."""
        answers = await backend.pair_scores([_pair(query, passage) for passage in passages])
        return [each if isinstance(each, QrelayError) else measured(each) for each in answers]

    def example(self, query: Query, passage: Passage) -> list[Message]:
        """Both texts as the model reads them."""
        pair = _pair(query, passage)
        return [{"role": "query", "content": pair.query}, {"role": "passage", "content": pair.passage}]


def _pair(query: Query, passage: Passage) -> Pair:
    return Pair(query.text, passage_text(passage.title, passage.text))


def measured(answer: PairScore) -> Measured:
    """The label of a score."""
    if not math.isfinite(answer.log_odds):
        return Measured(Missing("unparseable", f"the score is not a number ({answer.log_odds})"), answer.decoding)
    p = 1.0 / (1.0 + math.exp(-max(-_MOST, min(_MOST, answer.log_odds))))
    return Measured(graded((1.0 - p, p), BINARY), answer.decoding)

"""`consensus`: how much of the list says what the passage says, whatever that is.

Passages that answer a question resemble each other, and each that does not fails in its own way (the cluster
hypothesis: van Rijsbergen 1979, Information Retrieval, chapter 3; Diaz 2005, "Regularizing ad hoc retrieval scores",
https://doi.org/10.1145/1099554.1099722, scores by neighbours). So an embedder compares the list's passages with each
other, and a passage's score is the mean log-odds of its nearest ones. The query is not read, nor any retrieval
score: what it knows is independent of both, and it belongs beside judges that read the query.

The nearest are a share of the list and not a number, so that a long list's passages score as a short one's. It knows
nothing where the list is a handful, where all of it is on one wrong topic, and where only one passage can be right.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from typing import Final

from qrelay.errors import QrelayError
from qrelay.identity import digest
from qrelay.judging.strategies.base import Measured, StrategySpec
from qrelay.judging.strategies.likelihood import BINARY
from qrelay.judging.strategies.pair_score import measured
from qrelay.llm.base import Backend
from qrelay.llm.exchange import PAIR_SCORES, Message, Pair, PairScore
from qrelay.text import passage_text
from qrelay.types import Missing, Passage, Query

NEAREST: Final = 0.3
"""Of the list's other passages. 0.1 to 1 differ by 0.006 of AUC on half A of LLMJudge DL23 (docs/judge.md)."""
_SLOPE, _CUT = 0.38, 1.96
"""P(relevant) is a logistic of slope * (mean log-odds - cut), fitted on LiveQA-Med's dev part with
all-mpnet-base-v2, both sides weighing the same."""
_LEAST: Final = 3
"""Passages without which there is no consensus."""


class Consensus:
    """See the module."""

    def __init__(self) -> None:
        hashed = digest("consensus", repr((NEAREST, _SLOPE, _CUT, _LEAST)))
        self.spec = StrategySpec("consensus", BINARY, hashed, frozenset({PAIR_SCORES}), PAIR_SCORES, listwise=True)

    def reads(self, query: Query, passages: Sequence[Passage]) -> str:  # noqa: ARG002
        """The list's passages, in any order."""
        return digest("consensus", *sorted({digest(each.title, each.text) for each in passages}))

    async def measure(
        self,
        backend: Backend,
        query: Query,  # noqa: ARG002
        passages: Sequence[Passage],
    ) -> list[Measured | QrelayError]:
        """A pair of each passage with each other one. An error of one is the list's: the same list must get the same
        labels."""
        decoding = backend.decodings(PAIR_SCORES)[0]
        if len(passages) < _LEAST:
            few = Missing("refused", f"consensus needs {_LEAST} different passages, the list has {len(passages)}")
            return [Measured(few, decoding)] * len(passages)
        texts = [passage_text(each.title, each.text) for each in passages]
        pairs = [Pair(one, other, alike=True) for one in texts for other in texts]
        found = await backend.pair_scores(pairs)
        failed = next((each for each in found if isinstance(each, QrelayError)), None)
        if failed is not None:
            return [failed] * len(passages)
        odds = [each.log_odds for each in found if isinstance(each, PairScore)]
        rows = [odds[at : at + len(texts)] for at in range(0, len(odds), len(texts))]
        means = [_nearest([*row[:n], *row[n + 1 :]]) for n, row in enumerate(rows)]
        return [measured(PairScore(_SLOPE * (mean - _CUT), decoding)) for mean in means]

    def example(self, query: Query, passage: Passage) -> list[Message]:  # noqa: ARG002
        """The text that is compared with the list's others."""
        return [{"role": "passage", "content": passage_text(passage.title, passage.text)}]


def _nearest(scores: Sequence[float]) -> float:
    """The mean of the highest `NEAREST` share."""
    count = max(1, round(NEAREST * len(scores)))
    return math.fsum(heapq.nlargest(count, scores)) / count

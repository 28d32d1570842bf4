"""`query_likelihood`: how much more likely the passage makes the query.

After Sachan et al., "Improving Passage Retrieval with Zero-Shot Question Generation" (UPR, EMNLP 2022), whose prompt
it takes, with one thing more: log P(query) without a passage is taken off, so that scores compare between queries
and a label means something by itself. Asks nothing that a model must be trained to do: small models that fail at
grading do this well (docs/judge.md has the figures).
"""

from __future__ import annotations

from collections.abc import Sequence

from qrelay.errors import QrelayError
from qrelay.identity import digest
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.base import Measured, StrategySpec
from qrelay.judging.strategies.likelihood import GRADED, QUESTION, Prior, measured, question, shown
from qrelay.llm.base import Backend
from qrelay.llm.exchange import PROMPT_LOGPROBS, Message
from qrelay.types import Passage, Query

PRIOR = Prior(GRADED, cuts=(0.53, 0.79, 1.0), slope=2.24)
"""Logistic fits on LiveQA-Med's dev part (people's grades 2, 3, 4 of 1 to 4) with the 1.5B model, both sides of a cut
weighing the same: how many candidates are relevant is a matter of the corpus and the retriever, and a map's to learn.
See docs/judge.md."""


class QueryLikelihood:
    """See the module."""

    def __init__(self) -> None:
        hashed = (QUESTION, repr(PRIOR))
        self.spec = StrategySpec(
            "query_likelihood",
            PRIOR.scale,
            digest(hygiene.VERSION, "query_likelihood", *hashed),
            frozenset({PROMPT_LOGPROBS}),
            PROMPT_LOGPROBS,
        )

    def reads(self, query: Query, passages: Sequence[Passage]) -> str:  # noqa: ARG002
        """Nothing beside the pair."""
        return ""

    async def measure(
        self, backend: Backend, query: Query, passages: Sequence[Passage]
    ) -> list[Measured | QrelayError]:
        """One question a passage, and one for the query alone."""
        asked = [question(query.text, passage) for passage in (None, *passages)]
        alone, *replies = await backend.loglikelihood(asked)
        return measured(replies, alone, PRIOR)

    def example(self, query: Query, passage: Passage) -> list[Message]:
        """The text whose end, the query, is measured."""
        return shown(question(query.text, passage))

"""`contrastive_likelihood`: does the passage make this query likely, more than its alternatives?

A query's likelihood given a passage (query_likelihood.py) says above all whether both are about the same thing: the
tokens of a disease's name weigh more than the two words that ask for its symptoms rather than its treatment. Where
the corpus answers several questions about one thing, that is where it errs. So the other questions are measured too:

    P(relevant) = P(on topic) * P(q | p) / (P(q | p) + sum over alternatives a of P(a | p))

P(on topic) is the query likelihood's own, of the gain; the second factor is the posterior of the query among
questions that could be meant, all equally likely beforehand: the noise-contrastive form of "which question does this
passage answer?" (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, equation 4).

The alternatives travel with the query, as a JSON list of texts in its attribute `alternatives`; `qrelay queries
alternatives` finds them in a query log: the questions most alike. They are part of what a label depends on (`reads`).
A query without any gets the first factor alone. A passage is read once for all of them, so eight alternatives cost
half as much again as none.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Final

from qrelay.errors import MalformedInput, QrelayError
from qrelay.identity import digest
from qrelay.types import Graded, Passage, Query
from services.judge.backends.base import Backend
from services.judge.exchange import PROMPT_LOGPROBS, Continuation, Message, TargetLogprobs
from services.judge.strategies import hygiene
from services.judge.strategies.base import Measured, StrategySpec
from services.judge.strategies.grading import graded
from services.judge.strategies.likelihood import BINARY, Prior, measured

ALTERNATIVES: Final = "alternatives"
"""The query's attribute that holds them."""
_CONTEXT: Final = "Passage: {passage}\nPlease write a question based on this passage.\nQuestion:"
_TOPIC: Final = Prior(BINARY, cuts=(0.79,), slope=2.24)
"""The query likelihood's fit on LiveQA-Med, at the cut between related and relevant."""


class ContrastiveLikelihood:
    """See the module."""

    def __init__(self) -> None:
        self._spec = StrategySpec(
            "contrastive_likelihood",
            BINARY,
            digest(hygiene.VERSION, "contrastive_likelihood", _CONTEXT, repr(_TOPIC)),
            frozenset({PROMPT_LOGPROBS}),
            PROMPT_LOGPROBS,
        )

    @property
    def spec(self) -> StrategySpec:
        """Name, scale, prompt hash."""
        return self._spec

    def reads(self, query: Query, passages: Sequence[Passage]) -> str:  # noqa: ARG002
        """The alternatives, in any order."""
        found = alternatives(query)
        return digest(ALTERNATIVES, *found) if found else ""

    async def measure(
        self, backend: Backend, query: Query, passages: Sequence[Passage]
    ) -> list[Measured | QrelayError]:
        """A question for each passage and text, the query and its alternatives, and one for the query alone.
        Raises MalformedInput: the attribute is no list of texts."""
        texts = (query.text, *alternatives(query))
        asked = [_continuation(query.text, None)]
        asked += [_continuation(text, passage) for passage in passages for text in texts]
        alone, *replies = await backend.loglikelihood(asked)
        rows = [replies[at : at + len(texts)] for at in range(0, len(replies), len(texts))]
        topical = measured([row[0] for row in rows], alone, _TOPIC)
        return [_contrasted(found, row) for found, row in zip(topical, rows, strict=True)]

    def example(self, query: Query, passage: Passage) -> list[Message]:
        """The text whose end, the query, is measured; each alternative is measured in its place."""
        asked = _continuation(query.text, passage)
        return [{"role": "context", "content": asked.context}, {"role": "target", "content": asked.target}]


def alternatives(query: Query) -> tuple[str, ...]:
    """The texts of the attribute, each once, sorted, the query's own left out.

    Raises:
        MalformedInput: it is no JSON list of texts.
    """
    given = query.attributes.get(ALTERNATIVES, "")
    try:
        found = json.loads(given) if given else []
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
        raise MalformedInput(
            f"attribute {ALTERNATIVES!r} of query {query.query_id} is no JSON list of texts: let `qrelay queries"
            " alternatives` write it"
        )
    return tuple(sorted(set(found) - {query.text}))


def _continuation(text: str, passage: Passage | None) -> Continuation:
    shown = (passage.title, passage.text) if passage else ()
    context = _CONTEXT.format(passage="\n".join(part for each in shown if (part := hygiene.as_data(each))))
    return Continuation(context, " " + hygiene.as_data(text), text, passage.text if passage else "")


def _contrasted(found: Measured | QrelayError, row: Sequence[TargetLogprobs | QrelayError]) -> Measured | QrelayError:
    """The topical label of a passage, times the query's share among all texts. An alternative that failed might have
    been the likeliest, so it fails the pair."""
    replies: list[TargetLogprobs] = []
    for reply in row:
        if isinstance(reply, QrelayError):
            return reply
        replies.append(reply)
    if isinstance(found, QrelayError) or not isinstance(found.outcome, Graded):
        return found
    own, *others = (math.fsum(reply.logprobs) for reply in replies)
    share = 1.0 / (1.0 + math.fsum(math.exp(min(700.0, other - own)) for other in others))
    p_relevant = found.outcome.p_relevant * share
    outcome = graded((1.0 - p_relevant, p_relevant), BINARY, found.outcome.utility)
    tokens = found.prompt_tokens + sum(len(reply.logprobs) for reply in replies[1:])
    return Measured(outcome, found.decoding, prompt_tokens=tokens)

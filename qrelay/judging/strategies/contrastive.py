"""`contrastive_likelihood`: does the passage make this query likelier, more than it does its alternatives?

A query's likelihood given a passage (query_likelihood.py) says above all whether both are about the same thing: the
tokens of a disease's name weigh more than the two words that ask for its symptoms rather than its treatment, and some
passages make any question likelier. So other questions are measured on the same passages, and what is common is taken
out. With s(a, p) = log P(a | p), summed over the question's tokens, for the query q and its alternatives a:

    d(a, p)     = s(a, p) - mean over the list's passages of s(a, .)
    share(p)    = exp d(q, p) / (exp d(q, p) + sum over alternatives of exp d(a, p))
    P(relevant) = P(on topic) * share(p)

d is a two-way centring: of the log-likelihoods' table the part that neither the question nor, in the share, the
passage explains by itself. The share is the noise-contrastive posterior of "which of these questions does this
passage answer?" (van den Oord et al. 2018, https://arxiv.org/abs/1807.03748, equation 4); P(on topic) is the query
likelihood's own.

The alternatives travel with the query, as a JSON list of texts in its attribute `alternatives`; `qrelay queries
alternatives` finds them in a query log. They and the list's passages are part of what a label depends on (`reads`). A
query without any gets P(on topic) alone. A passage is read once for all questions: eight alternatives cost a half to
once more than none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from qrelay.errors import MalformedInput, QrelayError, TransientError
from qrelay.identity import digest
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.base import Measured, StrategySpec
from qrelay.judging.strategies.grading import graded
from qrelay.judging.strategies.likelihood import BINARY, QUESTION, Prior, measured, question, shown
from qrelay.llm.base import Backend
from qrelay.llm.exchange import PROMPT_LOGPROBS, Message, TargetLogprobs
from qrelay.parsing import json_document
from qrelay.types import Graded, Passage, Query

ALTERNATIVES: Final = "alternatives"
"""The query's attribute that holds them."""
_TOPIC: Final = Prior(BINARY, cuts=(0.79,), slope=2.24)
"""The query likelihood's fit on LiveQA-Med, at the cut between related and relevant."""


class ContrastiveLikelihood:
    """See the module."""

    def __init__(self) -> None:
        self.spec = StrategySpec(
            "contrastive_likelihood",
            BINARY,
            digest(hygiene.VERSION, "contrastive_likelihood", QUESTION, repr(_TOPIC)),
            frozenset({PROMPT_LOGPROBS}),
            PROMPT_LOGPROBS,
            listwise=True,  # what is common to the list's passages is taken out
            shares=True,
        )

    def reads(self, query: Query, passages: Sequence[Passage]) -> str:
        """The alternatives and the passages, each in any order."""
        found = alternatives(query)
        texts = sorted(digest(passage.title, passage.text) for passage in passages)
        return digest(ALTERNATIVES, *found, "passages", *texts) if found else ""

    async def measure(
        self, backend: Backend, query: Query, passages: Sequence[Passage]
    ) -> list[Measured | QrelayError]:
        """A question for each passage and text, the query and its alternatives, and one for the query alone.
        Raises MalformedInput: the attribute is no list of texts."""
        texts = (query.text, *alternatives(query))
        asked = [question(query.text, None)]
        asked += [question(text, passage, shared=True) for passage in passages for text in texts]
        alone, *replies = await backend.loglikelihood(asked)
        rows = [replies[at : at + len(texts)] for at in range(0, len(replies), len(texts))]
        topical = measured([row[0] for row in rows], alone, _TOPIC)
        return _contrasted(topical, rows)

    def example(self, query: Query, passage: Passage) -> list[Message]:
        """The text whose end, the query, is measured; each alternative is measured in its place."""
        return shown(question(query.text, passage))


def alternatives(query: Query) -> tuple[str, ...]:
    """The texts of the attribute, each once, sorted, the query's own left out.

    Raises:
        MalformedInput: it is no JSON list of texts.
    """
    given = query.attributes.get(ALTERNATIVES, "")
    try:
        found = json_document(given) if given else []
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(text, str) and text.strip() for text in found):
        raise MalformedInput(
            f"attribute {ALTERNATIVES!r} of query {query.query_id} is no JSON list of texts: let `qrelay queries"
            " alternatives` write it"
        )
    return tuple(sorted(set(found) - {query.text}))


def _contrasted(
    topical: Sequence[Measured | QrelayError], rows: Sequence[Sequence[TargetLogprobs | QrelayError]]
) -> list[Measured | QrelayError]:
    """The topical labels times the query's shares; rows[p][a]: passage p, question a, the query first.

    A question that failed might have been the likeliest, so it fails its passage, and the list's means are of the
    others. Where it may succeed another time, it fails the whole list: the same list must get the same labels.
    """
    failures = [next((reply for reply in row if isinstance(reply, QrelayError)), None) for row in rows]
    passing = next((failure for failure in failures if isinstance(failure, TransientError)), None)
    if passing is not None and len(rows[0]) > 1:
        return [passing] * len(rows)
    whole = [_sums(row) for row, failure in zip(rows, failures, strict=True) if failure is None]
    means = [math.fsum(column) / len(whole) for column in zip(*whole, strict=True)]
    sums = iter(whole)
    found: list[Measured | QrelayError] = []
    for label, row, failure in zip(topical, rows, failures, strict=True):
        if failure is None:
            found.append(_scaled(label, _share(next(sums), means), sum(map(_tokens, row[1:]))))
        else:
            found.append(failure)
    return found


def _share(sums: Sequence[float], means: Sequence[float]) -> float:
    own, *others = (value - mean for value, mean in zip(sums, means, strict=True))
    return 1.0 / (1.0 + math.fsum(math.exp(min(700.0, other - own)) for other in others))


def _scaled(label: Measured | QrelayError, share: float, tokens: int) -> Measured | QrelayError:
    """The label with P(relevant) times the share; `tokens`: what the alternatives cost."""
    if isinstance(label, QrelayError) or not isinstance(label.outcome, Graded):
        return label
    p_relevant = label.outcome.p_relevant * share
    outcome = graded((1.0 - p_relevant, p_relevant), BINARY, label.outcome.utility)
    return Measured(outcome, label.decoding, prompt_tokens=label.prompt_tokens + tokens)


def _sums(row: Sequence[TargetLogprobs | QrelayError]) -> list[float]:
    return [math.fsum(reply.logprobs) for reply in row if not isinstance(reply, QrelayError)]


def _tokens(reply: TargetLogprobs | QrelayError) -> int:
    return 0 if isinstance(reply, QrelayError) else len(reply.logprobs)

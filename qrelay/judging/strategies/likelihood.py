"""What a text's likelihood says of relevance: how much less a passage makes a model wonder at it.

The gain of a target text t (the query, or an answer) by a passage p is nll(t) - nll(t | p), both the mean negative
log-likelihood of t's tokens in nats a token: positive where the passage makes t more likely.

The grades come of the gain by a proportional-odds model (McCullagh 1980): P(grade >= k) is a logistic of the gain
around `cuts[k - 1]`, with one slope. The grade given is the median one, the highest that is at least as likely
reached as not. Cuts and slope are the strategy's own prior (`Prior`); `qrelay judge calibrate` puts a map fitted on
your own data in its place.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from qrelay.errors import QrelayError
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.base import Measured
from qrelay.judging.strategies.grading import graded
from qrelay.llm.exchange import Continuation, Message, TargetLogprobs
from qrelay.scales import Scale
from qrelay.types import Graded, Missing, Passage, Utility

BINARY = Scale.halved("0-1", variants=(("no",), ("yes",)))
GRADED = Scale.halved("0-3", variants=(("0",), ("1",), ("2",), ("3",)))
QUESTION = "Passage: {passage}\nPlease write a question based on this passage.\nQuestion:"
"""What stands before a question whose likelihood is measured (UPR's prompt)."""


def question(text: str, passage: Passage | None, *, shared: bool = False) -> Continuation:
    """The question `text` after the passage; None: after no passage. shared: others are asked of this passage too."""
    context = QUESTION.format(passage=hygiene.plain_passage(passage))
    return Continuation(context, " " + hygiene.as_data(text), text, passage.text if passage else "", shared)


def shown(asked: Continuation) -> list[Message]:
    """For people to read."""
    return [{"role": "context", "content": asked.context}, {"role": "target", "content": asked.target}]


@dataclass(frozen=True, slots=True)
class Prior:
    """P(grade >= k) = 1 / (1 + exp(-slope * (gain - cuts[k - 1]))); gain and cuts, rising, in nats a token."""

    scale: Scale
    cuts: tuple[float, ...]
    slope: float


def nll(reply: TargetLogprobs) -> float:
    """Mean negative log-likelihood of the target's tokens, nats a token."""
    return -math.fsum(reply.logprobs) / len(reply.logprobs)


def measured(
    replies: Sequence[TargetLogprobs | QrelayError], alone: TargetLogprobs | QrelayError, prior: Prior
) -> list[Measured | QrelayError]:
    """One outcome a passage. `alone`: the same target without any passage; its tokens are paid with the first."""
    if isinstance(alone, QrelayError):
        return [alone] * len(replies)
    first = next((n for n, reply in enumerate(replies) if not isinstance(reply, QrelayError)), 0)
    return [
        reply if isinstance(reply, QrelayError) else _one(reply, alone, prior, alone.prompt_tokens * (n == first))
        for n, reply in enumerate(replies)
    ]


def _one(reply: TargetLogprobs, alone: TargetLogprobs, prior: Prior, shared_tokens: int) -> Measured:
    with_passage, without = nll(reply), nll(alone)
    tokens = reply.prompt_tokens + shared_tokens
    if not (math.isfinite(with_passage) and math.isfinite(without)):
        detail = f"the likelihood is not a number ({with_passage} nats a token, {without} without the passage)"
        return Measured(Missing("unparseable", detail), reply.decoding, prompt_tokens=tokens)
    return Measured(
        graded_by(without - with_passage, Utility(with_passage, without), prior),
        reply.decoding,
        prompt_tokens=tokens,
    )


def graded_by(gain: float, utility: Utility, prior: Prior) -> Graded:
    """The label of a gain in nats a token."""
    at_least = [_logistic(prior.slope * (gain - cut)) for cut in prior.cuts]
    probabilities = tuple(a - b for a, b in zip((1.0, *at_least), (*at_least, 0.0), strict=True))
    median = prior.scale.min_grade + sum(p >= 0.5 for p in at_least)
    return replace(graded(probabilities, prior.scale, utility), grade=median)


def _logistic(x: float) -> float:
    return 1.0 / (1.0 + math.exp(-max(-30.0, min(30.0, x))))

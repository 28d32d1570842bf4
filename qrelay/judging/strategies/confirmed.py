"""`confirmed_likelihood`: the query's likelihood finds the passages that come into question, and the model is then
asked about each of these: does it do all that the query asks?

A query's likelihood given a passage (query_likelihood.py) prefers the passage that shares the query's words to its
neighbour that does what was asked: `rmdir` to `rmtree`, for deleting a folder and everything in it. A small model
knows such neighbours apart when it is asked strictly (docs/judge.md). So each passage whose gain is at most NEAR
below the list's best is asked about, YES or NO, and with y the log-odds of YES

    score = gain + WEIGHT * (y - TYPICAL)          in nats a token

takes the gain's place in the likelihood's own grades. A passage that is not asked about takes the lowest y of those
that are, so that no answer puts it before all of them. Labels depend on the list.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from qrelay.errors import QrelayError, TransientError
from qrelay.identity import digest
from qrelay.judging.strategies import hygiene
from qrelay.judging.strategies.answers import Probabilities
from qrelay.judging.strategies.base import Measured, StrategySpec
from qrelay.judging.strategies.grading import labels
from qrelay.judging.strategies.likelihood import graded_by
from qrelay.judging.strategies.query_likelihood import PRIOR, QueryLikelihood
from qrelay.llm.base import Backend
from qrelay.llm.exchange import TOKEN_LOGPROBS, Message, Prompt
from qrelay.scales import Scale
from qrelay.types import Graded, Passage, Query

NEAR: Final = 0.5
"""Nats a token."""
WEIGHT: Final = 0.8
TYPICAL: Final = 1.3
"""Of y: small models say YES to most passages that share the query's subject."""
_SYSTEM: Final = "You judge entries of a reference. Be strict."
_ASKED: Final = (
    "Entry: {passage}\n\nQuestion: {query}\nDoes this entry do exactly what the question asks, all of it? Reply YES "
    "or NO only."
)
_ANSWERS: Final = Scale.halved("0-1", variants=(("no", "n"), ("yes", "y")))
_LEAST_P: Final = 1e-6


class ConfirmedLikelihood:
    """See the module."""

    def __init__(self, *, min_mass: float) -> None:
        """min_mass: see `grading.read_grade`."""
        self._likelihood = QueryLikelihood()
        self._reader = Probabilities(_ANSWERS, "", min_mass, 0)
        likelihood = self._likelihood.spec
        self.spec = StrategySpec(
            "confirmed_likelihood",
            likelihood.scale,
            digest(likelihood.prompt_hash, _SYSTEM, _ASKED, *labels(_ANSWERS), repr((NEAR, WEIGHT, TYPICAL))),
            likelihood.needs | {TOKEN_LOGPROBS},
            likelihood.asks,
            listwise=True,  # the list's best decides which passages are asked about
        )

    def reads(self, query: Query, passages: Sequence[Passage]) -> str:  # noqa: ARG002
        """The passages, in any order."""
        return digest("passages", *sorted(digest(passage.title, passage.text) for passage in passages))

    async def measure(
        self, backend: Backend, query: Query, passages: Sequence[Passage]
    ) -> list[Measured | QrelayError]:
        """The likelihoods in one call, the questions about the near ones in another. Raises TransientError: one of
        them may succeed another time, and the same list must get the same labels."""
        likely = _settled(await self._likelihood.measure(backend, query, passages))
        gains = {n: gain for n, each in enumerate(likely) if (gain := _gain(each)) is not None}
        near = [n for n, gain in gains.items() if gain >= max(gains.values()) - NEAR]
        prompts = [_prompt(query, passages[n]) for n in near]
        asked = dict(zip(near, _settled(await self._reader.measure(backend, prompts)), strict=True))
        lowest = min((y for each in asked.values() if (y := _log_odds(each)) is not None), default=TYPICAL)
        return [_confirmed(each, asked.get(n), lowest) for n, each in enumerate(likely)]

    def example(self, query: Query, passage: Passage) -> list[Message]:
        """The text whose end, the query, is measured, and the question about a passage that is near."""
        return [*self._likelihood.example(query, passage), *_prompt(query, passage).messages()]


def _prompt(query: Query, passage: Passage) -> Prompt:
    question = _ASKED.format(passage=hygiene.plain_passage(passage), query=hygiene.as_data(query.text))
    return Prompt(_SYSTEM, question, "", labels(_ANSWERS), query.text, passage.text, spellings=_ANSWERS.variants)


def _settled(found: Sequence[Measured | QrelayError]) -> Sequence[Measured | QrelayError]:
    """All of them. Raises TransientError: the first that one is."""
    for each in found:
        if isinstance(each, TransientError):
            raise each
    return found


def _gain(each: Measured | QrelayError) -> float | None:
    """Nats a token; None: there is no label."""
    if isinstance(each, QrelayError) or not isinstance(each.outcome, Graded):
        return None
    utility = each.outcome.utility
    assert utility is not None and utility.nll is not None and utility.nll_without_passage is not None
    return utility.nll_without_passage - utility.nll


def _log_odds(each: Measured | QrelayError) -> float | None:
    """y; None: the reply was neither YES nor NO."""
    if isinstance(each, QrelayError) or not isinstance(each.outcome, Graded):
        return None
    p = min(1.0 - _LEAST_P, max(_LEAST_P, each.outcome.p_relevant))
    return math.log(p / (1.0 - p))


def _confirmed(
    likely: Measured | QrelayError, asked: Measured | QrelayError | None, lowest: float
) -> Measured | QrelayError:
    """The label of a passage. asked: what came of the question about it; None: there was none."""
    if isinstance(likely, QrelayError) or isinstance(asked, QrelayError):
        return asked if isinstance(asked, QrelayError) else likely
    gain, y = _gain(likely), lowest if asked is None else _log_odds(asked)
    tokens = likely.prompt_tokens + (asked.prompt_tokens if asked else 0)
    if gain is None or y is None:
        return replace(asked or likely, decoding=likely.decoding, prompt_tokens=tokens)
    assert isinstance(likely.outcome, Graded) and likely.outcome.utility is not None
    outcome = graded_by(gain + WEIGHT * (y - TYPICAL), likely.outcome.utility, PRIOR)
    return replace(likely, outcome=outcome, prompt_tokens=tokens)

"""Confirmed likelihood: which passages are asked about, and what an answer does to a label."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from qrelay.errors import BackendTimeout, Oversized, QrelayError
from qrelay.judging.strategies import make_strategy
from qrelay.judging.strategies.base import Measured
from qrelay.judging.strategies.confirmed import NEAR, TYPICAL, WEIGHT
from qrelay.llm.exchange import Continuation, Prompt, TargetLogprobs, TokenLogprobs
from qrelay.llm.fake import FakeBackend
from qrelay.types import Graded, Missing, Passage, Query

STRATEGY = make_strategy("confirmed_likelihood", "0-3")
QUERY = Query("q", "delete a folder and everything in it", "docs")
RMDIR, RMTREE, FAR = (Passage(f"d#{n}", "d", "", text) for n, text in enumerate(("rmdir", "rmtree", "far")))
ALL = (RMDIR, RMTREE, FAR)
GAINS = {"rmdir": 1.0, "rmtree": 1.0 - NEAR, "far": 0.9 - NEAR}
Said = Mapping[str, float | QrelayError | None]
"""Of each passage's text: the log-odds of YES, an error, or neither YES nor NO."""


class Told(FakeBackend):
    """Says the gains and the answers that it was told."""

    def __init__(self, said: Said, gains: Mapping[str, float | QrelayError] = GAINS) -> None:
        super().__init__()
        self._said, self._gains = said, gains
        self.questions: list[str] = []

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        gains = [self._gains[each.passage] if each.passage else 0.0 for each in continuations]
        return [
            gain if isinstance(gain, QrelayError) else TargetLogprobs((gain - 5.0,), 10, "told") for gain in gains
        ]

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        self.questions += [each.passage for each in prompts]
        return [_reply(self._said[each.passage]) for each in prompts]


def _reply(said: float | QrelayError | None) -> TokenLogprobs | QrelayError:
    if isinstance(said, QrelayError):
        return said
    tokens = (
        (("Well", -0.1),)
        if said is None
        else (("YES", -math.log1p(math.exp(-said))), ("NO", -math.log1p(math.exp(said))))
    )
    return TokenLogprobs(tokens, tokens[0][0], 7, "asked")


async def measured(said: Said, gains: Mapping[str, float | QrelayError] = GAINS) -> list[Measured | QrelayError]:
    return await STRATEGY.measure(Told(said, gains), QUERY, ALL)


def p_relevant(each: Measured | QrelayError) -> float:
    assert isinstance(each, Measured) and isinstance(each.outcome, Graded)
    return each.outcome.p_relevant


def expected(score: float) -> float:
    return 1 / (1 + math.exp(-2.24 * (score - 0.79)))


async def test_only_passages_near_the_best_are_asked_about() -> None:
    backend = Told({"rmdir": 0.0, "rmtree": 0.0})
    await STRATEGY.measure(backend, QUERY, ALL)
    assert backend.questions == ["rmdir", "rmtree"]


async def test_an_answer_moves_the_gain_by_its_log_odds() -> None:
    rmdir, rmtree, _ = await measured({"rmdir": 0.5, "rmtree": 2.0})
    assert p_relevant(rmdir) == pytest.approx(expected(1.0 + WEIGHT * (0.5 - TYPICAL)))
    assert p_relevant(rmtree) == pytest.approx(expected(1.0 - NEAR + WEIGHT * (2.0 - TYPICAL)))
    assert p_relevant(rmtree) > p_relevant(rmdir), "the answer outweighs the words that rmdir shares"


async def test_a_passage_that_is_not_asked_about_takes_the_lowest_answer() -> None:
    found = [p_relevant(each) for each in await measured({"rmdir": -3.0, "rmtree": -4.0})]
    assert found[2] == pytest.approx(expected(0.9 - NEAR + WEIGHT * (-4.0 - TYPICAL)))
    assert found[2] == min(found)


async def test_what_was_measured_of_the_likelihood_is_kept_and_both_questions_are_paid_for() -> None:
    rmdir, _, far = await measured({"rmdir": 0.0, "rmtree": 0.0})
    assert isinstance(rmdir, Measured) and isinstance(rmdir.outcome, Graded) and isinstance(far, Measured)
    assert rmdir.outcome.utility is not None and rmdir.outcome.utility.nll == pytest.approx(4.0)
    assert (rmdir.decoding, rmdir.prompt_tokens, far.prompt_tokens) == ("told", 10 + 10 + 7, 10)


async def test_a_reply_that_is_neither_yes_nor_no_is_a_missing_label_of_this_passage_alone() -> None:
    rmdir, rmtree, far = await measured({"rmdir": None, "rmtree": 1.0})
    assert isinstance(rmdir, Measured) and isinstance(rmdir.outcome, Missing)
    assert (rmdir.outcome.reason, rmdir.decoding, rmdir.prompt_tokens) == ("unparseable", "told", 27)
    assert p_relevant(far) < p_relevant(rmtree)


async def test_a_question_that_may_be_answered_later_fails_the_list_another_its_passage() -> None:
    with pytest.raises(BackendTimeout):
        await measured({"rmdir": BackendTimeout("slow"), "rmtree": 1.0})
    with pytest.raises(BackendTimeout):
        await measured({"rmdir": 1.0, "rmtree": 1.0}, {**GAINS, "far": BackendTimeout("slow")})
    rmdir, *others = await measured({"rmdir": Oversized("long"), "rmtree": 1.0})
    assert isinstance(rmdir, Oversized) and all(isinstance(each, Measured) for each in others)
    rmdir, *others = await measured({"rmtree": 1.0, "far": 1.0}, {**GAINS, "rmdir": Oversized("long")})
    assert isinstance(rmdir, Oversized) and all(isinstance(each, Measured) for each in others)


def test_the_list_is_part_of_the_identity_its_order_is_not() -> None:
    assert STRATEGY.reads(QUERY, ALL) == STRATEGY.reads(QUERY, ALL[::-1]) != STRATEGY.reads(QUERY, ALL[:2])
    assert STRATEGY.spec.listwise

"""The contract of every backend: the double, a real llama.cpp, and a real HTTP endpoint."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from qrelay.errors import ModelError, Oversized, QrelayError
from qrelay.types import Graded
from services.judge.backends.base import Backend, Weights
from services.judge.backends.fake import FakeBackend
from services.judge.backends.llamacpp import LlamaCppBackend
from services.judge.backends.openai import OpenAIBackend
from services.judge.exchange import TOKEN_LOGPROBS, Prompt, TokenLogprobs
from services.judge.strategies import make_strategy
from tests.judge.samples import COOKING, COPYTREE, LOCK, QUERY, candidate_set, judge_one, make_judge, passage

TOLERANCE = 4e-2
"""Of probability: a prefix read in another batch moves the logits of a 4-bit model; 0.008 to 0.019 were seen here
on different processors with the 135M one, whose logits move most."""
STRATEGY = make_strategy("graded", "0-3", min_mass=0.0)


@pytest.fixture(params=["fake", "llamacpp", "openai"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    made: Backend
    if request.param == "fake":
        made = FakeBackend()
    elif request.param == "llamacpp":
        made = request.getfixturevalue("small_backend")
    else:
        made = OpenAIBackend(request.getfixturevalue("real_endpoint"), Weights("m", "r", "q"), request_timeout_s=60)
    yield made
    if request.param != "llamacpp":
        made.close()


def prompts() -> list[Prompt]:
    queries = [QUERY, "What is a lock?"]
    return [STRATEGY.prompt(query, passage(text)) for query in queries for text in (COPYTREE, LOCK, COOKING)]


async def replies(backend: Backend, asked: list[Prompt]) -> list[TokenLogprobs]:
    answers = await backend.score(asked)
    assert len(answers) == len(asked)
    assert all(isinstance(each, TokenLogprobs) for each in answers), answers
    return [each for each in answers if isinstance(each, TokenLogprobs)]


def probabilities(reply: TokenLogprobs) -> tuple[float, ...]:
    outcome = STRATEGY.grade(reply)
    assert isinstance(outcome, Graded), outcome
    return outcome.probabilities


def distance(one: list[tuple[float, ...]], other: list[tuple[float, ...]]) -> float:
    """Summed absolute difference of probability."""
    return sum(abs(p - q) for a, b in zip(one, other, strict=True) for p, q in zip(a, b, strict=True))


async def test_answers_are_log_probabilities_with_a_cost_and_a_decoding(backend: Backend) -> None:
    assert TOKEN_LOGPROBS in backend.capabilities
    for reply in await replies(backend, prompts()[:2]):
        masses = [math.exp(logprob) for _, logprob in reply.tokens]
        assert 0.0 < sum(masses) <= 1.0 + 1e-3
        assert masses == sorted(masses, reverse=True)
        assert reply.prompt_tokens > 0
        assert reply.decoding == backend.decodings[0]


async def test_a_batch_answers_as_its_prompts_one_by_one_in_another_order(backend: Backend) -> None:
    asked = prompts()
    together = [probabilities(each) for each in await replies(backend, asked)]
    alone = [probabilities((await replies(backend, [prompt]))[0]) for prompt in reversed(asked)][::-1]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=TOLERANCE)
    own = distance(together, alone)
    assert all(own < distance(together, alone[n:] + alone[:n]) for n in range(1, len(alone))), "answers changed places"


async def test_an_empty_batch_has_an_empty_answer(backend: Backend) -> None:
    assert await backend.score([]) == []


@pytest.mark.parametrize("backend", ["llamacpp", "openai"], indirect=True)  # the double has no context to exceed
async def test_a_passage_beyond_the_context_is_too_long_and_its_neighbours_are_judged(backend: Backend) -> None:
    long, short = (STRATEGY.prompt(QUERY, passage(text)) for text in ("word " * 3000, LOCK))
    first, second = await backend.score([long, short])
    assert isinstance(first, Oversized), first
    assert "context" in str(first)
    assert not isinstance(second, QrelayError)


async def test_unusual_text_is_judged_like_any_other(backend: Backend) -> None:
    texts = ["null \x00 byte", "lone surrogate \ud800", "emoji 🙂 日本語", "<|im_end|>"]
    await replies(backend, [STRATEGY.prompt(QUERY, passage(text)) for text in texts])


async def test_a_control_token_in_a_passage_is_read_as_text(small_backend: LlamaCppBackend) -> None:
    plain, attack = ("a b c " * 5, "<|im_end|> " * 5)
    sizes = [reply.prompt_tokens for reply in await replies(
        small_backend, [STRATEGY.prompt(QUERY, passage(text)) for text in (plain, attack)]
    )]  # fmt: skip
    assert sizes[1] - sizes[0] >= 5, "a control token is one token, its text several"


async def test_prefix_reuse_does_not_change_a_grade(small_backend: LlamaCppBackend) -> None:
    cached = [probabilities(each) for each in await replies(small_backend, prompts()[:3])]
    small_backend._prefix_cache = False
    try:
        fresh = [probabilities(each) for each in await replies(small_backend, prompts()[:3])]
    finally:
        small_backend._prefix_cache = True
    for one, other in zip(cached, fresh, strict=True):
        assert one == pytest.approx(other, abs=TOLERANCE)


def test_a_file_that_is_no_model_is_a_clear_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"GGUF but not really")
    with pytest.raises(ModelError, match=r"broken\.gguf.*check that it is a GGUF"):
        LlamaCppBackend(broken, Weights("m", "r", "q"))


@pytest.mark.parametrize("strategy", ["binary", "graded"])
async def test_a_real_judge_prefers_the_passage_that_answers(half_billion: LlamaCppBackend, strategy: str) -> None:
    judge = make_judge(half_billion, strategy=strategy, scale="1-4")
    judged = await judge_one(judge, candidate_set(COPYTREE, COOKING))
    answer, cooking = (each.outcome for each in judged.judgments)
    assert isinstance(answer, Graded)
    assert isinstance(cooking, Graded)
    assert answer.expected_relevance > cooking.expected_relevance

"""The contract of every backend: the double, llama.cpp, PyTorch, a real HTTP endpoint, and vLLM where installed."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from qrelay.errors import ConfigError, ModelError, Oversized, QrelayError
from qrelay.http.connection import Limits
from qrelay.judging.engines import make_backend
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies import make_strategy
from qrelay.llm.base import Backend, Weights
from qrelay.llm.exchange import (
    GENERATION,
    PROMPT_LOGPROBS,
    TOKEN_LOGPROBS,
    Chat,
    Continuation,
    Prompt,
    Reply,
    TargetLogprobs,
    TokenLogprobs,
)
from qrelay.llm.fake import FakeBackend
from qrelay.llm.llamacpp import LlamaCppBackend
from qrelay.llm.openai import OpenAIBackend
from qrelay.types import Graded
from tests.judging.samples import COOKING, COPYTREE, LOCK, QUERY, candidate_set, judge_one, make_judge, passage

TOLERANCE = 4e-2
"""Of probability: a prefix read in another batch moves the logits of a 4-bit model; 0.008 to 0.019 were seen here
on different processors with the 135M one, whose logits move most."""
NATS = 0.15
"""The same of a log-probability: PyTorch in float32 moves by 1e-4, vLLM in bfloat16 by some hundredths."""
STRATEGY = make_strategy("graded", "0-3", min_mass=0.0)
ENGINES = {"llamacpp": "small_backend", "transformers": "small_transformers", "openvino": "small_openvino",
           "vllm": "small_vllm"}  # fmt: skip
"""The fixture of each engine, shared by all tests of a run."""
VLLM = ["vllm"] if importlib.util.find_spec("vllm") else []
REAL = ["llamacpp", "transformers", "openvino", "openai", *VLLM]
TALKERS = ["fake", "llamacpp", "transformers", "openai", *VLLM]
"""Those that reply in words."""
READERS = ["fake", "transformers", "openvino", *VLLM]
"""Those that give log-probabilities of a prompt; an endpoint's: tests/llm/test_endpoint.py."""
CHAT = Chat((("system", "You answer in one sentence."), ("user", "What is the capital of France?")), 16)


@pytest.fixture(params=["fake", *REAL])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    if request.param in ENGINES:
        yield request.getfixturevalue(ENGINES[request.param])
        return
    made: Backend = FakeBackend()
    if request.param == "openai":
        made = OpenAIBackend(request.getfixturevalue("real_endpoint"), Weights("m", "r", "q"), limits=Limits(60))
    yield made
    made.close()


def prompts() -> list[Prompt]:
    queries = [QUERY, "What is a lock?"]
    return [STRATEGY.prompt(query, passage(text)) for query in queries for text in (COPYTREE, LOCK, COOKING)]


def continuations() -> list[Continuation]:
    """How likely each passage makes the query; the two match at (0, 0) only."""
    return [Continuation(f"{text}\nQuestion: ", QUERY, QUERY, text) for text in (COPYTREE, LOCK, COOKING)]


async def replies(backend: Backend, asked: list[Prompt]) -> list[TokenLogprobs]:
    answers = await backend.score(asked)
    assert len(answers) == len(asked)
    assert all(isinstance(each, TokenLogprobs) for each in answers), answers
    return [each for each in answers if isinstance(each, TokenLogprobs)]


async def likelihoods(backend: Backend, asked: list[Continuation]) -> list[TargetLogprobs]:
    answers = await backend.loglikelihood(asked)
    assert len(answers) == len(asked)
    assert all(isinstance(each, TargetLogprobs) for each in answers), answers
    return [each for each in answers if isinstance(each, TargetLogprobs)]


async def texts(backend: Backend, asked: list[Chat]) -> list[str]:
    answers = await backend.generate(asked)
    assert len(answers) == len(asked)
    assert all(isinstance(each, Reply) for each in answers), answers
    return [each.text for each in answers if isinstance(each, Reply)]


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
        assert reply.decoding == backend.decodings(TOKEN_LOGPROBS)[0]


async def test_every_capability_and_no_other_has_a_decoding_of_its_own(backend: Backend) -> None:
    kinds = {TOKEN_LOGPROBS, PROMPT_LOGPROBS, GENERATION}
    assert {kind for kind in kinds if backend.decodings(kind)} == backend.capabilities & kinds


async def test_a_batch_answers_as_its_prompts_one_by_one_in_another_order(backend: Backend) -> None:
    asked = prompts()
    together = [probabilities(each) for each in await replies(backend, asked)]
    alone = [probabilities((await replies(backend, [prompt]))[0]) for prompt in reversed(asked)][::-1]
    for one, other in zip(together, alone, strict=True):
        assert one == pytest.approx(other, abs=TOLERANCE)
    own = distance(together, alone)
    assert all(own < distance(together, alone[n:] + alone[:n]) for n in range(1, len(alone))), (
        "answers changed places"
    )


@pytest.mark.parametrize("backend", READERS, indirect=True)
async def test_a_batch_of_targets_is_as_likely_as_its_targets_one_by_one_in_another_order(backend: Backend) -> None:
    asked = continuations()
    together = await likelihoods(backend, asked)
    alone = [(await likelihoods(backend, [each]))[0] for each in reversed(asked)][::-1]
    for one, other in zip(together, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=NATS)
        assert one.prompt_tokens == other.prompt_tokens
    matching, *unrelated = (sum(each.logprobs) for each in together)
    assert all(matching > each for each in unrelated)


@pytest.mark.parametrize("backend", READERS, indirect=True)
async def test_a_target_is_measured_token_by_token_and_alike_after_every_context(backend: Backend) -> None:
    answers = await likelihoods(backend, [*continuations(), Continuation("", QUERY, QUERY, "")])
    assert len({len(each.logprobs) for each in answers}) == 1, "the same tokens after every context, after none too"
    for each in answers:
        assert all(math.isfinite(value) and value <= 0.0 for value in each.logprobs)
        assert each.prompt_tokens >= len(each.logprobs)
        assert each.decoding == backend.decodings(PROMPT_LOGPROBS)[0]
    assert sum(answers[0].logprobs) > sum(answers[-1].logprobs)


@pytest.mark.parametrize("backend", TALKERS, indirect=True)
async def test_a_chat_is_answered_alone_as_in_company(backend: Backend) -> None:
    other = Chat((("user", "Name a colour."),), 8)
    first, _, again = await texts(backend, [CHAT, other, CHAT])
    assert first
    assert first == again == (await texts(backend, [CHAT]))[0]
    if not isinstance(backend, FakeBackend):
        assert "Paris" in first


@pytest.mark.parametrize("backend", ["fake", "llamacpp", "transformers", *VLLM], indirect=True)
async def test_a_guided_reply_is_one_of_its_choices(backend: Backend) -> None:
    asked = (("user", "Which animal barks? Is it a cat, a dog, or a fish?"),)
    choices = ('the "cat"', "the\nfish", "ein Hündchen")
    for n in range(len(choices)):
        assert (await texts(backend, [Chat(asked, 16, choices[n:])]))[0] in choices[n:]


async def test_empty_batches_have_empty_answers(backend: Backend) -> None:
    assert await backend.score([]) == []
    assert await backend.loglikelihood([]) == []
    assert await backend.generate([]) == []


@pytest.mark.parametrize("backend", REAL, indirect=True)  # the double has no context to exceed
async def test_a_passage_beyond_the_context_is_too_long_and_its_neighbours_are_judged(backend: Backend) -> None:
    long, short = (STRATEGY.prompt(QUERY, passage(text)) for text in ("word " * 3000, LOCK))
    first, second = await backend.score([long, short])
    assert isinstance(first, Oversized), first
    assert "context" in str(first)
    assert not isinstance(second, QrelayError)


@pytest.mark.parametrize("backend", ["transformers", "openvino", *VLLM], indirect=True)
async def test_a_context_beyond_the_limit_is_too_long_and_its_neighbours_are_measured(backend: Backend) -> None:
    first, second = await backend.loglikelihood([Continuation("word " * 3000, QUERY), continuations()[0]])
    assert isinstance(first, Oversized), first
    assert not isinstance(second, QrelayError)


@pytest.mark.parametrize("backend", ["transformers", *VLLM], indirect=True)
async def test_a_chat_beyond_the_limit_is_too_long(backend: Backend) -> None:
    (reply,) = await backend.generate([Chat((("user", "word " * 3000),), 4)])
    assert isinstance(reply, Oversized), reply


async def test_unusual_text_is_judged_like_any_other(backend: Backend) -> None:
    unusual = ["null \x00 byte", "lone surrogate \ud800", "emoji 🙂 日本語", "<|im_end|>"]
    await replies(backend, [STRATEGY.prompt(QUERY, passage(text)) for text in unusual])
    if PROMPT_LOGPROBS in backend.capabilities:
        await likelihoods(backend, [Continuation(text, "日本語 \ud800", "q", text) for text in unusual])


@pytest.mark.parametrize("backend", ["llamacpp", "transformers", "openvino"], indirect=True)
async def test_a_control_token_in_a_passage_is_read_as_text(backend: Backend) -> None:
    plain, attack = ("a b c " * 5, "<|im_end|> " * 5)
    sizes = [reply.prompt_tokens for reply in await replies(
        backend, [STRATEGY.prompt(QUERY, passage(text)) for text in (plain, attack)]
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


@pytest.mark.parametrize(
    ("settings", "needs", "remedy"),
    [
        (
            {"backend": "openai", "endpoint": {"url": "https://h/v1", "prompt_logprobs": "off"}},
            PROMPT_LOGPROBS,
            "endpoint.prompt_logprobs",
        ),
        ({"backend": "fake"}, "telepathy", "another judge.backend"),
    ],
    ids=["openai", "fake"],
)
def test_what_a_backend_lacks_is_refused_at_start(settings: dict[str, object], needs: str, remedy: str) -> None:
    with pytest.raises(ConfigError, match=f"needs {needs}.*{remedy}"):
        make_backend(JudgeSettings.model_validate(settings), needs=frozenset({needs}))


async def test_what_a_backend_lacks_is_an_error_when_asked_all_the_same(small_backend: LlamaCppBackend) -> None:
    (answer,) = await small_backend.loglikelihood(continuations()[:1])
    assert isinstance(answer, ConfigError)


@pytest.mark.parametrize("strategy", ["binary", "graded"])
async def test_a_real_judge_prefers_the_passage_that_answers(half_billion: LlamaCppBackend, strategy: str) -> None:
    judge = make_judge(half_billion, strategy=strategy, scale="1-4")
    judged = await judge_one(judge, candidate_set(COPYTREE, COOKING))
    answer, cooking = (each.outcome for each in judged.judgments)
    assert isinstance(answer, Graded)
    assert isinstance(cooking, Graded)
    assert answer.expected_relevance > cooking.expected_relevance

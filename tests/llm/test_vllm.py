"""The backend `vllm` beyond the contract of tests/llm/test_backends.py, and what it says where vLLM is not."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path

import pytest

from qrelay.errors import ModelError
from qrelay.judging.strategies import make_strategy
from qrelay.llm.base import Weights
from qrelay.llm.exchange import Continuation, TargetLogprobs, TokenLogprobs
from qrelay.llm.transformers import TransformersBackend
from qrelay.llm.vllm import VllmBackend
from tests.judging.samples import COOKING, COPYTREE, LOCK, QUERY, passage

INSTALLED = importlib.util.find_spec("vllm") is not None
STRATEGY = make_strategy("graded", "0-3", min_mass=0.0)


@pytest.mark.skipif(INSTALLED, reason="vLLM is installed")
def test_without_vllm_the_error_says_how_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"qrelay\[judge-vllm\].*make test-vllm"):
        VllmBackend(tmp_path, Weights("m", "r", "q"))


if INSTALLED:

    async def test_targets_are_as_likely_as_in_float32(
        small_vllm: VllmBackend, small_transformers: TransformersBackend
    ) -> None:
        asked = [Continuation(f"{text}\nQuestion: ", QUERY) for text in (COPYTREE, LOCK, COOKING, "")]
        asked.append(Continuation("", QUERY))
        for one, other in zip(
            await small_vllm.loglikelihood(asked), await small_transformers.loglikelihood(asked), strict=True
        ):
            assert isinstance(one, TargetLogprobs), one
            assert isinstance(other, TargetLogprobs), other
            assert one.prompt_tokens == other.prompt_tokens
            assert one.logprobs == pytest.approx(other.logprobs, abs=0.25)
            assert sum(one.logprobs) == pytest.approx(sum(other.logprobs), abs=0.5)

    async def test_a_cancelled_call_is_aborted_and_the_next_one_is_answered(small_vllm: VllmBackend) -> None:
        many = [STRATEGY.prompt(f"{n} {QUERY}", passage(COPYTREE)) for n in range(400)]
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(small_vllm.score(many), 0.5)
        (answer,) = await small_vllm.score(many[:1])
        assert isinstance(answer, TokenLogprobs)

    async def test_it_answers_from_any_event_loop(small_vllm: VllmBackend) -> None:
        (answer,) = await asyncio.to_thread(
            lambda: asyncio.run(small_vllm.score([STRATEGY.prompt(QUERY, passage(LOCK))]))
        )
        assert isinstance(answer, TokenLogprobs)

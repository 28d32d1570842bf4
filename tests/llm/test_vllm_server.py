"""The backend `openai` with vLLM's own server, on the CPU (`make test-vllm`): as exact as an engine here."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from qrelay.errors import Oversized, QrelayError
from qrelay.http.connection import Limits
from qrelay.http.pacing import Policy
from qrelay.judging.strategies import make_strategy
from qrelay.judging.strategies.chat import ChatGrade
from qrelay.llm.base import Backend, Weights
from qrelay.llm.exchange import PROMPT_LOGPROBS, TOKEN_LOGPROBS, Continuation, TargetLogprobs, TokenLogprobs
from qrelay.llm.openai import OpenAIBackend
from qrelay.llm.transformers import TransformersBackend
from qrelay.llm.ways import AUTO, ECHO, SHARES, TOKEN_IDS
from qrelay.llm.weights_folder import weights_folder
from qrelay.types import Graded
from tests.judging.samples import COOKING, COPYTREE, LOCK, QUERY, candidate_set, judge_one, make_judge, passage
from tests.llm.engines import CONTEXT_TOKENS, small_model
from tests.llm.test_backends import TOLERANCE

PATIENT_S = 600.0
"""For a processor that others use too."""
ATTEMPTS = 3600
"""Of a second, to reach a server that is alive and starts."""
TEXTS = (COPYTREE, LOCK, COOKING)
pytestmark = pytest.mark.timeout(2 * ATTEMPTS)

if importlib.util.find_spec("vllm"):

    @pytest.fixture(scope="module")
    def server() -> Iterator[str]:
        """The base URL of vLLM's server with the 135M model in float32, the dtype that it is compared in."""
        model = small_model()
        folder = weights_folder(model.path, model.revision, "float32")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        options = {
            "--model": folder, "--served-model-name": "m", "--dtype": "float32", "--host": "127.0.0.1",
            "--port": port, "--max-model-len": CONTEXT_TOKENS, "--max-num-seqs": 8, "--generation-config": "vllm",
            "--kv-cache-memory-bytes": 500_000_000,
        }  # fmt: skip
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--enforce-eager"]
        command += [str(word) for option in options.items() for word in option]
        environment = {**os.environ, "VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
        with tempfile.TemporaryFile() as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
            try:
                _await(process, f"http://127.0.0.1:{port}/version", log)
                yield f"http://127.0.0.1:{port}/v1"
            finally:
                process.terminate()
                process.wait()

    def _await(process: subprocess.Popen[bytes], url: str, log: Any) -> None:
        for _ in range(ATTEMPTS):
            try:
                urllib.request.urlopen(url, timeout=1).close()
            except OSError:
                time.sleep(1)
            else:
                return
            if process.poll() is not None:
                break
        log.seek(0)
        pytest.fail(f"vLLM's server did not start: {log.read()[-3000:].decode(errors='replace')}")

    def at(url: str, **ways: str) -> OpenAIBackend:
        policy, limits = Policy(total_timeout_s=PATIENT_S), Limits(PATIENT_S)
        return OpenAIBackend(url, Weights("m", "rev", "q"), policy=policy, limits=limits, **ways)  # type: ignore[arg-type]

    async def shares(backend: Backend, strategy: ChatGrade) -> list[tuple[float, ...]]:
        answers = await backend.score([strategy.prompt(QUERY, passage(text)) for text in TEXTS])
        outcomes = [strategy.grade(each) for each in answers if isinstance(each, TokenLogprobs)]
        found = [each.probabilities for each in outcomes if isinstance(each, Graded)]
        assert len(found) == len(TEXTS), answers
        return found

    async def test_its_abilities_are_found_out(server: str) -> None:
        asked = at(server, label_logprobs=AUTO, prompt_logprobs=AUTO)
        await asyncio.to_thread(asked.learn, frozenset({TOKEN_LOGPROBS, PROMPT_LOGPROBS}))
        assert "logprob_token_ids" in asked.decodings(TOKEN_LOGPROBS)[0], asked.notes
        assert "token_ids" in asked.decodings(PROMPT_LOGPROBS)[0], asked.notes

    @pytest.mark.parametrize("way", [TOKEN_IDS, SHARES])
    @pytest.mark.parametrize(("name", "scale"), [("graded", "0-3"), ("binary", "0-1")])
    async def test_labels_are_as_likely_as_in_this_process(
        server: str, small_transformers: TransformersBackend, way: str, name: str, scale: str
    ) -> None:
        strategy = make_strategy(name, scale, min_mass=0.0)
        here = await shares(small_transformers, strategy)
        there = await shares(at(server, label_logprobs=way), strategy)
        for one, other in zip(here, there, strict=True):
            assert other == pytest.approx(one, abs=TOLERANCE)

    @pytest.mark.parametrize("way", [TOKEN_IDS, ECHO])
    async def test_queries_are_as_likely_as_in_this_process(
        server: str, small_transformers: TransformersBackend, way: str
    ) -> None:
        judges = [
            make_judge(backend, strategy="query_likelihood")
            for backend in (small_transformers, at(server, prompt_logprobs=way))
        ]
        here, there = [(await judge_one(judge, candidate_set(*TEXTS))).judgments for judge in judges]
        for one, other in zip(here, there, strict=True):
            assert isinstance(one.outcome, Graded)
            assert isinstance(other.outcome, Graded), other
            assert other.outcome.probabilities == pytest.approx(one.outcome.probabilities, abs=TOLERANCE)
            assert other.prompt_tokens == one.prompt_tokens

    async def test_a_target_has_the_same_tokens_where_a_text_would_join_it_to_its_context(
        server: str, small_transformers: TransformersBackend
    ) -> None:
        asked = [Continuation("The library that sorts is called num", "pyramids")]
        (one,) = await small_transformers.loglikelihood(asked)
        (other,) = await at(server, prompt_logprobs=TOKEN_IDS).loglikelihood(asked)
        assert isinstance(one, TargetLogprobs)
        assert isinstance(other, TargetLogprobs), other
        assert other.logprobs == pytest.approx(one.logprobs, abs=TOLERANCE)

    @pytest.mark.parametrize("way", [TOKEN_IDS, SHARES])
    async def test_a_passage_beyond_the_context_is_too_long_and_its_neighbours_are_judged(
        server: str, way: str
    ) -> None:
        strategy = make_strategy("graded", "0-3", min_mass=0.0)
        asked = [strategy.prompt(QUERY, passage(text)) for text in ("word " * 3000, LOCK)]
        long, short = await at(server, label_logprobs=way).score(asked)
        assert isinstance(long, Oversized), long
        assert not isinstance(short, QrelayError), short

    async def test_unusual_text_is_read_like_any_other(server: str) -> None:
        asked = at(server, label_logprobs=TOKEN_IDS, prompt_logprobs=TOKEN_IDS)
        unusual = ["null \x00 byte", "lone surrogate \ud800", "emoji 🙂 日本語", "<|im_end|>"]
        strategy = make_strategy("graded", "0-3", min_mass=0.0)
        answers: list[Any] = await asked.score([strategy.prompt(QUERY, passage(text)) for text in unusual])
        answers += await asked.loglikelihood([Continuation(text, "日本語 \ud800") for text in unusual])
        assert not [each for each in answers if isinstance(each, QrelayError)]

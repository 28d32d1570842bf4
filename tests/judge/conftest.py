"""Fixtures of the judge's tests: real small models, and a real HTTP endpoint (llama.cpp's own server)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import ModelError
from qrelay.models.catalogue import resolve
from services.judge.backends.base import Weights
from services.judge.backends.llamacpp import LlamaCppBackend
from tests.judge.endpoint import ScriptedEndpoint

CONTEXT_TOKENS = 1024


def model_path(name: str) -> Path:
    """Where the catalogue's model is; fails, saying what to do, when it is not there."""
    try:
        return resolve(name).path
    except ModelError as error:
        pytest.fail(f"run `make setup`: {error}")


@pytest.fixture(scope="session")
def small_backend() -> Iterator[LlamaCppBackend]:
    """A real llama.cpp with the 135M model."""
    weights = Weights("smollm2-135m-instruct", "test", "q4_1")
    backend = LlamaCppBackend(model_path(weights.model), weights, context_tokens=CONTEXT_TOKENS, threads=2)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def half_billion() -> Iterator[LlamaCppBackend]:
    """A real llama.cpp with the 0.5B model."""
    weights = Weights("qwen2.5-coder-0.5b-instruct", "test", "q4")
    backend = LlamaCppBackend(model_path(weights.model), weights, context_tokens=CONTEXT_TOKENS, threads=2)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def real_endpoint() -> Iterator[str]:
    """The base URL of llama.cpp's own OpenAI-compatible server with the 135M model."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model_path("smollm2-135m-instruct"))
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 2
    server: Any = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    """A real HTTP server that answers as the test says."""
    with ScriptedEndpoint() as running:
        yield running

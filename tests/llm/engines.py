"""Fixtures of the judge's tests: real small models in every engine, and a real HTTP endpoint (llama.cpp's own)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import ModelError
from qrelay.llm.base import Weights
from qrelay.llm.llamacpp import LlamaCppBackend
from qrelay.llm.openvino import OpenVinoBackend
from qrelay.llm.transformers import TransformersBackend
from qrelay.llm.vllm import VllmBackend
from qrelay.models.catalogue import resolve
from qrelay.models.records import ResolvedModel
from tests.llm.endpoint import ScriptedEndpoint

CONTEXT_TOKENS = 1024
THREADS = 1
"""A model. Two would spin in each other's way beside the other processes of the suite, and a number of threads that
torch was told stays for all later tests of the process."""
SMALL = "smollm2-135m-instruct"


def model_path(name: str) -> Path:
    """Where the catalogue's model is; fails, saying what to do, when it is not there."""
    try:
        return resolve(name).path
    except ModelError as error:
        pytest.fail(f"run `make models`: {error}")


def small_model() -> ResolvedModel:
    """The 135M model."""
    model_path(SMALL)
    return resolve(SMALL)


@pytest.fixture(scope="session")
def small_backend() -> Iterator[LlamaCppBackend]:
    """A real llama.cpp with the 135M model."""
    weights = Weights(SMALL, "test", "q4_1")
    backend = LlamaCppBackend(model_path(weights.model), weights, context_tokens=CONTEXT_TOKENS, threads=THREADS)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def small_transformers() -> Iterator[TransformersBackend]:
    """PyTorch in float32 with the 135M model; its GGUF is converted once, to the model home."""
    model = small_model()
    weights = Weights(model.name, model.revision, "q4_1")
    backend = TransformersBackend(
        model.path, weights, dtype="float32", context_tokens=CONTEXT_TOKENS, threads=THREADS
    )
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def small_openvino() -> Iterator[OpenVinoBackend]:
    """OpenVINO in 8 bits with the 135M model; converted once, to the model home."""
    model = small_model()
    weights = Weights(model.name, model.revision, "q4_1")
    backend = OpenVinoBackend(model.path, weights, context_tokens=CONTEXT_TOKENS, threads=THREADS)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def small_vllm() -> Iterator[VllmBackend]:
    """vLLM's engine with the 135M model; only where vLLM is installed (`make test-vllm`)."""
    model = small_model()
    weights = Weights(model.name, model.revision, "q4_1")
    backend = VllmBackend(model.path, weights, context_tokens=CONTEXT_TOKENS, max_sequences=8, kv_cache_gib=0.5)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def half_billion() -> Iterator[LlamaCppBackend]:
    """A real llama.cpp with the 0.5B model."""
    weights = Weights("qwen2.5-coder-0.5b-instruct", "test", "q4")
    backend = LlamaCppBackend(model_path(weights.model), weights, context_tokens=CONTEXT_TOKENS, threads=THREADS)
    yield backend
    backend.close()


@pytest.fixture(scope="session")
def real_endpoint() -> Iterator[str]:
    """The base URL of llama.cpp's own OpenAI-compatible server with the 135M model."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(model_path(SMALL))
    params.n_ctx = CONTEXT_TOKENS
    params.n_parallel = 1
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = THREADS
    server: Any = xllamacpp.Server(params)
    yield f"{server.listening_address}/v1"
    del server


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    """A real HTTP server that answers as the test says."""
    with ScriptedEndpoint() as running:
        yield running

"""Engines that answer prompts (see `base.Backend`), and the table that makes one from the settings."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal

from qrelay import simulated
from qrelay.errors import ConfigError
from qrelay.holds import utc_now
from qrelay.judging.cache_records import NO_CACHE
from qrelay.judging.settings import JudgeSettings
from qrelay.llm.base import Backend, Weights
from qrelay.llm.exchange import GENERATION, PROMPT_LOGPROBS
from qrelay.llm.ways import ECHO, OFF, TOP, Notebook

Batches = Literal["read", "drive", "submit"]
"""What `openai-batch` does with a request that has no answer yet: says so; writes it down, and a thread takes it to
the endpoint; writes it down, and whoever called ticks the driver."""


def make_backend(
    settings: JudgeSettings,
    *,
    needs: frozenset[str],
    notebook: Notebook | None = None,
    batches: Batches = "read",
) -> Backend:
    """The engine that the settings name, loaded. notebook: where is written down how an endpoint is asked.

    Raises:
        ModelError: the model is absent, altered or not loadable, or its engine is not installed.
        ConfigError: the API key is not set, or the engine lacks one of `needs`.
    """
    if settings.backend == "openai":
        backend = _openai(settings, notebook)
    elif settings.backend == "openai-batch":
        backend = _openai_batch(settings, batches)
    elif settings.backend == "embedder":
        backend = _embedder(settings)
    elif settings.backend == "cross-encoder":
        backend = _cross_encoder(settings)
    else:
        backend = _fake(settings) if settings.backend == "fake" else _in_process(settings)
    try:
        refuse_lacking(backend, settings, needs)
    except ConfigError:
        backend.close()
        raise
    return backend


_WORDLESS: Final = ("openvino", "embedder", "cross-encoder")
"""Engines that write nothing."""


def chat_engine(settings: JudgeSettings) -> Backend:
    """The engine, for replies in words. Raises ModelError, or ConfigError where it cannot write any."""
    if settings.backend in _WORDLESS:
        raise ConfigError(
            f"the backend {settings.backend} measures and writes nothing, whatever the model: give --backend "
            "llamacpp (or transformers, vllm, openai), or set judge.backend"
        )
    backend = make_backend(settings, needs=frozenset())
    if GENERATION not in backend.capabilities:
        backend.close()
        remedy = _remedy(settings.backend, frozenset({GENERATION}))
        raise ConfigError(f"{settings.model} with the backend {settings.backend} replies in no words: {remedy}")
    return backend


def check_backend(settings: JudgeSettings) -> None:
    """What can be said of the engine without loading it. Raises as `make_backend`."""
    if settings.backend in ("openai", "openai-batch"):
        settings.endpoint.api_key("judge.endpoint")
    elif settings.backend != "fake":
        from qrelay.models.catalogue import resolve

        resolve(settings.model)


def refuse_lacking(backend: Backend, settings: JudgeSettings, needs: frozenset[str]) -> None:
    """Raises ConfigError where the engine, as it knows itself or finds out now, lacks one of `needs`, saying which
    and what to do."""
    backend.learn(needs)
    lacking = needs - backend.capabilities
    if lacking:
        raise ConfigError(
            f"{settings.asked} needs {', '.join(sorted(lacking))}, which the backend "
            f"{settings.backend} does not give: {_remedy(settings.backend, lacking)}"
        )


def _remedy(backend: str, lacking: frozenset[str]) -> str:
    if backend in ("openai", "openai-batch") and PROMPT_LOGPROBS in lacking:
        return (
            "set judge.endpoint.prompt_logprobs to the way in which the endpoint gives them, if it does "
            "(docs/judge.md), or choose another judge.backend"
        )
    if backend == "openvino" and lacking == {GENERATION}:
        return (
            "it measures and writes nothing, whatever the model (not even an answer where a query has no reference "
            "answers): choose judge.backend transformers, vllm or openai, or another judge.strategy"
        )
    if backend in ("transformers", "openvino", "vllm") and PROMPT_LOGPROBS not in lacking:
        return "the model has no chat template: choose an instruct model, or another judge.strategy"
    return "choose another judge.backend or judge.strategy"


def _in_process(settings: JudgeSettings) -> Backend:
    """An engine that computes with a model of this machine. Its section of the settings holds its keywords."""
    from qrelay.models.catalogue import resolve

    model = resolve(settings.model)
    weights = Weights(model.name, model.revision, model.quantisation)
    keywords = getattr(settings, settings.backend).model_dump()
    if settings.backend in _COPIES:
        keywords["smaller"] = _smaller(settings.model)
    return engine_class(settings.backend)(model.path, weights, **keywords)


def engine_class(backend: str) -> Callable[..., Backend]:
    """The class of an engine that computes here, imported now: none is needed beside the one that is set."""
    if backend == "llamacpp":
        from qrelay.llm.llamacpp import LlamaCppBackend

        return LlamaCppBackend
    if backend == "openvino":
        from qrelay.llm.openvino import OpenVinoBackend

        return OpenVinoBackend
    if backend == "vllm":
        from qrelay.llm.vllm import VllmBackend

        return VllmBackend
    from qrelay.llm.transformers import TransformersBackend

    return TransformersBackend


def _smaller(model: str) -> str:
    """What to do where this model has no room: the catalogue's next smaller judge, if there is one."""
    from qrelay.models.catalogue import load_catalogue, smaller_judge

    entry = smaller_judge(model, load_catalogue())
    return f"set judge.model to {entry.name}" if entry else ""


def _openai(settings: JudgeSettings, notebook: Notebook | None) -> Backend:
    from qrelay.llm.openai import OpenAIBackend

    return OpenAIBackend(**_asks(settings), notebook=notebook)


def _asks(settings: JudgeSettings) -> dict[str, Any]:
    """The keywords of an endpoint's backend."""
    own = settings.endpoint
    return {
        "url": own.url,
        "weights": Weights(settings.model, own.revision or own.url.rstrip("/"), own.quantisation),
        "api_key": own.api_key("judge.endpoint"),
        "policy": own.policy(),
        "limits": own.limits(),
        "extra_body": own.extra_body,
        "parameter_names": own.parameter_names,
        "top_logprobs": own.top_logprobs,
        "accept_text": own.accept_text,
        "label_logprobs": own.label_logprobs,
        "prompt_logprobs": own.prompt_logprobs,
        "chat": own.chat,
    }


def _openai_batch(settings: JudgeSettings, batches: Batches) -> Backend:
    from qrelay.judging.batches.budget import BatchBudget
    from qrelay.judging.batches.store import SqlBatches
    from qrelay.llm.batch.backend import OpenAIBatchBackend

    if settings.cache_path == NO_CACHE:
        raise ConfigError("backend openai-batch answers hours later: use backend openai here")
    own = settings.endpoint
    prompts = ECHO if own.prompt_logprobs == ECHO else OFF
    asks = _asks(settings) | {"label_logprobs": TOP, "prompt_logprobs": prompts}  # nothing is found out by asking
    store = SqlBatches(settings.cache_path)
    price = settings.budget.price_per_million_tokens * own.batch.price_factor
    budget = settings.budget.model_copy(update={"price_per_million_tokens": price})
    return OpenAIBatchBackend(
        **asks,
        account=f"{own.url.rstrip('/')}#{own.api_key_env or own.api_key_file or ''}",
        store=store,
        batch=own.batch.limits(own.max_reply_bytes),
        budget=BatchBudget(budget, store, clock=utc_now),
        transfer_s=own.batch.transfer_timeout_s,
        most_output_bytes=own.batch.max_output_bytes,
        orders=batches != "read",
        threaded=batches == "drive",
    )


def _embedder(settings: JudgeSettings) -> Backend:
    from qrelay.llm.embedder import EmbedderBackend
    from qrelay.models.embedder import load_embedder

    return EmbedderBackend(load_embedder(settings.model, **settings.embedder.model_dump()))


def _cross_encoder(settings: JudgeSettings) -> Backend:
    from qrelay.llm.cross_encoder import CrossEncoderBackend
    from qrelay.models.catalogue import resolve

    return CrossEncoderBackend(resolve(settings.model), **settings.cross_encoder.model_dump())


def _fake(settings: JudgeSettings) -> Backend:
    from qrelay.llm.fake import FakeBackend

    simulated.load(settings.fake.load_steps, settings.fake.load_step_s)
    return FakeBackend(settings.fake.failure_rate, settings.fake.service_time_s)


def needed_models(settings: JudgeSettings) -> list[str]:
    """Names of the models of every judge that computes on this machine."""
    own = (each for each in settings.members().values() if each.backend not in ("openai", "openai-batch", "fake"))
    return list(dict.fromkeys(each.model for each in own))


def prepare_models(settings: JudgeSettings) -> None:
    """Make the copies that the judges' engines read, where they are absent.

    Raises:
        ModelError: a model is absent, altered or not convertible, or memory or disk are too small.
    """
    for each in settings.members().values():
        if each.backend in _COPIES:
            _COPIES[each.backend](each)


def _unpacked(settings: JudgeSettings) -> None:
    from qrelay.llm.transformers import arithmetic
    from qrelay.llm.weights_folder import weights_folder
    from qrelay.models.catalogue import resolve

    model, own = resolve(settings.model), settings.transformers
    _, dtype = arithmetic(own.device, own.dtype)
    weights_folder(model.path, model.revision, dtype, smaller=_smaller(settings.model))


def _in_8_bits(settings: JudgeSettings) -> None:
    from qrelay.llm.openvino_model import openvino_folder
    from qrelay.models.catalogue import resolve

    model = resolve(settings.model)
    openvino_folder(model.path, model.revision, smaller=_smaller(settings.model))


_COPIES: dict[str, Callable[[JudgeSettings], None]] = {"transformers": _unpacked, "openvino": _in_8_bits}
"""Backends that read a copy of their model: how it is made. vLLM makes its own at its start."""

"""Engines that answer prompts (see `base.Backend`), and the table that makes one from the settings."""

from __future__ import annotations

import os
from collections.abc import Callable

from qrelay.errors import ConfigError
from services.judge.backends.base import Backend, Weights
from services.judge.settings import JudgeSettings


def make_backend(settings: JudgeSettings, *, needs: frozenset[str]) -> Backend:
    """The engine that the settings name, loaded.

    Raises:
        ModelError: the model is absent, altered or not loadable.
        ConfigError: the API key is not set, or the engine lacks one of `needs`.
    """
    backend = _MAKERS[settings.backend](settings)
    lacking = needs - backend.capabilities
    if lacking:
        backend.close()
        raise ConfigError(
            f"the strategy {settings.strategy} needs {', '.join(sorted(lacking))}, which the backend "
            f"{settings.backend} does not give: choose another judge.backend or judge.strategy"
        )
    return backend


def _llamacpp(settings: JudgeSettings) -> Backend:
    from qrelay.models.catalogue import resolve
    from services.judge.backends.llamacpp import LlamaCppBackend

    model = resolve(settings.model)
    own = settings.llamacpp
    return LlamaCppBackend(
        model.path,
        Weights(model.name, model.revision, model.quantisation),
        context_tokens=own.context_tokens,
        threads=own.threads,
        parallel=own.parallel,
        gpu_layers=own.gpu_layers,
    )


def _openai(settings: JudgeSettings) -> Backend:
    from services.judge.backends.openai import OpenAIBackend
    from services.judge.backends.pacing import Policy

    own = settings.endpoint
    api_key = os.environ.get(own.api_key_env, "") if own.api_key_env else ""
    if own.api_key_env and not api_key:
        raise ConfigError(f"judge.endpoint.api_key_env names {own.api_key_env}, which is not set: export it")
    return OpenAIBackend(
        own.url,
        Weights(settings.model, own.revision or own.url.rstrip("/"), own.quantisation),
        api_key=api_key,
        policy=Policy(
            concurrency=own.concurrency,
            max_retries=own.max_retries,
            retry_base_s=own.retry_base_s,
            total_timeout_s=own.total_timeout_s,
            breaker_failures=own.breaker_failures,
            breaker_s=own.breaker_s,
        ),
        request_timeout_s=own.request_timeout_s,
        extra_body=own.extra_body,
        accept_text=own.accept_text,
    )


def _fake(settings: JudgeSettings) -> Backend:
    from services.judge.backends.fake import FakeBackend

    return FakeBackend(settings.fake.failure_rate)


_MAKERS: dict[str, Callable[[JudgeSettings], Backend]] = {"llamacpp": _llamacpp, "openai": _openai, "fake": _fake}

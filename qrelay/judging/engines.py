"""Engines that answer prompts (see `base.Backend`), and the table that makes one from the settings."""

from __future__ import annotations

from collections.abc import Callable

from qrelay import simulated
from qrelay.errors import ConfigError
from qrelay.judging.settings import JudgeSettings
from qrelay.llm.base import Backend, Weights
from qrelay.llm.exchange import PROMPT_LOGPROBS
from qrelay.llm.ways import Notebook


def make_backend(settings: JudgeSettings, *, needs: frozenset[str], notebook: Notebook | None = None) -> Backend:
    """The engine that the settings name, loaded. notebook: where is written down how an endpoint is asked.

    Raises:
        ModelError: the model is absent, altered or not loadable, or its engine is not installed.
        ConfigError: the API key is not set, or the engine lacks one of `needs`.
    """
    if settings.backend == "openai":
        backend = _openai(settings, notebook)
    else:
        backend = _fake(settings) if settings.backend == "fake" else _in_process(settings)
    try:
        refuse_lacking(backend, settings, needs)
    except ConfigError:
        backend.close()
        raise
    return backend


def check_backend(settings: JudgeSettings) -> None:
    """What can be said of the engine without loading it. Raises as `make_backend`."""
    if settings.backend == "openai":
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
    if backend == "openai" and PROMPT_LOGPROBS in lacking:
        return (
            "set judge.endpoint.prompt_logprobs to the way in which the endpoint gives them, if it does "
            "(docs/judge.md), or choose another judge.backend"
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

    own = settings.endpoint
    return OpenAIBackend(
        own.url,
        Weights(settings.model, own.revision or own.url.rstrip("/"), own.quantisation),
        api_key=own.api_key("judge.endpoint"),
        policy=own.policy(),
        limits=own.limits(),
        extra_body=own.extra_body,
        parameter_names=own.parameter_names,
        top_logprobs=own.top_logprobs,
        accept_text=own.accept_text,
        label_logprobs=own.label_logprobs,
        prompt_logprobs=own.prompt_logprobs,
        notebook=notebook,
        chat=own.chat,
    )


def _fake(settings: JudgeSettings) -> Backend:
    from qrelay.llm.fake import FakeBackend

    simulated.load(settings.fake.load_steps, settings.fake.load_step_s)
    return FakeBackend(settings.fake.failure_rate, settings.fake.service_time_s)


def needed_models(settings: JudgeSettings) -> list[str]:
    """Names of the models of every judge that computes on this machine."""
    own = (each for each in settings.members().values() if each.backend not in ("openai", "fake"))
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

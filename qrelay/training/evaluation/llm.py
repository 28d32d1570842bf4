"""Language models that read and grade: the judge's backends, opened by name.

with opened(Llm("smollm2-135m-instruct"), frozenset({GENERATION})) as backend:
    asyncio.run(backend.generate(chats))
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from qrelay.errors import ConfigError

if TYPE_CHECKING:
    from qrelay.llm.base import Backend

Engine = Literal["", "llamacpp", "transformers", "vllm", "openai", "fake"]


@dataclass(frozen=True, slots=True)
class Llm:
    """model: a catalogue name, `path:FILE`, or what an endpoint calls it. engine: a backend of the judge; "": openai
    where there is a url, fake for the model `fake`, else llamacpp. url: of an OpenAI-compatible endpoint, ending in
    /v1. key_env: the environment variable with its key. settings: further fields of the engine's own settings.
    plain_hosts, insecure: which other machines the url may name by http://, as in the settings of the same names."""

    model: str
    engine: Engine = ""
    url: str = ""
    key_env: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    plain_hosts: tuple[str, ...] = ()
    insecure: bool = False

    @property
    def backend(self) -> str:
        """The engine in use."""
        return self.engine or ("openai" if self.url else "fake" if self.model == "fake" else "llamacpp")


def identity(llm: Llm) -> dict[str, str]:
    """What a report says of the model: name, revision and quantisation of local weights, the URL of an endpoint.

    Raises:
        ModelError: local weights are absent.
    """
    from qrelay.models.catalogue import resolve

    if llm.backend in ("openai", "fake"):
        return {"model": llm.model, "engine": llm.backend, **({"url": llm.url} if llm.url else {})}
    found = resolve(llm.model)
    weights = {"revision": found.revision, "quantisation": found.quantisation}
    return {"model": llm.model, "engine": llm.backend, **weights}


@contextmanager
def opened(llm: Llm, needs: frozenset[str]) -> Iterator[Backend]:
    """The model, loaded; freed at the end. needs: capabilities, constants of `qrelay.llm.exchange`.

    Raises:
        ConfigError: the engine lacks one of them, or settings that do not hold.
        ModelError: the model is absent or its engine is not installed.
    """
    from pydantic import ValidationError

    from qrelay.judging.engines import make_backend
    from qrelay.judging.settings import JudgeSettings

    given: dict[str, Any] = {"backend": llm.backend, "model": llm.model, "strategy": "graded"}
    given |= {"plain_hosts": llm.plain_hosts, "insecure": llm.insecure}
    if llm.backend == "openai":
        asks = {"label_logprobs": "top", "prompt_logprobs": "off"}  # no cache, so nowhere to write down what is found
        given["endpoint"] = {"url": llm.url, "api_key_env": llm.key_env, **asks, **llm.settings}
    elif llm.settings:
        given[llm.backend] = llm.settings
    try:
        settings = JudgeSettings(**given)
    except ValidationError as error:
        told = "; ".join(each["msg"] for each in error.errors())
        raise ConfigError(f"the model {llm.model} cannot be asked: {told}") from error
    backend = make_backend(settings, needs=needs)
    try:
        yield backend
    finally:
        backend.close()

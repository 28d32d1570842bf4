"""The judge's settings."""

from __future__ import annotations

from typing import Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from qrelay.config import Section, ServiceSettings

_OWN_PARAMETERS = frozenset(
    {"model", "messages", "max_tokens", "temperature", "logprobs", "top_logprobs", "stop", "stream", "n"}
)


_LLAMACPP_SETS: Final = 2


class EndpointSettings(Section):
    """The backend `openai`: an HTTP endpoint."""

    url: str = Field("", description="Base URL that ends in /v1, without credentials")
    api_key_env: str = Field("", description="Name of the environment variable with the API key; empty: no key")
    revision: str = Field("", description="The model's revision, part of every label's identity; empty: the URL")
    quantisation: str = Field("unknown", description="The weights' quantisation, part of every label's identity")
    concurrency: int = Field(8, ge=1, le=1024, description="Requests at once")
    request_timeout_s: float = Field(30.0, gt=0, description="Seconds of silence until a request is given up")
    total_timeout_s: float = Field(120.0, gt=0, description="Seconds for one passage, all retries and waits included")
    max_retries: int = Field(5, ge=0, description="Attempts after the first: 429, 408, 5xx, silence, no connection")
    retry_base_s: float = Field(0.5, gt=0, description="Seconds the first retry waits at most; doubles each time")
    breaker_failures: int = Field(
        8, ge=1, description="Passages failed for good in a row after which the next ones fail at once"
    )
    breaker_s: float = Field(15.0, ge=0, description="Seconds that passages fail at once before the next is tried")
    accept_text: bool = Field(
        True, description="Whether replies count where the endpoint gives no log-probabilities (strictly parsed)"
    )
    extra_body: dict[str, Any] = Field(
        {}, description="Fields added to every request, e.g. chat_template_kwargs; part of every label's identity"
    )


class LlamaCppSettings(Section):
    """The backend `llamacpp`: the embedded engine."""

    threads: int = Field(0, ge=0, description="CPU threads; 0 leaves llama.cpp's choice")
    context_tokens: int = Field(4096, ge=256, description="Tokens of one prompt; longer pairs are missing: too_long")
    parallel: int = Field(1, ge=1, le=64, description="Prompts at once; 1 is fastest on a CPU (shared prefix)")
    gpu_layers: int = Field(0, ge=-1, description="Layers on the GPU, where the engine's build has one; -1: all")


class FakeSettings(Section):
    """The backend `fake`: the double for tests and benchmarks."""

    failure_rate: float = Field(0.0, ge=0, le=1, description="Share of pairs that fail the first time, 0 to 1")


class PrefilterSettings(Section):
    """Passages that are not judged at all: missing, reason filtered."""

    min_chars: int = Field(3, ge=0, description="Characters below which a passage is not judged")
    max_chars: int = Field(0, ge=0, description="Characters above which a passage is not judged; 0: no limit")


class JudgeSettings(ServiceSettings):
    """See `qrelay config judge` for the effective values."""

    backend: Literal["llamacpp", "openai", "fake"] = Field(
        "llamacpp",
        description="Engine: embedded llama.cpp (worker.max_items is 2 then, unless set: a batch's labels go on "
        "together, and each set is a minute's work), an OpenAI-compatible endpoint, or the double",
    )
    model: str = Field(
        "qwen2.5-coder-1.5b-instruct",
        description="Catalogue name or path:FILE of a GGUF (llamacpp); the endpoint's own name for it (openai)",
    )
    strategy: Literal["binary", "graded"] = Field(
        "graded", description="binary: YES or NO. graded: a grade on `scale`"
    )
    scale: Literal["0-3", "1-4"] = Field("0-3", description="Grades of the strategy graded; binary has its own, 0-1")
    min_grade_mass: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Least probability that the grades together must hold in the first reply token; "
        "below: missing, unparseable",
    )
    cache: str = Field(
        "", description="File of the judgment cache; :none: for no cache; empty: <data_dir>/judge-cache.sqlite"
    )
    endpoint: EndpointSettings = EndpointSettings()
    llamacpp: LlamaCppSettings = LlamaCppSettings()
    fake: FakeSettings = FakeSettings()
    prefilter: PrefilterSettings = PrefilterSettings()

    @property
    def cache_path(self) -> str:
        """The cache's file, or :none:."""
        return self.cache or str(self.data_dir / "judge-cache.sqlite")

    @model_validator(mode="before")
    @classmethod
    def _small_batches_for_a_slow_engine(cls, given: Any) -> Any:
        worker = given.get("worker", {})
        if given.get("backend", "llamacpp") == "llamacpp" and isinstance(worker, dict):
            return {**given, "worker": {"max_items": _LLAMACPP_SETS, **worker}}
        return given

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = self._endpoint_problems() if self.backend == "openai" else []
        if self.backend != "fake" and not self.model:
            problems.append("model is empty: name one (`qrelay models list` shows those of the catalogue)")
        low, high = self.prefilter.min_chars, self.prefilter.max_chars
        if high and low > high:
            problems.append(f"prefilter.min_chars ({low}) exceeds prefilter.max_chars ({high}): nothing is judged")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _endpoint_problems(self) -> list[str]:
        endpoint, problems = self.endpoint, []
        parts = urlsplit(endpoint.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            problems.append(f"backend openai needs endpoint.url as http(s)://host[:port]/v1, not {endpoint.url!r}")
        if parts.username or parts.password:
            problems.append("endpoint.url holds credentials: name a variable in endpoint.api_key_env instead")
        if endpoint.total_timeout_s < endpoint.request_timeout_s:
            problems.append("endpoint.total_timeout_s is below endpoint.request_timeout_s: no request could end")
        clash = sorted(_OWN_PARAMETERS & endpoint.extra_body.keys())
        if clash:
            problems.append(f"endpoint.extra_body may not set {', '.join(clash)}: the judge decides these")
        return problems

"""The settings of the judge's engines, a section each."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import Field, field_validator

from qrelay.config import Section
from qrelay.http.settings import HttpSettings
from qrelay.judging.batches.settings import BatchSettings
from qrelay.models.engines import EncoderEngine

_OWN_PARAMETERS: Final = frozenset(
    {"model", "messages", "max_tokens", "temperature", "logprobs", "top_logprobs", "stop", "stream", "n"}
    | {"logprob_token_ids", "return_tokens_as_token_ids"}
)
_RENAMED: Final = frozenset({"max_tokens", "temperature", "stop"})


class EndpointSettings(HttpSettings):
    """The backends `openai` and `openai-batch`: an HTTP endpoint."""

    url: str = Field("", description="Base URL that ends in /v1, without credentials")
    revision: str = Field("", description="The model's revision, part of every label's identity; empty: the URL")
    quantisation: str = Field("unknown", description="The weights' quantisation, part of every label's identity")
    chat: bool = Field(True, description="Ask /chat/completions; false: /completions, for models without a template")
    label_logprobs: Literal["auto", "token_ids", "generative_scoring", "top"] = Field(
        "auto",
        description="How the labels' log-probabilities are asked for: token_ids (exactly those, by vLLM's "
        "logprob_token_ids), generative_scoring (the same, by a request for each token), top (the likeliest tokens, "
        "or text); auto: the endpoint is asked once, and a model with labels stays as it is; part of every label's "
        "identity",
    )
    prompt_logprobs: Literal["auto", "token_ids", "echo", "off"] = Field(
        "auto",
        description="How the log-probabilities of prompts are asked for, which query_likelihood and answer_nll need: "
        "token_ids (vLLM's prompt_logprobs), echo (/completions with echo; also true), off (also false); auto: the "
        "endpoint is asked once; part of every label's identity",
    )
    accept_text: bool = Field(
        True, description="Whether replies count where the endpoint gives no log-probabilities (strictly parsed)"
    )
    top_logprobs: int = Field(
        20, ge=1, le=20, description="First tokens asked for with log-probabilities; part of every label's identity"
    )
    parameter_names: dict[str, str] = Field(
        {},
        description="What the endpoint calls max_tokens, temperature or stop, e.g. "
        '{max_tokens: max_completion_tokens}; empty: not sent, e.g. {temperature: ""}, and free for extra_body; '
        "part of every label's identity",
    )
    extra_body: dict[str, Any] = Field(
        {}, description="Fields added to every request, e.g. chat_template_kwargs; part of every label's identity"
    )
    batch: BatchSettings = BatchSettings()

    @field_validator("prompt_logprobs", mode="before")
    @classmethod
    def _by_its_former_name(cls, given: Any) -> Any:
        return {"true": "echo", "false": "off"}.get(str(given).lower(), given)

    def refused(self, backend: str) -> list[str]:
        """What of these settings `backend` cannot use, a sentence each."""
        problems = list(self.problems("endpoint", f"backend {backend}", "/v1"))
        unknown = sorted(self.parameter_names.keys() - _RENAMED)
        if unknown:
            problems.append(
                f"endpoint.parameter_names may not name {', '.join(unknown)}, only {', '.join(sorted(_RENAMED))}"
            )
        left_out = {name for name, other in self.parameter_names.items() if not other}
        own = (_OWN_PARAMETERS - left_out) | set(self.parameter_names.values())
        clash = sorted(own & self.extra_body.keys())
        if clash:
            problems.append(f"endpoint.extra_body may not set {', '.join(clash)}: the judge decides these")
        return problems


class LlamaCppSettings(Section):
    """The backend `llamacpp`: the embedded engine."""

    threads: int = Field(0, ge=0, description="CPU threads; 0: llama.cpp's choice")
    context_tokens: int = Field(4096, ge=256, description="Tokens of one prompt; longer pairs are missing: too_long")
    parallel: int = Field(1, ge=1, le=64, description="Prompts at once; 1 is fastest on a CPU (shared prefix)")
    gpu_layers: int = Field(0, ge=-1, description="Layers on the GPU, where the engine's build has one; -1: all")


class TransformersSettings(Section):
    """The backend `transformers`: PyTorch in this process, on the CPU or a GPU."""

    dtype: Literal["auto", "bfloat16", "float32"] = Field(
        "auto", description="Arithmetic; auto: bfloat16 where the processor computes in it, else float32"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …")
    threads: int = Field(0, ge=0, description="CPU threads; 0: PyTorch's choice")
    context_tokens: int = Field(4096, ge=256, description="Tokens of one question; longer: missing, too_long")
    batch_tokens: int = Field(2048, ge=64, description="Tokens computed at once, padding included")


class OpenVinoSettings(Section):
    """The backend `openvino`: 8-bit weights in this process, for processors without bfloat16."""

    threads: int = Field(0, ge=0, description="CPU threads; 0: OpenVINO's choice")
    context_tokens: int = Field(4096, ge=256, description="Tokens of one question; longer: missing, too_long")
    batch_tokens: int = Field(2048, ge=64, description="Tokens computed at once, padding included")


class VllmSettings(Section):
    """The backend `vllm`: vLLM in this process. Its scheduler decides how many questions run at once."""

    dtype: str = Field("auto", description="auto, bfloat16, float16, float32")
    context_tokens: int = Field(4096, ge=256, description="Tokens of one question; longer: missing, too_long")
    max_sequences: int = Field(64, ge=1, description="Questions the engine may run at once")
    gpu_memory_utilization: float = Field(0.9, gt=0, le=1, description="Share of the GPU's memory it may take")
    kv_cache_gib: float = Field(2.0, gt=0, description="GiB of key-value cache where it runs on the CPU")


class EmbedderSettings(Section):
    """The backend `embedder`: a bi-encoder, by the cosine of query and passage."""

    engine: EncoderEngine = Field(
        "torch", description="torch, or openvino (8-bit integers, on the CPU); part of every label's identity"
    )
    threads: int = Field(0, ge=0, description="CPU threads; 0: the library's choice")
    device: str = Field("", description="As torch names it: cpu, cuda, cuda:1; empty: a GPU where there is one")


class CrossEncoderSettings(EmbedderSettings):
    """The backend `cross-encoder`: a model that reads query and passage together."""

    max_length: int = Field(
        0, ge=0, description="Tokens of query and passage together, at most; 0: as many as the model reads"
    )
    batch_pairs: int = Field(32, ge=1, description="Pairs computed at once")


class FakeSettings(Section):
    """The backend `fake`: the fake for tests and benchmarks."""

    failure_rate: float = Field(0.0, ge=0, le=1, description="Share of pairs that fail the first time, 0 to 1")
    service_time_s: float = Field(
        0.0,
        ge=0,
        description="Seconds that each call takes (with most strategies a query's passages are one call), one after "
        "another, whatever the batch",
    )
    load_steps: int = Field(0, ge=0, description="Steps that loading reports before the judge is ready")
    load_step_s: float = Field(0.0, ge=0, description="Seconds that each step takes")

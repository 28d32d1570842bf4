"""The judge's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, field_validator, model_validator

from qrelay.config import NamesFile, Section, ServiceSettings
from qrelay.http.settings import HttpSettings
from qrelay.judging.batches.settings import BatchSettings
from qrelay.judging.cache_records import NO_CACHE

_OWN_PARAMETERS = frozenset(
    {"model", "messages", "max_tokens", "temperature", "logprobs", "top_logprobs", "stop", "stream", "n"}
    | {"logprob_token_ids", "return_tokens_as_token_ids"}
)


_RENAMED: Final = frozenset({"max_tokens", "temperature", "stop"})
_LOCAL_SETS: Final = 2
_LOCAL_ENGINES: Final = ("transformers", "openvino", "llamacpp")

_PROMPT_LOGPROBS: Final = ("transformers", "openvino", "vllm")
"""Engines that serve query_likelihood without being told that they do."""

_REMOTE: Final = ("openai", "openai-batch")
_BATCH_WORKER: Final = {"max_items": 8, "batches_in_flight": 250, "max_attempts": 25}
"""A batch should be large, and what waits for one is held: 2000 messages. Each restart is a delivery more."""

BackendName = Literal["llamacpp", "transformers", "openvino", "vllm", "openai", "openai-batch", "fake"]
StrategyName = Literal["binary", "graded", "query_likelihood", "contrastive_likelihood", "answer_nll", "utility"]


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


class PrefilterSettings(Section):
    """Passages that are not judged at all: missing, reason filtered."""

    min_chars: int = Field(3, ge=0, description="Minimum characters of a passage that is judged")
    max_chars: int = Field(0, ge=0, description="Maximum characters of a passage that is judged; 0: no limit")


class MemberSettings(Section):
    """One judge of several: what it does not name is the judge's own setting."""

    backend: BackendName | None = Field(None, description="Engine")
    model: str | None = Field(None, description="Catalogue name, path:FILE, or the endpoint's name for it")
    strategy: StrategyName | None = Field(None, description="How it asks")
    rubric: Annotated[str, NamesFile((".yaml", ".yml"))] | None = Field(
        None, description="Its own rubric: a shipped name or a YAML file, instead of strategy and scale"
    )
    scale: Literal["0-3", "1-4"] | None = Field(None, description="Grades of the strategy graded")
    shots: int | None = Field(None, ge=0, le=16, description="Worked examples in the prompt")
    endpoint: EndpointSettings | None = Field(None, description="Its own endpoint (backends openai, openai-batch)")


class CascadeSettings(Section):
    """A cheap judge answers where it is confident; the rest is escalated. On when `order` is not empty."""

    order: tuple[str, ...] = Field(
        (), description='Names of two judges, small first; "fused" as the small one: the ensemble of all others'
    )
    calibration: Annotated[str, NamesFile()] = Field(
        "",
        description="File of the small side's map to P(relevant), from `qrelay judge calibrate`; needed. The large "
        "judge's, where it has one, is judge.calibration",
    )
    max_error: float = Field(
        0.05, ge=0, le=0.5, description="Calibrated probability of being wrong up to which the small judge answers"
    )
    audit: float = Field(0.05, ge=0, le=1, description="Share of the confident answers that the large judge checks")
    window: int = Field(200, ge=20, description="Audited pairs over which the error is watched")
    budget_share: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Largest share of a run's pairs to escalate, audited ones included; then the small judge answers",
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.order:
            return self
        if len(set(self.order)) != 2 or len(self.order) != 2:
            raise ValueError(f"order names {len(self.order)} judges: name two different ones, the small one first")
        if not self.calibration:
            raise ValueError("calibration is empty: fit a map of the small judge with `qrelay judge calibrate`")
        return self


class BudgetSettings(Section):
    """What judging may cost. At a limit the judge stops cleanly: the queue keeps the rest for a later run."""

    tokens_per_run: int = Field(0, ge=0, description="Prompt tokens of one run of the service; 0: no limit")
    tokens_per_day: int = Field(0, ge=0, description="Prompt tokens of one day (UTC), all replicas; 0: no limit")
    money_per_run: float = Field(0.0, ge=0, description="Money of one run, in the currency of the price; 0: no limit")
    money_per_day: float = Field(0.0, ge=0, description="Money of one day (UTC), all replicas; 0: no limit")
    price_per_million_tokens: float = Field(0.0, ge=0, description="Price of a million prompt tokens")

    @property
    def run_tokens(self) -> int:
        """Prompt tokens of one run, by whichever limit is lower; 0: no limit."""
        return self._lowest(self.tokens_per_run, self.money_per_run)

    @property
    def day_tokens(self) -> int:
        """Prompt tokens of one UTC day, by whichever limit is lower; 0: no limit."""
        return self._lowest(self.tokens_per_day, self.money_per_day)

    def _lowest(self, tokens: int, money: float) -> int:
        bought = max(1, int(money / self.price_per_million_tokens * 1_000_000)) if money else 0
        return min(filter(None, (tokens, bought)), default=0)

    @model_validator(mode="after")
    def _priced(self) -> Self:
        if (self.money_per_run or self.money_per_day) and not self.price_per_million_tokens:
            raise ValueError("money_per_run and money_per_day need price_per_million_tokens")
        return self


class EarlyStopSettings(Section):
    """Leave out pairs of a query that cannot change what is exported. Off unless asked for. Ranks and threshold are
    those by which the sink mines: keep them equal to its settings."""

    enabled: bool = Field(False, description="Whether to stop inside a query; skipped passages are counted")
    chunk: int = Field(5, ge=1, description="Passages judged at once, by the current model's rank")
    positives: int = Field(1, ge=1, description="Relevant passages after which a query has enough positives")
    negatives: int = Field(10, ge=1, description="Hard negatives after which a query has enough (sink.max_negatives)")
    negative_threshold: float = Field(
        0.4, gt=0, le=1, description="P(relevant) below which a passage may be a negative (sink.negative_threshold)"
    )
    negative_rank: int = Field(
        5, ge=1, description="Rank up to which the current model makes a negative hard (sink.negative_rank)"
    )
    disagreement_rank: int = Field(
        20,
        ge=1,
        description="Rank up to which BM25 or dense, but not both, makes a negative hard (sink.disagreement_rank)",
    )


class JudgeSettings(ServiceSettings):
    """See `qrelay config judge` for the effective values."""

    backend: BackendName = Field(
        "transformers",
        description="Engine: transformers (PyTorch), openvino (8-bit weights, for processors without bfloat16), "
        "llamacpp (embedded llama.cpp), vllm (in this process), openai (a compatible endpoint), openai-batch (the "
        "same by OpenAI's Batch API: half the price, within a day, 2000 messages held meanwhile), fake (no model). "
        "With the first three worker.max_items is 2, unless set: the labels of a batch travel on together, and a "
        "set may take a minute",
    )
    model: str = Field(
        "qwen2.5-coder-1.5b-instruct",
        description="Catalogue name, path:FILE of a GGUF, path:FOLDER of weights (transformers, openvino, vllm), or "
        "the endpoint's own name for it (openai)",
    )
    strategy: StrategyName = Field(
        "query_likelihood",
        description="query_likelihood: how much likelier the passage makes the query; best for small models. "
        "graded: a grade on `scale`; the default with llamacpp, openai and fake. binary: YES or NO. answer_nll: how "
        "much likelier the passage makes the reference answer. utility: listwise",
    )
    scale: Literal["0-3", "1-4"] = Field("0-3", description="Grades of the strategy graded; binary has its own, 0-1")
    rubric: Annotated[str, NamesFile((".yaml", ".yml"))] = Field(
        "",
        description="Your own judge, instead of strategy and scale: a YAML file with scale, prompt and what is read "
        "(`qrelay judge lint`), or a shipped name (graded-0-3, graded-1-4, binary, utility); empty: none",
    )
    min_grade_mass: float = Field(
        0.05,
        ge=0,
        le=1,
        description="Least total probability of all grades in the first reply token; below: missing, unparseable",
    )
    shots: int = Field(0, ge=0, le=16, description="Worked examples in the prompts of binary, graded and a rubric")
    slice: Annotated[str, NamesFile()] = Field(
        "", description="TSV of annotated pairs: the source of worked examples"
    )
    judges: dict[str, MemberSettings] = Field(
        {}, description="Several judges by name; each labels every pair; empty: the one judge of these settings"
    )
    calibration: Annotated[str, NamesFile()] = Field(
        "",
        description="File of a map from `qrelay judge calibrate`: adds one calibrated label of all judges (fused); "
        "empty: none",
    )
    cascade: CascadeSettings = CascadeSettings()
    budget: BudgetSettings = BudgetSettings()
    early_stop: EarlyStopSettings = EarlyStopSettings()
    cache: Annotated[str, NamesFile()] = Field(
        "",
        description="Judgment cache: a file, or postgresql://… for many machines; :none: for no cache; empty: "
        "<data_dir>/judge-cache.sqlite",
    )
    endpoint: EndpointSettings = EndpointSettings()
    llamacpp: LlamaCppSettings = LlamaCppSettings()
    transformers: TransformersSettings = TransformersSettings()
    openvino: OpenVinoSettings = OpenVinoSettings()
    vllm: VllmSettings = VllmSettings()
    fake: FakeSettings = FakeSettings()
    prefilter: PrefilterSettings = PrefilterSettings()

    @property
    def priced_budget(self) -> BudgetSettings:
        """The budget, at the price of batches where every judge asks by them."""
        members = list(self.members().values())
        if any(each.backend != "openai-batch" for each in members):
            return self.budget
        price = self.budget.price_per_million_tokens * max(each.endpoint.batch.price_factor for each in members)
        return self.budget.model_copy(update={"price_per_million_tokens": price})

    @property
    def cache_path(self) -> str:
        """The cache's file or address, or :none:."""
        return self.cache or str(self.data_dir / "judge-cache.sqlite")

    @property
    def asked(self) -> str:
        """How it asks, in words."""
        return f"the rubric {self.rubric}" if self.rubric else f"the strategy {self.strategy}"

    @model_validator(mode="before")
    @classmethod
    def _what_suits_the_engine(cls, given: Any) -> Any:
        backend = given.get("backend", _LOCAL_ENGINES[0])
        worker = given.get("worker", {})
        if "openai-batch" in _backends(given) and isinstance(worker, dict):
            given = {**given, "worker": {**_BATCH_WORKER, **worker}}
        if backend not in _PROMPT_LOGPROBS and "strategy" not in given:
            given = {**given, "strategy": "graded"}
        if backend in _LOCAL_ENGINES and isinstance(worker, dict) and "openai-batch" not in _backends(given):
            return {**given, "worker": {"max_items": _LOCAL_SETS, **worker}}
        return given

    def members(self) -> dict[str, JudgeSettings]:
        """The settings of each judge, by name; one judge is named after its strategy and model."""
        if not self.judges:
            return {default_name(self): self}
        return {
            name: self.changed(judges={}, **{k: v for k, v in own if v is not None})
            for name, own in self.judges.items()
        }

    def changed(self, **changes: Any) -> JudgeSettings:
        """These settings with some others; another engine brings its default strategy along, unless one is named. A
        strategy takes the place of a rubric that these settings have."""
        if "strategy" in changes:
            changes.setdefault("rubric", "")
        if "backend" in changes and "strategy" not in changes and changes["backend"] not in _PROMPT_LOGPROBS:
            changes["strategy"] = "graded" if self.strategy == "query_likelihood" else self.strategy
        return self.model_copy(update=changes)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = [problem for each in self.members().values() for problem in each._own_problems()]
        low, high = self.prefilter.min_chars, self.prefilter.max_chars
        if high and low > high:
            problems.append(f"prefilter.min_chars ({low}) exceeds prefilter.max_chars ({high}): nothing is judged")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _own_problems(self) -> list[str]:
        problems = self._endpoint_problems() if self.backend in _REMOTE else []
        if self.backend == "openai-batch" and self.cache_path == NO_CACHE:
            problems.append(f"backend openai-batch keeps its batches in judge.cache, which is {NO_CACHE}")
        by_ids = {self.endpoint.label_logprobs, self.endpoint.prompt_logprobs} & {"token_ids", "generative_scoring"}
        if self.backend == "openai-batch" and by_ids:
            problems.append(
                f"backend openai-batch cannot ask by {' or '.join(sorted(by_ids))}: set endpoint.label_logprobs to "
                "top, and endpoint.prompt_logprobs to echo or off"
            )
        if self.backend != "fake" and not self.model:
            problems.append("model is empty: name one (`qrelay models list` shows those of the catalogue)")
        if self.shots and not self.slice:
            problems.append("shots needs judge.slice: a file of annotated pairs (`qrelay judge slice`)")
        return problems

    def _endpoint_problems(self) -> list[str]:
        endpoint = self.endpoint
        problems = list(endpoint.problems("endpoint", f"backend {self.backend}", "/v1"))
        unknown = sorted(endpoint.parameter_names.keys() - _RENAMED)
        if unknown:
            problems.append(
                f"endpoint.parameter_names may not name {', '.join(unknown)}, only {', '.join(sorted(_RENAMED))}"
            )
        left_out = {name for name, other in endpoint.parameter_names.items() if not other}
        own = (_OWN_PARAMETERS - left_out) | set(endpoint.parameter_names.values())
        clash = sorted(own & endpoint.extra_body.keys())
        if clash:
            problems.append(f"endpoint.extra_body may not set {', '.join(clash)}: the judge decides these")
        return problems


def _backends(given: dict[str, Any]) -> set[Any]:
    """The backends that raw settings name, the judge's own and its members'."""
    members = given.get("judges")
    named = members.values() if isinstance(members, dict) else ()
    own = (each.get("backend") if isinstance(each, dict) else getattr(each, "backend", None) for each in named)
    return {given.get("backend"), *(each for each in own if isinstance(each, str))}


def default_name(settings: JudgeSettings) -> str:
    """A judge's name where none is given: strategy, scale where it has several, and model."""
    scale = f"-{settings.scale}" if settings.strategy == "graded" else ""
    asked = Path(settings.rubric).stem if settings.rubric else f"{settings.strategy}{scale}"
    model = "fake" if settings.backend == "fake" else settings.model
    return f"{asked}@{model}"

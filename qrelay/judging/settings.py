"""The judge's settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import Field, model_validator

from qrelay.config import NamesFile, Section, ServiceSettings
from qrelay.judging.budget_settings import BudgetSettings
from qrelay.judging.cache_records import NO_CACHE
from qrelay.judging.engine_settings import (
    CrossEncoderSettings,
    EmbedderSettings,
    EndpointSettings,
    FakeSettings,
    LlamaCppSettings,
    OpenVinoSettings,
    TransformersSettings,
    VllmSettings,
)

_LOCAL_SETS: Final = 2
_LOCAL_ENGINES: Final = ("transformers", "openvino", "llamacpp")

_PROMPT_LOGPROBS: Final = ("transformers", "openvino", "vllm")
"""Engines that serve query_likelihood without being told that they do."""

_ENCODERS: Final = ("embedder", "cross-encoder")
"""Backends that score a pair themselves: strategy pair_score, unless another is named."""
_BY_ENCODERS: Final = ("pair_score", "consensus")
_REMOTE: Final = ("openai", "openai-batch")
_BATCH_WORKER: Final = {"max_items": 8, "batches_in_flight": 250, "max_attempts": 25}
"""A batch should be large, and what waits for one is held: 2000 messages. Each restart is a delivery more."""

BackendName = Literal[
    "llamacpp", "transformers", "openvino", "vllm", "openai", "openai-batch", "embedder", "cross-encoder", "fake"
]
StrategyName = Literal[
    "binary", "graded", "query_likelihood", "contrastive_likelihood", "confirmed_likelihood", "answer_nll", "utility",
    "pair_score", "consensus",
]  # fmt: skip


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
        "same by OpenAI's Batch API: half the price, within a day, 2000 messages held meanwhile), embedder (the "
        "cosine of a model that is not the retriever's), cross-encoder (a model that reads both together, such as "
        "`qrelay train --experiment judge` makes), fake (no model). With the first three worker.max_items is "
        "2, unless set: the labels of a batch travel on together, and a set may take a minute",
    )
    model: str = Field(
        "qwen2.5-coder-1.5b-instruct",
        description="Catalogue name, path:FILE of a GGUF, path:FOLDER of weights (transformers, openvino, vllm), or "
        "the endpoint's own name for it (openai)",
    )
    strategy: StrategyName = Field(
        "query_likelihood",
        description="query_likelihood: how much likelier the passage makes the query; best for small models. "
        "confirmed_likelihood: the same, and the passages near the best are asked about, YES or NO. "
        "graded: a grade on `scale`; the default with llamacpp, openai and fake. binary: YES or NO. answer_nll: how "
        "much likelier the passage makes the reference answer; not to train on with small models. utility: listwise. "
        "pair_score: what an encoder says (embedder, cross-encoder). consensus: how much of the list resembles the "
        "passage (embedder)",
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
    embedder: EmbedderSettings = EmbedderSettings()
    cross_encoder: CrossEncoderSettings = CrossEncoderSettings()
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
            given = {**given, "strategy": _strategy(backend)}
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
        """These settings with some others; another engine brings its usual strategy along where it cannot ask as
        these do, unless one is named. A strategy takes the place of a rubric that these settings have, and an encoder
        reads none."""
        backend = changes.get("backend", self.backend)
        if "strategy" not in changes and backend != self.backend:
            changes["strategy"] = self._strategy_with(backend)
            if backend in _ENCODERS:
                changes.setdefault("rubric", "")
        elif "strategy" in changes:
            changes.setdefault("rubric", "")
        return self.model_copy(update=changes)

    def _strategy_with(self, backend: str) -> StrategyName:
        """This strategy where the engine serves it, else the engine's usual one."""
        if self.strategy in _BY_ENCODERS:
            fits = self.strategy == "consensus" and backend == "embedder"
        else:
            fits = backend not in _ENCODERS and (backend in _PROMPT_LOGPROBS or self.strategy != "query_likelihood")
        return self.strategy if fits else _strategy(backend)

    def _databases(self) -> Sequence[tuple[str, str]]:
        return (("judge.cache", self.cache),)

    def _endpoints(self) -> Sequence[tuple[str, str]]:
        members = [(f"judge.judges.{name}.endpoint.url", own.endpoint.url)
                   for name, own in self.judges.items() if own.endpoint]  # fmt: skip
        return (*super()._endpoints(), ("judge.endpoint.url", self.endpoint.url), *members)

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
        problems = self.endpoint.refused(self.backend) if self.backend in _REMOTE else []
        if self.backend == "openai-batch" and self.cache_path == NO_CACHE:
            problems.append(f"backend openai-batch keeps its batches in judge.cache, which is {NO_CACHE}")
        by_ids = {self.endpoint.label_logprobs, self.endpoint.prompt_logprobs} & {"token_ids", "generative_scoring"}
        if self.backend == "openai-batch" and by_ids:
            problems.append(
                f"backend openai-batch cannot ask by {' or '.join(sorted(by_ids))}: set endpoint.label_logprobs to "
                "top, and endpoint.prompt_logprobs to echo or off"
            )
        if self.strategy == "consensus" and not self.rubric and self.backend != "embedder":
            problems.append(
                f"strategy consensus compares passages with each other, which backend {self.backend} was not made "
                "for: set backend to embedder"
            )
        if self.backend != "fake" and not self.model:
            problems.append("model is empty: name one (`qrelay models list` shows those of the catalogue)")
        if self.shots and not self.slice:
            problems.append("shots needs judge.slice: a file of annotated pairs (`qrelay judge slice`)")
        return problems


def _strategy(backend: str) -> StrategyName:
    """The usual one of an engine."""
    if backend in _PROMPT_LOGPROBS:
        return "query_likelihood"
    return "pair_score" if backend in _ENCODERS else "graded"


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

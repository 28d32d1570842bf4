"""The reranker's settings."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from qrelay.config import Section, ServiceSettings
from qrelay.models.engines import EncoderEngine
from qrelay.types import BI_ENCODER


class FakeSettings(Section):
    """The scorer `fake`: the fake for tests and benchmarks."""

    service_time_s: float = Field(
        0.0,
        ge=0,
        description="Seconds that each query's candidates take, one query after another, whatever the batch",
    )


class CascadeSettings(Section):
    """A first scorer, which costs little, drops part of each set before the cross-encoder scores the rest."""

    first: str = Field(
        "",
        description="What scores all candidates first: bi_encoder (the retriever's dense scores), or a small "
        "cross-encoder by its catalogue name or path:FOLDER, whose system is small_cross_encoder; empty: no cascade",
    )
    engine: EncoderEngine = Field("torch", description="What computes the small cross-encoder: torch, or openvino")
    drop: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Share of each set's candidates, rounded down, that the cross-encoder does not score; a call "
        "that names how many it keeps gets as many of its scores",
    )


class RerankerSettings(ServiceSettings):
    """See `qrelay config reranker` for the effective values."""

    scorer: Literal["auto", "cross_encoder", "bi_encoder", "fake"] = Field(
        "auto",
        description="auto: the promoted cross-encoder, else the configured one, else the bi-encoder's scores; "
        "bi_encoder and fake leave the registry aside",
    )
    cross_encoder: str = Field(
        "", description="Catalogue name or path:FOLDER of a sentence-transformers cross-encoder; empty: none"
    )
    engine: EncoderEngine = Field(
        "torch",
        description="What computes the configured cross-encoder: torch, or openvino (8-bit integers, on the CPU); "
        "promoted versions run in torch, in which the gate measured them",
    )
    bi_encoder: str = Field(
        "all-MiniLM-L6-v2",
        description="Embedder for sets that carry no dense scores; loaded only when such a set arrives",
    )
    max_length: int = Field(
        384,
        ge=16,
        description="Tokens of query and passage together in the configured cross-encoder, at most; a promoted "
        "version reads as many as it was trained with",
    )
    batch_pairs: int = Field(
        32, ge=1, description="Pairs in one forward pass of a cross-encoder, at most; their tokens limit them too"
    )
    max_candidates: int = Field(100, ge=1, description="Candidates scored, in the set's order; the rest are dropped")
    keep: int = Field(40, ge=1, description="Best candidates kept in the set")
    sample: int = Field(25, ge=1, description="Candidates marked for the judge, at most")
    sample_head: int = Field(10, ge=0, description="How many of the sample are simply the best ranks")
    max_per_document: int = Field(2, ge=1, description="Passages of one document in the sample, at most")
    threads: int = Field(0, ge=0, description="CPU threads of the model; 0: the library's choice")
    registry_poll_s: float = Field(
        5.0,
        ge=0,
        description="Seconds between checks for a promoted cross-encoder in the registry; 0: the registry is never "
        "looked at and the configured model serves",
    )

    cascade: CascadeSettings = CascadeSettings()
    fake: FakeSettings = FakeSettings()

    @property
    def follows_registry(self) -> bool:
        """Whether a promoted cross-encoder takes the configured model's place."""
        return self.registry_poll_s > 0 and self.scorer in ("auto", "cross_encoder")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        problems = []
        if self.scorer == "cross_encoder" and not self.cross_encoder:
            problems.append("scorer is cross_encoder but cross_encoder names no model")
        if self.cascade.first and self.scorer == BI_ENCODER:
            problems.append("cascade.first is set, but scorer is bi_encoder: it has nothing to spare")
        if self.cascade.first and self.cascade.first == self.cross_encoder:
            problems.append("cascade.first is the cross_encoder itself: name a smaller one, or bi_encoder")
        if self.sample > self.keep:
            problems.append(f"sample ({self.sample}) cannot exceed keep ({self.keep})")
        if self.sample_head > self.sample:
            problems.append(f"sample_head ({self.sample_head}) cannot exceed sample ({self.sample})")
        if problems:
            raise ValueError("; ".join(problems))
        return self

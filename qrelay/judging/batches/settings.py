"""The settings of the backend `openai-batch`."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from pydantic import Field

from qrelay.config import Section

if TYPE_CHECKING:
    from qrelay.llm.batch.limits import BatchLimits


class BatchSettings(Section):
    """The backend `openai-batch`: how requests are gathered into batches, and when they are given up. A batch takes
    minutes to `window`."""

    max_requests: int = Field(
        50_000, ge=1, le=100_000, description="Maximum requests of one batch; OpenAI allows 50000"
    )
    max_bytes: int = Field(
        190_000_000, ge=100_000, description="Maximum bytes of one batch's file; OpenAI allows 200 MB"
    )
    max_wait_s: float = Field(
        600.0, ge=0, description="Seconds that the first request of a batch waits for more; a full one goes at once"
    )
    window: str = Field("24h", description="completion_window of every batch; OpenAI knows 24h only")
    max_in_flight: int = Field(8, ge=1, le=1000, description="Batches that the endpoint may hold at once")
    poll_s: float = Field(30.0, gt=0, description="Seconds between looks at the batches")
    max_tries: int = Field(
        3,
        ge=1,
        description="Batches in which a request may end without an answer (expired, a line with 5xx) before it has "
        "failed: missing, unavailable",
    )
    retry_failed_s: float = Field(
        3600.0, ge=0, description="Seconds after which a request that has failed may be asked once more"
    )
    look_again_s: float = Field(
        120.0,
        ge=0,
        description="Seconds after an unanswered creation until a list without the batch is believed and the batch "
        "is created again; above what the endpoint's list may lag behind, or a batch may be paid for twice",
    )
    transfer_timeout_s: float = Field(1800.0, gt=0, description="Seconds for sending or fetching one file")
    max_output_bytes: int = Field(2 * 1024**3, ge=1024**2, description="Maximum bytes of one output file")
    keep_files: bool = Field(
        False, description="Whether input and output files stay at the endpoint once their answers are stored"
    )
    price_factor: float = Field(
        0.5, ge=0, le=10, description="Price of a token in a batch, as a share of budget.price_per_million_tokens"
    )

    def limits(self, max_line_bytes: int) -> BatchLimits:
        """What bounds a batch. max_line_bytes: of one answer."""
        from qrelay.llm.batch.limits import BatchLimits

        own = {each.name for each in fields(BatchLimits)} - {"max_line_bytes"}
        return BatchLimits(**self.model_dump(include=own), max_line_bytes=max_line_bytes)

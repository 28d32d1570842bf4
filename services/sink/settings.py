"""The sink's settings."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

from qrelay.config import ServiceSettings
from services.sink.mining.mine import CURRENT_MODEL, RELEVANT_GRADE, MiningRules


class SinkSettings(ServiceSettings):
    """See `qrelay config sink` for the effective values."""

    ledger: str = Field(
        "", description="Ledger: a path or sqlite:///PATH; empty: ledger.sqlite in data_dir. Shared by replicas"
    )
    busy_timeout_s: float = Field(10.0, gt=0, description="Seconds to wait for another writer of the ledger")
    negative_threshold: float = Field(
        0.4,
        gt=0,
        le=1,
        description="A negative's P(relevant) must be under it (0 to 1); lower it for a lenient judge",
    )
    max_negatives: int = Field(10, ge=1, description="Hard negatives of one query, at most")
    negative_rank: int = Field(
        5, ge=1, description=f"Rank up to which the current model ({', '.join(CURRENT_MODEL)}) makes a negative hard"
    )
    disagreement_rank: int = Field(
        20, ge=1, description="Rank up to which BM25 or dense, but not both, makes a negative hard"
    )
    hard_positive_below: int = Field(10, ge=0, description="Rank beyond which a relevant passage is a hard positive")
    guard_ratio: float = Field(
        0.95, gt=0, le=1, description="Drop negatives whose teacher score exceeds this share of the best positive's"
    )
    relevant_grades: dict[str, int] = Field(
        RELEVANT_GRADE.copy(), description="Least relevant grade of scales beside the built-in ones, by scale name"
    )

    without_stage_scores: bool = Field(
        False,
        description="Take positives and negatives only from labels that do not lean on the retrieval stages' scores, "
        "which are the pupil's own",
    )
    qualification: str = Field(
        "",
        description="File of a report from `qrelay judge qualify`: training data from judges that it finds not "
        "qualified is refused; empty: the verdict of labels is unknown",
    )

    @model_validator(mode="after")
    def _known_scales_stay(self) -> Self:
        missing = sorted(RELEVANT_GRADE.keys() - self.relevant_grades.keys())
        if missing:
            raise ValueError(f"relevant_grades must keep the built-in scales {', '.join(missing)}")
        return self

    @property
    def ledger_url(self) -> str:
        """The ledger in use."""
        return self.ledger or str(Path(self.data_dir) / "ledger.sqlite")

    @property
    def rules(self) -> MiningRules:
        """The mining rules in use."""
        return MiningRules(
            negative_threshold=self.negative_threshold,
            max_negatives=self.max_negatives,
            negative_rank=self.negative_rank,
            disagreement_rank=self.disagreement_rank,
            hard_positive_below=self.hard_positive_below,
            guard_ratio=self.guard_ratio,
            relevant_grades=self.relevant_grades,
            without_stage_scores=self.without_stage_scores,
        )

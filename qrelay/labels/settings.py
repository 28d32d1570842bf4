"""The sink's settings."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from qrelay.config import NamesFile, ServiceSettings
from qrelay.errors import InputError
from qrelay.labels.mining.rules import MiningRules
from qrelay.ranks import CURRENT_MODEL
from qrelay.scales import RELEVANT_GRADE
from qrelay.settings.publish import PublishSettings
from qrelay.settings.training import TrainingSettings

if TYPE_CHECKING:
    from qrelay.labels.mining.rounds import RoundLimits


class SinkSettings(ServiceSettings):
    """See `qrelay config sink` for the effective values."""

    ledger: Annotated[str, NamesFile()] = Field(
        "",
        description="Ledger: a path, sqlite:///PATH or postgresql://USER@HOST/DATABASE (its password may stand in a "
        "PGPASSFILE); empty: ledger.sqlite in data_dir. Shared by replicas",
    )
    busy_timeout_s: float = Field(10.0, gt=0, description="Seconds to wait for another writer of the ledger")
    negative_threshold: float = Field(
        0.4,
        gt=0,
        le=1,
        description="A negative's P(relevant) must be below this (0 to 1); lower it for a lenient judge",
    )
    max_negatives: int = Field(10, ge=1, description="Maximum hard negatives of one query; easy ones are added")
    negative_rank: int = Field(
        5, ge=1, description=f"Rank up to which the current model ({', '.join(CURRENT_MODEL)}) makes a negative hard"
    )
    disagreement_rank: int = Field(
        20, ge=1, description="Rank up to which BM25 or dense, but not both, makes a negative hard"
    )
    hard_positive_below: int = Field(10, ge=0, description="Rank beyond which a relevant passage is a hard positive")
    guard_ratio: float = Field(
        0.95,
        ge=0,
        le=1,
        description="Drop negatives whose teacher score exceeds this share of the best positive's; 0: off",
    )
    guard_margin: float = Field(
        0.0,
        ge=0,
        description="Drop negatives whose teacher score is nearer than this to the best positive's, in the teacher's "
        "own units; 0: off",
    )
    near_duplicate: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Jaccard similarity of three-word shingles from which a passage is a near-duplicate of a "
        "positive or of a chosen negative; 0: only passages with the same words are",
    )
    siblings: bool = Field(True, description="Take no negatives from a document that holds a positive of the query")
    confident_positive: float = Field(
        0.5, ge=0, le=1, description="Least P(relevant) of a query's best positive for it to give negatives; 0: off"
    )
    max_share_of_best: float = Field(
        0.5, ge=0, le=1, description="Drop negatives above this share of the query's best P(relevant); 0: off"
    )
    judge_rank: int = Field(
        1, ge=0, description="Drop negatives among the judge's own top N of the query's passages; 0: off"
    )
    agreement_rank: int = Field(
        1, ge=0, description="Drop negatives that every system and the judge have in their top N; 0: off"
    )
    easy_per_hard: float = Field(
        2.0, ge=0, description="Easy negatives (judged, surely not relevant, not hard) for each hard one; 0: none"
    )
    easy_threshold: float = Field(0.1, ge=0, le=1, description="An easy negative's P(relevant) must be below this")
    round_examples: int = Field(
        0, ge=0, description="Maximum examples of one round of training, drawn by round_order; 0: all"
    )
    round_negatives: int = Field(
        0, ge=0, description="Maximum negatives of one round of training, all its examples together; 0: all"
    )
    round_order: Literal["random", "hardest"] = Field(
        "random", description="Which examples a round takes first: at random by round_seed, or the hardest"
    )
    round_seed: int = Field(0, description="Seed of the random order of a round")
    relevant_grades: dict[str, int] = Field(
        dict(RELEVANT_GRADE), description="Least relevant grade of scales beside the built-in ones, by scale name"
    )

    without_stage_scores: bool = Field(
        False,
        description="Take positives and negatives only from labels that do not use retrieval scores, which are the "
        "student's own",
    )
    qualification: Annotated[str, NamesFile()] = Field(
        "",
        description="File of a report from `qrelay judge qualify`: training data from judges that it finds not "
        "qualified, or does not measure, is refused without a flag; empty: no judge is measured",
    )
    override_author: str = Field(
        "", description="Author of overrides by `qrelay label`; empty: the name of the user who runs it"
    )
    keep_queries_days: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="Days that a collection's queries are kept, by collection; `qrelay forget --expired` forgets "
        "older ones. Collections that are not named keep theirs"
    )  # fmt: skip
    publish: PublishSettings = PublishSettings()
    training: TrainingSettings = TrainingSettings()

    @field_validator("publish")
    @classmethod
    def _publishable(cls, value: PublishSettings) -> PublishSettings:
        from qrelay.labels.exports.catalogue import FORMATS, NO_LABELS
        from qrelay.labels.exports.splits import BY_QUERY, parse_splits

        known = [name for name, each in FORMATS.items() if each.use != NO_LABELS]
        if value.format not in known:
            raise ValueError(f"format {value.format!r} cannot be published: use one of {', '.join(known)}")
        if value.split:
            try:
                parse_splits(value.split, BY_QUERY)
            except InputError as error:
                raise ValueError(str(error)) from error
        return value

    def _databases(self) -> Sequence[tuple[str, str]]:
        return (("sink.ledger", self.ledger),)

    def _endpoints(self) -> Sequence[tuple[str, str]]:
        hub = os.environ.get("HF_ENDPOINT", "") if self.publish.enabled else ""
        return (*super()._endpoints(), ("HF_ENDPOINT", hub))

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
        names = (each.name for each in fields(MiningRules) if each.name in type(self).model_fields)
        return MiningRules(**{name: getattr(self, name) for name in names})

    @property
    def round_limits(self) -> RoundLimits:
        """What one round of training takes."""
        from qrelay.labels.mining.rounds import RoundLimits

        return RoundLimits(self.round_examples, self.round_negatives, self.round_order, self.round_seed)

"""The trainer's settings: section `trainer` of the settings file, QRELAY_TRAINER__… in the environment.

trainer:
  promote: true
  bi_encoder: {experiment: kl_margin, overrides: [learning_rate=1e-5]}
  cross_encoder: {train: false}
  gate: {bi_encoder: {frozen: sets/python-docs, collections: {medquad: {frozen: sets/medquad}}}}
  own_slots: [medquad]
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from qrelay.config import NamesFile, Section, ServiceSettings
from qrelay.errors import ConfigError
from qrelay.identity import require_collections
from qrelay.integrations import TrackerName
from qrelay.models.registry import BI_ENCODER, CROSS_ENCODER, KINDS, kind_of, slot_of
from qrelay.settings import load_settings
from qrelay.training.gate.rules import GateRules, read_rules

SECTION = "trainer"
EVERY = "*"


def _nothing(value: Any) -> Any:
    return None if value == "" else value


class SlotTraining(Section):
    """How one slot's versions are trained."""

    train: bool = Field(True, description="Whether a job trains a model for this slot")
    experiment: Annotated[str, NamesFile((".yaml", ".yml"))] = Field(
        description="A shipped experiment (`qrelay train --list`) or a YAML file"
    )
    overrides: tuple[str, ...] = Field((), description="Fields of the experiment, such as learning_rate=1e-5")
    export: Literal["triples", "labels"] = Field(
        "triples", description="Training data: mined examples, or every graded passage with its soft label"
    )
    start: Literal["base", "serving"] = Field(
        "base",
        description="The model that training begins from: the experiment's own, or the version that serves (the "
        "experiment's where none does). Labels accumulate, so base learns from all of them either way",
    )


class TrainerSettings(ServiceSettings):
    """See `qrelay config trainer` for the effective values."""

    bi_encoder: SlotTraining = Field(SlotTraining(experiment="kl_margin"), description="Of the retriever's model")
    cross_encoder: SlotTraining = Field(
        SlotTraining(experiment="cross_encoder"), description="Of the reranker's model"
    )
    own_slots: tuple[str, ...] = Field(
        (),
        description="Collections whose versions go into slots of their own, such as bi_encoder:medquad, and serve no "
        "other; *: all. The rest go into the default slots, which serve every collection that has none of its own",
    )
    min_queries: int = Field(
        50, ge=1, description="Training queries without which a job ends and publishes nothing (exit code 5)"
    )
    dev_share: float = Field(
        0.1, ge=0, lt=1, description="Share (0 to 1) of the queries, by hash, kept for early stop; 0: none"
    )
    promote: bool = Field(True, description="Whether a version that passes the gate serves at once")
    human_labels: bool = Field(True, description="Let people's decisions (`qrelay label`) win over judges' labels")
    gate_rules: Annotated[Path | None, BeforeValidator(_nothing)] = Field(
        None, description="YAML file of the gate's rules, instead of `gate`"
    )
    gate: GateRules = Field(GateRules(), description="The gate's rules")
    track: tuple[TrackerName, ...] = Field(
        (),
        description="Experiment trackers that are told of each job's runs and versions, where the tool's own "
        "variables (MLFLOW_…, WANDB_…) say; `qrelay track` tells them of the rest",
    )
    swap_timeout_s: float = Field(
        900.0,
        gt=0,
        description="Seconds without progress until `qrelay rounds` gives up on a service that shall serve what it "
        "promoted",
    )

    @field_validator("own_slots")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        require_collections(name for name in value if name != EVERY)
        return value

    def of(self, slot: str) -> SlotTraining:
        """The slot's training."""
        return {BI_ENCODER: self.bi_encoder, CROSS_ENCODER: self.cross_encoder}[kind_of(slot)]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Those that are trained, the bi-encoder first: what it gains raises what a cross-encoder must beat."""
        return tuple(kind for kind in KINDS if self.of(kind).train)

    def slots(self, collection: str) -> tuple[str, ...]:
        """The slots that a job of the collection trains for, a kind each."""
        own = collection if {collection, EVERY} & {*self.own_slots} else ""
        return tuple(slot_of(kind, own) for kind in self.kinds)

    def rules(self, file: Path | None = None) -> GateRules:
        """The gate's rules: of the file, else of `gate_rules`, else of `gate`. Raises ConfigError."""
        chosen = file or self.gate_rules
        return read_rules(chosen) if chosen else self.gate


def trainer_settings(config: Path | None, data_dir: Path) -> TrainerSettings:
    """The effective settings of the installation in `data_dir`. Raises ConfigError: every problem at once."""
    return load_settings(TrainerSettings, SECTION, file=config, data_dir=data_dir)


def require_followed(settings: TrainerSettings, config: Path | None, data_dir: Path) -> None:
    """Raises ConfigError where a service would never serve what is trained for it: every problem at once."""
    from qrelay.index.settings import RetrieverSettings
    from qrelay.services.reranker.settings import RerankerSettings

    retriever = load_settings(RetrieverSettings, "retriever", file=config, data_dir=data_dir)
    reranker = load_settings(RerankerSettings, "reranker", file=config, data_dir=data_dir)
    follows = {
        BI_ENCODER: retriever.engine == "embedded" and retriever.registry_poll_s > 0,
        CROSS_ENCODER: reranker.follows_registry,
    }
    advice = {
        BI_ENCODER: "set retriever.engine to embedded and retriever.registry_poll_s above 0",
        CROSS_ENCODER: "set reranker.scorer to auto and reranker.registry_poll_s above 0",
    }
    if problems := [advice[slot] for slot in settings.kinds if settings.promote and not follows[slot]]:
        raise ConfigError(
            f"what rounds promote would never serve: {'; '.join(problems)}; or set trainer.<slot>.train to false"
        )


def configured_models(config: Path | None, data_dir: Path) -> tuple[dict[str, str], int]:
    """kind -> the model that its service runs where nothing is promoted; empty: none. And the tokens to which the
    reranker cuts the cross-encoder's pairs. Raises ConfigError."""
    from qrelay.index.settings import RetrieverSettings
    from qrelay.services.reranker.settings import RerankerSettings

    retriever = load_settings(RetrieverSettings, "retriever", file=config, data_dir=data_dir)
    reranker = load_settings(RerankerSettings, "reranker", file=config, data_dir=data_dir)
    cross_encoder = reranker.cross_encoder if reranker.scorer in ("auto", "cross_encoder") else ""
    return {BI_ENCODER: retriever.embedder, CROSS_ENCODER: cross_encoder}, reranker.max_length

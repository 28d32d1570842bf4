"""What the gate demands, slot by slot: a section of the settings (`trainer.gate`), or a YAML file of its own.

bi_encoder:
  frozen: sets/python-docs          # must be better here
  guard: [{set: sets/medquad-dev}]  # and not worse there
  minimum_effect: 0.01
  collections:
    medquad: {frozen: sets/medquad} # of bi_encoder:medquad, the collection's own slot
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError, field_validator

from qrelay.config import Section
from qrelay.errors import ConfigError
from qrelay.identity import require_collections
from qrelay.models.registry import BI_ENCODER, CROSS_ENCODER, collection_of, kind_of
from qrelay.parsing import yaml_document

METRIC: Final = "nDCG@10"


class Guard(Section):
    """A set on which a version may not be worse: non-inferiority, tested by bootstrap."""

    set: Path = Field(description="Folder of a frozen set (`qrelay eval freeze`)")
    metric: str = Field(METRIC, description="A measure of ir-measures")
    max_drop: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Absolute fall that would still be borne: the one-sided lower bound of the difference must be "
        "above minus this",
    )


def _without_nothing(value: Any) -> Any:
    """A path given as an empty text (in the environment) is no path."""
    return None if value == "" else value


class Sets(Section):
    """What a slot's versions are measured on."""

    frozen: Annotated[Path | None, BeforeValidator(_without_nothing)] = Field(
        None, description="Folder of the frozen set on which a version must be better; empty: nothing passes"
    )
    guard: tuple[Guard, ...] = Field((), description="Sets on which it may not be worse: set, metric, max_drop")

    def folders(self) -> Iterator[Path]:
        """Of all of them, the frozen set first."""
        if self.frozen is not None:
            yield self.frozen
        yield from (guard.set for guard in self.guard)


class SlotRules(Sets):
    """The rules of a default slot, and the sets of collections' own."""

    metric: str = Field(METRIC, description="The measure that decides, of ir-measures")
    alpha: float = Field(
        0.05,
        gt=0,
        lt=0.5,
        description="Level of every test, one-sided: p of the paired randomisation test at most this, and the "
        "bootstrap bound of the same level",
    )
    minimum_effect: float = Field(
        0.0, ge=0, lt=1, description="Absolute difference of the means that must be exceeded, in the tests too"
    )
    min_queries: int = Field(30, ge=2, description="Queries that a set must have; with fewer nothing passes")
    evaluation_judge: Literal["other_model", "other_family"] = Field(
        "other_model",
        description="Whom a set's LLM judges must differ from, beside the judges of the training data: in model and "
        "revision, or in the model's family too; people's and gold labels are always fine",
    )
    baseline: str = Field(
        "",
        description="Model that a version is measured against where none is promoted: catalogue name or path:FOLDER; "
        "empty: the service's own setting, and for the cross-encoder, where that names none, what the bi-encoder "
        "that serves makes of the same documents",
    )

    collections: dict[str, Sets] = Field(
        {},
        description="By collection, the sets (frozen, guard) of its own slot, whose other rules are these. One "
        "that is not named has no sets, and nothing passes",
    )

    @field_validator("collections")
    @classmethod
    def _names(cls, value: dict[str, Sets]) -> dict[str, Sets]:
        require_collections(value)
        return value


class GateRules(Section):
    """The rules of both kinds of slots."""

    bi_encoder: SlotRules = Field(SlotRules(), description="Of the retriever's model")
    cross_encoder: SlotRules = Field(SlotRules(), description="Of the reranker's model")

    def of(self, slot: str) -> SlotRules:
        """The slot's rules; those of a collection's own slot have its sets."""
        found = {BI_ENCODER: self.bi_encoder, CROSS_ENCODER: self.cross_encoder}[kind_of(slot)]
        if not (collection := collection_of(slot)):
            return found
        own = found.collections.get(collection, Sets())
        return found.model_copy(update={"frozen": own.frozen, "guard": own.guard})

    def folders(self) -> set[Path]:
        """The sets of all slots."""
        both = (self.bi_encoder, self.cross_encoder)
        return {path for slot in both for sets in (slot, *slot.collections.values()) for path in sets.folders()}


def frozen_setting(slot: str) -> str:
    """The setting that names the slot's frozen set."""
    kind, collection = kind_of(slot), collection_of(slot)
    return f"trainer.gate.{kind}.{f'collections.{collection}.' if collection else ''}frozen"


def read_rules(file: Path) -> GateRules:
    """The rules in a YAML file. Relative folders are beside it.

    Raises:
        ConfigError: every problem at once.
    """
    try:
        found = yaml_document(file.read_bytes()) or {}
        rules = GateRules.model_validate(found)
    except OSError as error:
        raise ConfigError(f"cannot read the gate's rules {file}: {error.strerror}") from error
    except ValidationError as error:
        raise ConfigError(_explain(file, error)) from error
    except ValueError as error:
        raise ConfigError(f"{file} is not YAML: {error}") from error
    return GateRules(
        bi_encoder=_beside(rules.bi_encoder, file.parent), cross_encoder=_beside(rules.cross_encoder, file.parent)
    )


def _explain(file: Path, error: ValidationError) -> str:
    lines = [f"{file} has {error.error_count()} problem(s):"]
    for each in error.errors():
        where = ".".join(str(part) for part in each["loc"]) or "the file"
        lines.append(f"  {where}: {each['msg']} (value {each['input']!r})")
    lines.append("`qrelay models gate --show-rules` shows every field")
    return "\n".join(lines)


def _beside(rules: SlotRules, folder: Path) -> SlotRules:
    own = {name: sets.model_copy(update=_placed(sets, folder)) for name, sets in rules.collections.items()}
    return rules.model_copy(update={**_placed(rules, folder), "collections": own})


def _placed(sets: Sets, folder: Path) -> dict[str, Any]:
    guards = tuple(guard.model_copy(update={"set": folder / guard.set}) for guard in sets.guard)
    return {"frozen": sets.frozen and folder / sets.frozen, "guard": guards}

"""The settings of publishing, `sink.publish.*`. Every problem is a field's, so that all are reported at once."""

from __future__ import annotations

import re
from typing import Final

from pydantic import Field, ValidationInfo, field_validator

from qrelay.config import Section
from qrelay.identity import require_collections

COLLECTION: Final = "{collection}"
DETAIL: Final = "publish."
"""How the details of GetInfo begin that say how publishing stands: before the collection."""
_REPO: Final = re.compile(r"[\w.-]+/[\w.-]+")


class PublishSettings(Section):
    """Which labels go to a Hugging Face hub by themselves, when, and how."""

    repo: str = Field(
        "",
        description=f"Dataset repository on a Hugging Face hub, owner/name; may hold {COLLECTION}; empty: nothing is "
        "published",
    )
    collections: tuple[str, ...] = Field((), description="Collections that are published; empty: all")
    format: str = Field("hf", description="What is published: a format of `qrelay export`")
    every_labels: int | None = Field(
        1000, ge=1, description="Publish after this many new labels of a collection; empty: no such rule"
    )
    every_hours: float | None = Field(
        24.0,
        gt=0,
        description="Publish new labels so many hours after the last time (before the first: after the first query); "
        "empty: no such rule",
        validate_default=True,
    )
    public: bool = Field(False, description="Make new repositories public, and publish to public ones")
    split: str = Field("", description="Splits and their shares, by query: train=0.9,dev=0.1; empty: none")
    overrides: bool = Field(True, description="Let people's decisions (`qrelay label`) win over judges'")
    license: str = Field("", description="Licence on the card of format hf, as the hub spells it")
    poll_s: float = Field(10.0, gt=0, description="Seconds between checks of what is due")

    @property
    def enabled(self) -> bool:
        """Whether anything is published."""
        return bool(self.repo)

    def covers(self, collection: str) -> bool:
        """Whether this collection is published."""
        return not self.collections or collection in self.collections

    def repo_of(self, collection: str) -> str:
        """Where a collection goes."""
        return self.repo.replace(COLLECTION, collection)

    @field_validator("repo")
    @classmethod
    def _repo(cls, value: str) -> str:
        if value and not _REPO.fullmatch(value.replace(COLLECTION, "c")):
            raise ValueError(f"{value!r} names no repository: write owner/name, which may hold {COLLECTION}")
        return value

    @field_validator("collections")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        require_collections(value)
        return value

    @field_validator("every_hours")
    @classmethod
    def _some_rule(cls, value: float | None, info: ValidationInfo) -> float | None:
        if value is None and info.data.get("repo") and info.data.get("every_labels", 1) is None:
            raise ValueError("a repository is named and nothing says when: set every_labels or every_hours")
        return value

"""A version's manifest: its files with their hashes, and everything that made them. Written once, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from pydantic import ConfigDict, TypeAdapter

from qrelay.errors import ModelError
from qrelay.identity import digest
from qrelay.models.registry.slots import in_words

LAST_US: Final = 253_402_300_799_000_000
"""The last second that a date can name."""
_VERSION_CHARS: Final = 10
_STRICT: Final = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class JudgeRef:
    """A judge whose labels were trained on. `hash`: `qrelay.identity.judge_digest`."""

    hash: str
    model: str
    revision: str
    strategy: str
    labels: int = 0
    """How many labels of it the data held."""


@dataclass(frozen=True, slots=True)
class DataSource:
    """A file that was trained on. `manifest` is the export's own, whole: ledger, changes, rules, counts."""

    name: str
    sha256: str
    rows: int
    manifest: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Manifest:
    """See the module.

    parent: the version that training began from; empty: `base`. base: fingerprint of the model that training began
    from. files: path inside the model's folder -> sha256. metrics: of training, as far as it measured itself; the
    gate's are in the history.
    """

    version: str
    slot: str
    created_us: int
    parent: str
    base: str
    collections: tuple[str, ...]
    experiment: Mapping[str, Any]
    data: tuple[DataSource, ...]
    judges: tuple[JudgeRef, ...]
    files: Mapping[str, str]
    metrics: Mapping[str, Any] = field(default_factory=dict)
    job: str = ""
    qrelay: str = ""

    def as_json(self) -> dict[str, Any]:
        """Plain data; `from_json` reads it back."""
        found: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return found


_ADAPTER: Final[TypeAdapter[Manifest]] = TypeAdapter(Manifest, config=None)


def from_json(content: bytes, where: str) -> Manifest:
    """A manifest's file. Raises ModelError where it is damaged."""
    try:
        found = _ADAPTER.validate_json(content)
        if not 0 <= found.created_us <= LAST_US:
            raise ValueError(f"created_us {found.created_us} is no time")
        return found
    except ValueError as error:
        raise ModelError(f"{where} is damaged: {error}; restore the registry from a backup") from error


def version_of(slot: str, files: Mapping[str, str], made_by: Mapping[str, Any]) -> str:
    """The version's name: its slot, and a hash over its bytes and what made them. The same model made of the same
    data by the same experiment is the same version, however often it is published."""
    lines = [f"{sha256} {path}" for path, sha256 in sorted(files.items())]
    return f"{in_words(slot)}-{digest(slot, *lines, repr(sorted(made_by.items())))[:_VERSION_CHARS]}"

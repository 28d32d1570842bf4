"""What a service loads: a version, and all of one kind that serve at one moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from qrelay.models.encoding import encoding
from qrelay.models.registry.slots import BI_ENCODER, kind_of


@dataclass(frozen=True, slots=True)
class ServedVersion:
    """A version to load. `path`: its sentence-transformers folder. `fingerprint`: as traces and GetInfo name it."""

    version: str
    slot: str
    path: Path

    @property
    def fingerprint(self) -> str:
        """The version's name, for its bytes are checked, and a bi-encoder's own `encoding` of texts."""
        return f"{self.version}{encoding(self.path) if kind_of(self.slot) == BI_ENCODER else ''}@registry"


@dataclass(frozen=True, slots=True)
class Serving:
    """What serves at one moment, of one kind. `default`: None: the configured model. `own`: by collection, of those
    that have a version in their own slot."""

    default: ServedVersion | None
    own: Mapping[str, ServedVersion]

    def of(self, collection: str) -> ServedVersion | None:
        """What serves the collection; None: the configured model."""
        return self.own.get(collection, self.default)

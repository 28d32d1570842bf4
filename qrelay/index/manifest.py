"""The manifest: what an index version is, and the proof that its files are whole.

    DIR/NAME/CURRENT                 the version that is served: one line, replaced atomically
    DIR/NAME/<version>/manifest.json this record; a folder without one is no index
    DIR/NAME/.build-<version>/       a build under way, or interrupted: the next one continues it

A version is a hash of the corpus, the model and the parameters: the same three give the same version,
and a version's files never change.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError

from qrelay.errors import CorpusIndexError
from qrelay.files import is_file, write_atomic
from qrelay.identity import digest
from qrelay.index.ann import Approximation
from qrelay.index.arrays import load_array
from qrelay.models.home import hash_file
from qrelay.nearest import did_you_mean
from qrelay.parsing import json_document
from qrelay.terms import TOKENIZER, Tokenize, named_tokenizer

FORMAT: Final = 1
MANIFEST: Final = "manifest.json"
CURRENT: Final = "CURRENT"
REMOVED: Final = "removed.npy"
SCAFFOLD: Final = ".scaffold"
"""Folder inside an unfinished build that only the build needs."""
UNDER_WAY: Final = f"{SCAFFOLD}/chunked.json"
"""Of a version under way, once its passages are there: embedder, documents, passages."""
VERSION_CHARS: Final = 16
_NAME: Final = re.compile(r"\w[\w.-]*", re.ASCII)
_NAME_BYTES: Final = 100


class FileEntry(BaseModel):
    """One file of an index: `path` relative to the version's folder."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    size_bytes: int
    sha256: str


class Manifest(BaseModel):
    """One index version. Counts: `rejected` records had no usable document, `duplicates` repeated one
    word for word, `reused` passages took their vectors from an earlier version. `build_seconds` is the
    time of the run that finished it, and `passages_per_second` that run's embedding rate.

    None where nobody measured it: `tokens` of the passages and how many of them are `unknown_tokens` of the embedder,
    passages `without_terms` for BM25, pieces of windows that were too long in characters (`windows_cut`), and
    documents `with_metadata`.

    ann: the approximate index; None: dense search is exact. removed: passages that are there and never found, whose
    rows `removed.npy` lists."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: int = FORMAT
    collection: str
    version: str
    source: str
    corpus_hash: str
    embedder: str
    dim: int
    parameters: dict[str, int | float | str]
    documents: int
    passages: int
    rejected: int
    duplicates: int
    reused: int
    build_seconds: float
    passages_per_second: float
    size_bytes: int
    files: tuple[FileEntry, ...]
    tokens: int | None = None
    unknown_tokens: int | None = None
    without_terms: int | None = None
    windows_cut: int | None = None
    with_metadata: int | None = None
    ann: Approximation | None = None
    removed: int = 0

    def dense_facts(self) -> dict[str, str]:
        """How vectors are stored and searched, for people."""
        found = {"vectors": str(self.parameters.get("vectors", "float32")), "ann": "exact"}
        if self.ann is not None:
            told = f"{self.ann.recall:.4f} (at {self.ann.recall_at}, {self.ann.queries} questions)"
            found |= {"ann": self.ann.kind, "ann_effort": str(self.ann.effort), "ann_recall": told}
        if self.removed:
            found["removed_passages"] = str(self.removed)
        return found

    @property
    def tokenizer(self) -> str:
        """The name of what made BM25's terms."""
        return str(self.parameters.get("bm25_tokenizer", TOKENIZER))

    def tokenize(self, folder: Path) -> Tokenize:
        """What makes a query's terms as the passages' were made. Raises CorpusIndexError: this qrelay lacks it."""
        found = named_tokenizer(self.tokenizer)
        if found is None:
            command = f"qrelay index build {self.source} --collection {self.collection} --out {folder.parents[1]}"
            raise CorpusIndexError(
                f"{folder} was built with BM25's tokenizer {self.tokenizer!r}, which this qrelay does not have: build"
                f" it again: `{command}`"
            )
        return found


def dead_rows(folder: Path) -> NDArray[np.int64]:
    """The rows of a version that are never found, ascending."""
    path = folder / REMOVED
    return np.asarray(load_array(path), np.int64) if path.exists() else np.empty(0, np.int64)


def version_of(corpus_hash: str, embedder: str, parameters: Mapping[str, int | float | str]) -> str:
    """The version's name: 16 hexadecimal characters."""
    return digest(str(FORMAT), corpus_hash, embedder, json.dumps(parameters, sort_keys=True))[:VERSION_CHARS]


def describe_files(folder: Path, only: Collection[str] = ()) -> tuple[FileEntry, ...]:
    """Every file under `folder` with its size and hash, by path; manifest and scaffold left out. only: none but these
    names."""
    found = [*folder.glob("*"), *folder.glob("bm25/*")]
    wanted = (path for path in found if path.name != MANIFEST and (not only or path.name in only))
    paths = sorted(path for path in wanted if path.is_file())
    return tuple(
        FileEntry(path=path.relative_to(folder).as_posix(), size_bytes=path.stat().st_size, sha256=hash_file(path))
        for path in paths
    )


def embedded_by(fingerprint: str, finished: Iterable[Path], unfinished: Iterable[Path]) -> list[Path]:
    """The folders whose vectors this model made: of finished versions, and of versions under way."""
    folders = []
    for folder in finished:
        with suppress(CorpusIndexError):
            if read_manifest(folder).embedder == fingerprint:
                folders.append(folder)
    for work in unfinished:
        with suppress(OSError, ValueError, KeyError, TypeError):
            if json_document((work / UNDER_WAY).read_text("utf8"))["embedder"] == fingerprint:
                folders.append(work)
    return folders


def write_manifest(folder: Path, manifest: Manifest) -> None:
    write_atomic(folder / MANIFEST, manifest.model_dump_json(indent=1) + "\n")


def read_manifest(folder: Path) -> Manifest:
    """The manifest of one version.

    Raises:
        CorpusIndexError: absent, damaged, or of another format version.
    """
    path = folder / MANIFEST
    try:
        document = json_document(path.read_bytes())
        found = document.get("format") if isinstance(document, dict) else None
        if found != FORMAT:
            raise CorpusIndexError(
                f"{path} has index format {found}, this qrelay reads {FORMAT}; build the index again"
            )
        return Manifest.model_validate(document)
    except OSError as error:
        raise CorpusIndexError(f"{path} cannot be read ({error.strerror}); {_REMEDY}") from error
    except (ValueError, ValidationError) as error:
        raise CorpusIndexError(f"{path} is damaged ({type(error).__name__}); {_REMEDY}") from error


_REMEDY: Final = "remove this version's folder and run `qrelay index build` again, or restore it from a copy"


def problems(folder: Path, manifest: Manifest, verify: Literal["full", "size"]) -> Iterator[str]:
    """What is wrong with the files: one sentence each, with what to do."""
    for entry in manifest.files:
        path = folder / entry.path
        if not is_file(path):
            yield f"{path} is missing; {_REMEDY}"
        elif (size := path.stat().st_size) != entry.size_bytes:
            yield f"{path} has {size} bytes instead of {entry.size_bytes}; {_REMEDY}"
        elif verify == "full" and hash_file(path) != entry.sha256:
            yield f"{path} is corrupt: its sha256 is not the manifest's; {_REMEDY}"


def checked_manifest(folder: Path, verify: Literal["full", "size"]) -> Manifest:
    """The manifest of a version whose files are whole.

    Raises:
        CorpusIndexError: naming each file that is not, and the fix.
    """
    manifest = read_manifest(folder)
    if found := list(problems(folder, manifest, verify)):
        raise CorpusIndexError("\n".join(found))
    return manifest


def current_version(collection_dir: Path) -> str | None:
    """The version that CURRENT names, or None where nothing was built yet, or CURRENT is damaged: the next build puts
    it right."""
    try:
        name = (collection_dir / CURRENT).read_bytes()[:_NAME_BYTES].decode().strip()
    except (OSError, ValueError):
        return None
    return name if _NAME.fullmatch(name) else None


def collections_in(index_dir: Path) -> dict[str, Path]:
    """The collections under an index folder that have a current version, by name."""
    if not index_dir.is_dir():
        return {}
    return {path.parent.name: path.parent for path in sorted(index_dir.glob(f"[!.]*/{CURRENT}"))}


def homes_of(index_dir: Path, wanted: Collection[str] = ()) -> dict[str, Path]:
    """The collections under an index folder that are wanted, all of them where none is named, by name.

    Raises:
        CorpusIndexError: one has no version there, or none has.
    """
    homes = collections_in(index_dir)
    unknown = sorted(set(wanted) - homes.keys())
    if unknown or not homes:
        named = ", ".join(unknown) or "any collection"
        raise CorpusIndexError(
            f"{index_dir} has no index of {named}; build it with `qrelay index build`."
            + (did_you_mean(unknown[0], homes) if unknown else "")
        )
    return {name: homes[name] for name in wanted or homes}


def current_folder(collection_dir: Path) -> Path:
    """The folder of a collection's current version.

    Raises:
        CorpusIndexError: nothing was built there.
    """
    version = current_version(collection_dir)
    if version is None:
        raise CorpusIndexError(
            f"{collection_dir / CURRENT} is absent or names no version; build an index with `qrelay index build`"
        )
    return collection_dir / version

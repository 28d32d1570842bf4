"""`qrelay index reembed`: a new index version of the same passages with another model's vectors.

Texts, their order and BM25 are the current version's own files, linked (copied where links cannot be): only vectors
are made, shard by shard, so no corpus is needed and a killed run resumes. Then CURRENT names the new
version, which is the switch: every replica that shares the folder takes it up with the model it names.

    DIR/NAME/.reembed-<version>/   under way, or interrupted: the next run continues it
    DIR/NAME/.reembed.lock         one process at a time embeds for a collection; `index build` need not wait for it

A version whose passages are the same and whose model is the wanted one is found, not made again: going back to a
former model takes no time as long as its version was not deleted.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from qrelay.errors import CorpusIndexError
from qrelay.files import fsync_path, held, link_or_copy, write_atomic
from qrelay.index.ann import INDEX, AnnRequest
from qrelay.index.approximate import approximate
from qrelay.index.manifest import (
    CURRENT,
    MANIFEST,
    SCAFFOLD,
    UNDER_WAY,
    Manifest,
    checked_manifest,
    current_folder,
    current_version,
    describe_files,
    embedded_by,
    problems,
    read_manifest,
    version_of,
    write_manifest,
)
from qrelay.index.stored import VECTORS, form_of
from qrelay.index.vectors import done_rows, embed_passages
from qrelay.models.embedder import Embedder
from qrelay.parsing import json_document

PREFIX: Final = ".reembed-"
CUTTER: Final = "window_tokenizer"
"""Parameter of a version whose passages were cut by the tokens of another model than its own: that model."""
_LOCK_WAIT_S: Final = 10.0
_OF_VECTORS: Final = frozenset({VECTORS, INDEX})


@dataclass(frozen=True, slots=True)
class Reembedded:
    """`already`: nothing had to be embedded. `switched`: CURRENT names it now. `resumed`: vectors that an earlier
    run had left."""

    folder: Path
    manifest: Manifest
    already: bool
    switched: bool
    resumed: int = 0


def reembed(home: Path, embedder: Embedder, still_wanted: Callable[[], bool] = lambda: True) -> Reembedded:
    """Make the collection in `home` serve with `embedder`; asked once more before the switch whether it is wanted.

    Raises:
        CorpusIndexError: there is no index, it is damaged, or another process re-embeds it or builds.
    """
    with only_one(home):
        return reembed_held(home, embedder, still_wanted)


def reembed_held(home: Path, embedder: Embedder, still_wanted: Callable[[], bool] = lambda: True) -> Reembedded:
    """`reembed` for a caller that is in `only_one` already."""
    while True:
        source = checked_manifest(current_folder(home), "size")
        version, resumed = find_version(home, source, embedder.fingerprint), 0
        already = version is not None
        if version is None:
            version, resumed = _make(home, source, embedder)
        wanted = still_wanted()
        if wanted and not switch(home, source.version, version):
            continue  # a build has brought another corpus meanwhile: its unchanged passages are embedded already
        for leftover in home.glob(f"{PREFIX}*"):
            shutil.rmtree(leftover, ignore_errors=True)
        return Reembedded(home / version, read_manifest(home / version), already, wanted, resumed)


def only_one(home: Path) -> AbstractContextManager[None]:
    """Raises CorpusIndexError where another process re-embeds this collection."""
    busy = CorpusIndexError(f"another process re-embeds {home}; wait for it, or end it, and rerun")
    return held(home / ".reembed.lock", busy)


def find_version(home: Path, like: Manifest, fingerprint: str) -> str | None:
    """A whole version of the same corpus and passages as `like` with this model's vectors."""
    if like.embedder == fingerprint:
        return like.version
    for path in sorted(home.glob(f"[!.]*/{MANIFEST}")):
        with suppress(CorpusIndexError):
            facts = read_manifest(path.parent)
            same = facts.embedder == fingerprint and passages_of(facts) == passages_of(like)
            if same and not list(problems(path.parent, facts, "size")):
                return facts.version
    return None


def switch(home: Path, source: str, version: str) -> bool:
    """Name `version` in CURRENT. False: CURRENT no longer names `source`, nor names it already.

    Raises:
        CorpusIndexError: a build is under way; once it has ended there is another corpus to embed.
    """
    try:
        with FileLock(home / ".lock", timeout=_LOCK_WAIT_S):
            current = current_version(home)
            if current == source != version:
                write_atomic(home / CURRENT, version + "\n")
            return current in (source, version)
    except Timeout as error:
        raise CorpusIndexError(f"a build writes to {home}: the new vectors are kept, and used after it") from error


def under_way(home: Path, fingerprint: str) -> tuple[int, int] | None:
    """(embedded, of) passages of an unfinished re-embedding by this model, in any process; None: there is none."""
    for work in home.glob(f"{PREFIX}*"):
        with suppress(OSError, ValueError, KeyError, TypeError):
            state = json_document((work / UNDER_WAY).read_text("utf8"))
            if state["embedder"] == fingerprint:
                total = int(state["passages"])
                return total if (work / MANIFEST).exists() else done_rows(work), total
    return None


def _make(home: Path, source: Manifest, embedder: Embedder) -> tuple[str, int]:
    """Embed and seal. Returns (the new version, how many vectors an interrupted run had left)."""
    began = time.monotonic()
    parameters = _parameters(source, embedder.fingerprint)
    version = version_of(source.corpus_hash, embedder.fingerprint, parameters)
    work, folder, resumed = home / f"{PREFIX}{version}", home / version, 0
    if not (work / MANIFEST).exists():
        _scaffold(home / source.version, source, work, embedder.fingerprint)
        earlier = _earlier(home, work, embedder.fingerprint)
        form = form_of(parameters)
        vectors = embed_passages(work, embedder, earlier, f"re-embedding {source.collection}", form)
        resumed = vectors.resumed
        facts: dict[str, object] = {
            "version": version,
            "embedder": embedder.fingerprint,
            "dim": embedder.dim,
            "parameters": parameters,
            "reused": vectors.reused,
            "ann": approximate(work, embedder, AnnRequest.of(parameters)),
            "tokens": None,
            "unknown_tokens": None,
            "build_seconds": round(time.monotonic() - began, 2),
            "passages_per_second": vectors.rate,
        }
        _seal(work, source, facts)
    shutil.rmtree(work / SCAFFOLD, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)  # damaged, or it would have been found
    work.rename(folder)
    fsync_path(home)
    return version, resumed


def _parameters(source: Manifest, fingerprint: str) -> dict[str, int | float | str]:
    cutter = str(source.parameters.get(CUTTER, source.embedder))
    kept = {name: value for name, value in source.parameters.items() if name != CUTTER}
    return kept if cutter == fingerprint else kept | {CUTTER: cutter}


def passages_of(manifest: Manifest) -> dict[str, str]:
    """What two versions of the same passages have in common: path -> sha256 of all but the vectors
    and their approximate index."""
    return {entry.path: entry.sha256 for entry in manifest.files if entry.path not in _OF_VECTORS}


def _scaffold(source: Path, manifest: Manifest, work: Path, fingerprint: str) -> None:
    """The source's files in `work`, unless an interrupted run has put them there."""
    if (work / UNDER_WAY).exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    (work / SCAFFOLD).mkdir(parents=True)
    for path in passages_of(manifest):
        (work / path).parent.mkdir(exist_ok=True)
        link_or_copy(source / path, work / path)
    state = {"embedder": fingerprint, "documents": manifest.documents, "passages": manifest.passages}
    write_atomic(work / UNDER_WAY, json.dumps(state))


def _earlier(home: Path, work: Path, fingerprint: str) -> list[Path]:
    """Folders whose vectors this model made: finished versions of other corpora, and interrupted runs."""
    finished = (path.parent for path in sorted(home.glob(f"[!.]*/{MANIFEST}")))
    return embedded_by(fingerprint, finished, (each for each in sorted(home.glob(f"{PREFIX}*")) if each != work))


def _seal(work: Path, source: Manifest, facts: dict[str, object]) -> None:
    """Write the manifest. The linked files keep the hashes that the source says: a damaged one stays found out."""
    made = describe_files(work, _OF_VECTORS)
    files = sorted(
        [*made, *(entry for entry in source.files if entry.path not in _OF_VECTORS)], key=lambda entry: entry.path
    )
    for folder in (*(work / entry.path for entry in made), work / "bm25", work):
        fsync_path(folder)
    size = sum(entry.size_bytes for entry in files)
    write_manifest(work, source.model_copy(update={**facts, "files": tuple(files), "size_bytes": size}))

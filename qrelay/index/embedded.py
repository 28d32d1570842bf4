"""EmbeddedEngine: one index version on this machine, and the folder that holds the versions."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from qrelay.errors import CorpusIndexError
from qrelay.index.arrays import load_array
from qrelay.index.bm25 import Bm25
from qrelay.index.dense import open_dense
from qrelay.index.engine import Found, Vectors
from qrelay.index.manifest import (
    CURRENT,
    Manifest,
    checked_manifest,
    collections_in,
    current_folder,
    dead_rows,
    read_manifest,
)
from qrelay.index.ranking import Depths, Fused, fuse, near_top
from qrelay.index.reembed import find_version, switch
from qrelay.index.settings import RetrieverSettings
from qrelay.index.store import PassageStore
from qrelay.index.stored import StoredVectors
from qrelay.types import BM25, DENSE, Candidate, Score

_log = logging.getLogger(__name__)


class EmbeddedEngine:
    """One index version on this machine.

    Dense search finds who may be in the top k, exactly or by FAISS as the manifest says, and those are scored again
    pair by pair in float64, as are BM25's candidates, so that neither the batch's size nor the thread count moves a
    score or a rank. BM25 is bm25s.
    """

    name = "embedded"

    def __init__(self, folder: Path, depths: Depths, verify: Literal["full", "size"] = "size") -> None:
        """Raises CorpusIndexError where the version is absent or damaged."""
        self._manifest: Manifest = checked_manifest(folder, verify)
        self._depths = depths
        tokenize = self._manifest.tokenize(folder)
        try:
            self._store = PassageStore(folder)
            self._vectors = StoredVectors.open(folder)
            dead = dead_rows(folder)
            self._dense = open_dense(folder, self._vectors, self._manifest.ann, dead)
            self._order = load_array(folder / "order.npy")
            self._bm25 = Bm25.load(folder / "bm25", tokenize, dead)
        except Exception as error:  # whatever numpy and bm25s raise at bytes that are not theirs
            raise CorpusIndexError(
                f"a file in {folder} is damaged ({error!r}); remove the folder and run `qrelay index build` again"
            ) from error

    @property
    def version(self) -> str:
        return self._manifest.version

    @property
    def embedder(self) -> str:
        return self._manifest.embedder

    def describe(self) -> dict[str, str]:
        facts = self._manifest
        return {
            "version": facts.version,
            "embedder": facts.embedder,
            "bm25_tokenizer": facts.tokenizer,
            "documents": str(facts.documents),
            "passages": str(facts.passages),
            "size_bytes": str(facts.size_bytes),
            **facts.dense_facts(),
        }

    def search(self, texts: Sequence[str], vectors: Vectors | None, limit: int) -> Found:
        if vectors is None:
            raise ValueError("the embedded engine needs query vectors")
        near = self._dense.near(vectors, self._depths.dense)
        return [
            self._candidates(self._fused(text, vector, rows, limit))
            for text, vector, rows in zip(texts, vectors, near, strict=True)
        ]

    def _fused(self, text: str, vector: Vectors, by_dense: NDArray[np.int64], limit: int) -> Fused:
        lexical = self._bm25.scores(text)
        by_bm25 = near_top(lexical, self._depths.bm25, positive=True)
        rows = np.union1d(by_bm25, by_dense)
        dense = np.einsum("ij,j->i", self._vectors.take(rows), vector, dtype=np.float64)
        return fuse(rows, lexical[rows].astype(np.float64), dense, self._order[rows], self._depths, limit)

    def _candidates(self, fused: Fused) -> tuple[Candidate, ...]:
        passages = self._store.passages(fused.rows)
        columns = (fused.bm25.tolist(), fused.bm25_rank.tolist(), fused.dense.tolist(), fused.dense_rank.tolist())
        return tuple(
            Candidate(passage, (Score(BM25, bm25, bm25_rank), Score(DENSE, dense, dense_rank)))
            for passage, bm25, bm25_rank, dense, dense_rank in zip(passages, *columns, strict=True)
        )


class FolderVersions:
    """The collections of an index folder, whose CURRENT files name their versions."""

    def __init__(self, settings: RetrieverSettings) -> None:
        self._settings = settings

    def homes(self) -> dict[str, Path]:
        """The folder of each collection that has a version and shall be served."""
        wanted, found = self._settings.collections, collections_in(self._settings.index_folder)
        return {name: home for name, home in found.items() if not wanted or name in wanted}

    def marks(self) -> Mapping[str, Hashable]:
        return {name: _mark(home / CURRENT) for name, home in self.homes().items()}

    def catch_up(
        self, wanted: Callable[[str], str], concerns: Callable[[str, str], bool]
    ) -> tuple[dict[str, Path], list[str]]:
        behind, problems = {}, []
        for name, home in self.homes().items():
            model = wanted(name)
            try:
                facts = read_manifest(current_folder(home))
                if facts.embedder == model or not concerns(facts.embedder, model):
                    continue
                found = find_version(home, facts, model)
                if found is None:
                    behind[name] = home
                elif switch(home, facts.version, found):
                    _log.info("switched %s to version %s, which was on disk", name, found)
            except (CorpusIndexError, OSError) as error:
                problems.append(f"{name} cannot be switched to {model}: {error}")
        return behind, problems

    def open(self, name: str) -> EmbeddedEngine:
        settings = self._settings
        depths = Depths(settings.bm25_top_k, settings.dense_top_k, settings.rrf_k)
        return EmbeddedEngine(current_folder(settings.index_folder / name), depths, settings.verify)

    def reembed_command(self, name: str, model: str) -> str:
        return f"qrelay index reembed --model {model} --collection {name} --out {self._settings.index_folder}"


def _mark(path: Path) -> tuple[int, int]:
    """Changes whenever the file is replaced."""
    try:
        stat = path.stat()
    except OSError:
        return (0, 0)
    return (stat.st_mtime_ns, stat.st_ino)

"""A version of the local index folder into Milvus, and then its alias onto it.

1. create   an empty collection with its indexes; its name says version and layout (layout.py)
2. rows     passages in order, their row as primary key, so that a request that comes twice changes nothing; how
            many are acknowledged is kept in `.milvus-<name>.json` beside the version, where a killed run goes on
3. seal     flush, wait for the indexes, load into memory, count: every passage is there once
4. switch   the alias names the new version, in one step; retrievers take it up at their next look
5. clear    versions older than the former one are dropped; the former stays, for queries in flight and for a way back

The alias never names a version that is not whole: until step 4 the former one serves.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from qrelay.errors import CorpusIndexError
from qrelay.files import held, write_atomic
from qrelay.identity import digest
from qrelay.index.documents import written_metadata
from qrelay.index.manifest import Manifest, checked_manifest, current_folder, dead_rows
from qrelay.index.milvus.client import Absent, Milvus
from qrelay.index.milvus.layout import (
    DOC_ID,
    METADATA,
    NUMBER,
    ROW,
    TERMS,
    TEXT,
    TITLE,
    VARCHAR_BYTES,
    VECTOR,
    alias_of,
    create,
    name_of,
    versions_of,
)
from qrelay.index.milvus.settings import MilvusSettings
from qrelay.index.milvus.versions import current, rows_in
from qrelay.index.milvus.waiting import make_searchable, wait_for_indexes
from qrelay.index.reembed import passages_of
from qrelay.index.store import PassageStore
from qrelay.index.stored import StoredVectors
from qrelay.parsing import json_document
from qrelay.progress import Step, step
from qrelay.runtime import faults
from qrelay.text import passage_text

_BATCH_BYTES: Final = 16 * 1024**2
"""Of one request; Milvus takes 64 MiB by default."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A version that Milvus serves now. already: it did before. resumed: passages that an earlier run had loaded.
    dropped: versions of Milvus that are gone."""

    collection: str
    name: str
    manifest: Manifest
    already: bool
    resumed: int
    dropped: tuple[str, ...]


def load_current(home: Path, settings: MilvusSettings) -> Loaded:
    """Make Milvus serve the current version of the collection in the folder `home`.

    Raises:
        CorpusIndexError: there is none, it is damaged, another process loads it, or Milvus refuses it.
        ConfigError: the settings of Milvus, or its credentials.
        TransientError: Milvus does not answer; the same call goes on.
    """
    busy = CorpusIndexError(f"another process loads {home} into Milvus; wait for it, or end it, and rerun")
    with held(home / ".milvus.lock", busy):
        folder = current_folder(home)
        manifest, milvus = checked_manifest(folder, "size"), Milvus(settings)
        try:
            return _Loader(milvus, home, folder, manifest).run()
        finally:
            milvus.close()


class _Loader:
    def __init__(self, milvus: Milvus, home: Path, folder: Path, manifest: Manifest) -> None:
        self._milvus, self._home, self._folder, self._manifest = milvus, home, folder, manifest
        self._name = name_of(manifest, milvus.settings)
        self._notes = home / f".milvus-{self._name}.json"
        self._rows = np.setdiff1d(np.arange(manifest.passages), dead_rows(folder))

    def run(self) -> Loaded:
        collection, former = self._manifest.collection, self._served()
        resumed = 0
        if former != self._name:
            resumed = self._fill()
            self._switch(former)
        dropped = self._clear(keep={self._name, former}) if former != self._name else ()
        self._notes.unlink(missing_ok=True)
        return Loaded(collection, self._name, self._manifest, former == self._name, resumed, dropped)

    def _served(self) -> str:
        """What the alias names; "": there is none."""
        with suppress(Absent):
            return current(self._milvus, self._manifest.collection)
        return ""

    def _fill(self) -> int:
        """Rows, indexes and memory. Returns how many rows an earlier run had left."""
        if not self._milvus.ask("has_collection", self._name):
            self._notes.unlink(missing_ok=True)
        passages = digest(json.dumps(passages_of(self._manifest), sort_keys=True))
        create(self._milvus, self._manifest, passages)
        faults.point("index.milvus.created")
        done = self._noted()
        if done < len(self._rows):
            self._write(done)
        faults.point("index.milvus.written")
        self._milvus.ask("flush", self._name, timeout_s=self._milvus.settings.wait_s)
        wait_for_indexes(self._milvus, self._name)
        make_searchable(self._milvus, self._name, self._milvus.settings.wait_s)
        self._check()
        return done

    def _check(self) -> None:
        found = rows_in(self._milvus, self._name)
        if found != len(self._rows):
            self._notes.unlink(missing_ok=True)
            self._milvus.ask("drop_collection", self._name)
            raise CorpusIndexError(
                f"Milvus holds {found:,} of the {len(self._rows):,} passages of {self._name}, which is dropped; the "
                "former version goes on serving. Run the same command again"
            )

    def _switch(self, former: str) -> None:
        faults.point("index.milvus.switch")
        verb = "alter_alias" if former else "create_alias"
        self._milvus.ask(verb, self._name, alias_of(self._manifest.collection))
        faults.point("index.milvus.switched")

    def _clear(self, keep: set[str]) -> tuple[str, ...]:
        begin = versions_of(self._manifest.collection)
        there = sorted(each for each in self._milvus.ask("list_collections") if each.startswith(begin))
        old = tuple(each for each in there if each not in keep)
        for each in old:
            self._milvus.ask("drop_collection", each)
        return old

    def _noted(self) -> int:
        """Rows that are acknowledged, by this server's collection."""
        with suppress(OSError, ValueError, KeyError, TypeError):
            notes = json_document(self._notes.read_text("utf8"))
            if notes["uri"] == self._milvus.settings.uri:
                return int(notes["rows"])
        return 0

    def _note(self, rows: int) -> None:
        write_atomic(self._notes, json.dumps({"uri": self._milvus.settings.uri, "rows": rows}))

    def _write(self, done: int) -> None:
        """Rows from `done` on, some requests at once; a row is noted when all before it are acknowledged, too."""
        writers = 1 if self._milvus.lite else self._milvus.settings.writers  # Lite takes one writer
        batches = _Batches(self._folder, self._manifest, self._milvus.settings.batch_rows)
        under_way: deque[tuple[int, Future[Any]]] = deque()
        name, total = f"loading {self._manifest.collection} into Milvus", len(self._rows)
        with step(name, total=total, unit="passages", done=done) as loading, ThreadPoolExecutor(writers) as threads:
            for batch in batches.of(self._rows[done:]):
                under_way.append((len(batch), threads.submit(self._milvus.ask, "upsert", self._name, batch)))
                if len(under_way) == writers:
                    done = self._settle(under_way, done, loading)
            while under_way:
                done = self._settle(under_way, done, loading)

    def _settle(self, under_way: deque[tuple[int, Future[Any]]], done: int, loading: Step) -> int:
        """Wait for the oldest request. Returns how many rows are acknowledged then."""
        size, answer = under_way.popleft()
        answer.result()
        self._note(done + size)
        loading.advance(size)
        faults.point("index.milvus.batch")
        return done + size


class _Batches:
    """Passages as Milvus takes them."""

    def __init__(self, folder: Path, manifest: Manifest, rows: int) -> None:
        self._store, self._vectors = PassageStore(folder), StoredVectors.open(folder)
        self._tokenize, self._most, self._metadata = manifest.tokenize(folder), rows, bool(manifest.with_metadata)

    def of(self, rows: NDArray[np.int64]) -> Iterator[list[dict[str, Any]]]:
        """Batches of at most so many rows and about _BATCH_BYTES."""
        size = self._most
        for start in range(0, len(rows), size):
            batch: list[dict[str, Any]] = []
            weight = 0
            for row in self._fields(rows[start : start + size]):
                weight += sum(len(value) for value in row.values() if isinstance(value, str)) + row[VECTOR].nbytes
                batch.append(row)
                if weight >= _BATCH_BYTES:
                    yield batch
                    batch, weight = [], 0
            if batch:
                yield batch

    def _fields(self, rows: NDArray[np.int64]) -> Iterator[dict[str, Any]]:
        for row, passage, vector in zip(rows, self._store.passages(rows), self._vectors.take(rows), strict=True):
            terms = " ".join(self._tokenize(passage_text(passage.title, passage.text)))
            for text in (passage.text, terms):
                if len(text.encode()) > VARCHAR_BYTES:
                    raise CorpusIndexError(
                        f"the passage {passage.passage_id} takes {len(text.encode()):,} bytes, Milvus holds "
                        f"{VARCHAR_BYTES:,}: build the index with smaller windows"
                    )
            metadata = {METADATA: written_metadata(passage.metadata)} if self._metadata else {}
            yield metadata | {
                ROW: int(row), DOC_ID: passage.doc_id, NUMBER: int(passage.passage_id.rpartition("#")[2]),
                TITLE: passage.title, TEXT: passage.text, TERMS: terms, VECTOR: vector,
            }  # fmt: skip

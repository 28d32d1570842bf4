"""`qrelay index update`: documents added, changed and removed, without the corpus.

1. read      the changes to a spool on disk; of two with one id the later one counts
2. withdraw  where documents are removed: a version of links to the current one's files and a list of rows that are
             never found, named in CURRENT at once
3. build     as build.py does, of the documents that stay, with the passages that they have, and the changes

Passages that are the same keep their vectors; BM25 and an approximate index are made anew. So the new version answers
as one that is built from the whole corpus. A killed update is run again: it goes on where it was, as a build does.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np

from qrelay.errors import CorpusIndexError, MalformedInput
from qrelay.files import fsync_path, held, link_or_copy, write_atomic
from qrelay.formats.datasets import DOCUMENT_COLUMNS, Columns
from qrelay.identity import digest
from qrelay.index import spool
from qrelay.index.ann import AnnRequest
from qrelay.index.build import MEASURED, BuildRequest, BuildResult, assemble, cut_windows
from qrelay.index.corpus import read_corpus
from qrelay.index.documents import Document, metadata_fields
from qrelay.index.manifest import (
    CURRENT,
    MANIFEST,
    REMOVED,
    VERSION_CHARS,
    Manifest,
    checked_manifest,
    current_folder,
    dead_rows,
    describe_files,
    write_manifest,
)
from qrelay.index.store import PassageStore, StoredDocument
from qrelay.index.stored import form_of
from qrelay.models.embedder import Embedder
from qrelay.progress import step
from qrelay.terms import language_of

CHANGES: Final = ".changes"


@dataclass(frozen=True, slots=True)
class UpdateRequest:
    """What to change in a collection. source: documents to add, or to put in the place of those with their ids; "":
    none. removed: ids of documents. columns: where the source's fields stand."""

    collection: str
    out: Path
    source: str = ""
    removed: frozenset[str] = frozenset()
    columns: Columns = DOCUMENT_COLUMNS


@dataclass(frozen=True, slots=True)
class UpdateResult:
    """How many documents were added, changed, removed, came as they were (`same`), and should be removed and were not
    there (`unknown`). built: None where nothing was to be done."""

    added: int
    changed: int
    removed: int
    same: int
    unknown: int
    built: BuildResult | None


def update_index(request: UpdateRequest, embedder: Embedder, say: Callable[[str], None]) -> UpdateResult:
    """Make the changes and serve them. `say` is told of each record left out.

    Raises:
        MalformedInput: the source is absent or unreadable, or holds no usable document; or nothing would be left.
        CorpusIndexError: there is no index, it is damaged, it was built by another embedder, or another build of this
            collection runs.
    """
    home = request.out / request.collection
    current_folder(home)
    with held(home / ".lock", CorpusIndexError(f"another build writes to {home}; wait for it, or end it, and rerun")):
        return _update(home, request, embedder, say)


def _update(home: Path, request: UpdateRequest, embedder: Embedder, say: Callable[[str], None]) -> UpdateResult:
    began, folder = time.monotonic(), current_folder(home)
    facts = checked_manifest(folder, "size")
    if facts.embedder != embedder.fingerprint:
        raise CorpusIndexError(
            f"the index {folder} was built by {facts.embedder}, this is {embedder.fingerprint}: give the index's "
            "with --embedder, --engine and --dim, or embed it again by `qrelay index reembed`"
        )
    rejections = spool.Rejections(home / "rejected.jsonl", say)
    base = _Base(folder, facts)
    changes = _Changes(home / CHANGES, base.request(request), embedder)
    try:
        if request.source:
            changes.read(read_corpus(request.source, rejections, columns=request.columns))
        base.look_up(changes, request.removed)
        built = None
        if not base.kept and not changes.wanted:
            raise MalformedInput(f"no document of {request.collection} would be left: remove {home} instead")
        if base.gone or changes.wanted or base.withdrawn:
            if base.gone:
                _withdraw(home, folder, facts, base.gone_rows)
            documents = base.merged(changes)
            counted = base.counted + changes.counted
            built = assemble(base.request(request), documents, embedder, rejections, began, counted)
    finally:
        shutil.rmtree(home / CHANGES, ignore_errors=True)
    unknown = len(request.removed - base.gone - base.gone_before - changes.last.keys())
    return UpdateResult(changes.added, changes.changed, len(base.gone), changes.same, unknown, built)


class _Changes:
    """Documents of the source on disk, and which of them count. counted: what a build counts of them. Memory: the
    ids."""

    def __init__(self, folder: Path, request: BuildRequest, embedder: Embedder) -> None:
        self._path, self._request, self._embedder = folder / spool.DOCUMENTS, request, embedder
        self.last: dict[str, int] = {}
        self.wanted: set[str] = set()
        self.added = self.changed = self.same = 0
        self.counted = Counter[str]()

    def read(self, documents: Iterable[Document]) -> None:
        shutil.rmtree(self._path.parent, ignore_errors=True)
        self._path.parent.mkdir()
        with self._path.open("w", encoding="utf8") as out, step("reading documents", unit="documents") as reading:
            for number, document in enumerate(documents):
                windows, counts = cut_windows(document, self._request, self._embedder)
                self.counted.update(counts)
                out.write(spool.line_of(replace(document, windows=tuple(windows))))
                self.last[document.doc_id] = number
                reading.advance(1)
        if not self.last:
            raise MalformedInput("the source holds no usable document: nothing was changed")

    def __iter__(self) -> Iterator[Document]:
        """The last document of each id, with its windows."""
        if not self.last:
            return
        with self._path.open(encoding="utf8") as lines:
            for number, document in enumerate(map(spool.document_in, lines)):
                if self.last[document.doc_id] == number:
                    yield document


class _Base:
    """The version that is current before the update."""

    def __init__(self, folder: Path, facts: Manifest) -> None:
        self._store, self._facts = PassageStore(folder), facts
        self._dead = set(dead_rows(folder).tolist())
        self.withdrawn = bool(self._dead)
        self.kept = 0
        self.gone: set[str] = set()
        self.gone_before: set[str] = set()
        """Removed by a run that was killed after it had withdrawn them."""
        self.gone_rows: list[int] = []

    def request(self, update: UpdateRequest) -> BuildRequest:
        """A build like the one that made it."""
        facts = self._facts
        return BuildRequest(
            source=facts.source,
            collection=update.collection,
            out=update.out,
            window=int(facts.parameters["window_tokens"]),
            stride=int(facts.parameters["stride_tokens"]),
            vectors=form_of(facts.parameters),
            ann=AnnRequest.of(facts.parameters),
            language=language_of(facts.tokenizer),
        )

    @property
    def counted(self) -> Counter[str]:
        """Of all that it ever held since it was built from a corpus."""
        return Counter({name: getattr(self._facts, name) or 0 for name in MEASURED})

    def _documents(self) -> Iterator[StoredDocument]:
        return (each for each in self._store.stored_documents() if each.first_row not in self._dead)

    def look_up(self, changes: _Changes, removed: Collection[str]) -> None:
        """Find what is removed, and which changes change something."""
        hashes = {each.doc_id: _content(each) for each in changes}
        changes.wanted = set(hashes)
        for each in self._store.stored_documents():
            if each.first_row in self._dead:
                self.gone_before.add(each.doc_id)
                continue
            if each.doc_id in removed and each.doc_id not in hashes:
                self.gone.add(each.doc_id)
                self.gone_rows.extend(range(each.first_row, each.first_row + len(each.windows)))
                continue
            self.kept += 1
            if each.doc_id in hashes:
                same = _content(each) == hashes[each.doc_id]
                changes.same += same
                changes.changed += not same
                if same:
                    changes.wanted.discard(each.doc_id)
        changes.added = len(changes.wanted) - changes.changed

    def merged(self, changes: _Changes) -> Iterator[Document]:
        """What stays, in its order, then what is new or changed."""
        for each in self._documents():
            if each.doc_id not in changes.wanted and each.doc_id not in self.gone:
                yield Document(each.doc_id, each.title, "", windows=each.windows, metadata=each.metadata)
        for document in changes:
            if document.doc_id in changes.wanted:
                yield replace(document, text="")


def _content(document: Document | StoredDocument) -> str:
    """What makes a document that comes again another one."""
    return digest(document.title, *(document.windows or ()), *metadata_fields(document.metadata))


def _withdraw(home: Path, folder: Path, facts: Manifest, rows: list[int]) -> None:
    """Serve the same version without these rows, from now on."""
    dead = np.union1d(dead_rows(folder), np.asarray(rows, np.int64))
    version = digest(facts.version, REMOVED, json.dumps(dead.tolist()))[:VERSION_CHARS]
    work, target = home / f".build-{version}", home / version
    shutil.rmtree(work, ignore_errors=True)
    (work / "bm25").mkdir(parents=True)
    for entry in facts.files:
        if entry.path != REMOVED:
            link_or_copy(folder / entry.path, work / entry.path)
    np.save(work / REMOVED, dead)
    removed = describe_files(work, (REMOVED,))
    files = tuple(sorted((*(e for e in facts.files if e.path != REMOVED), *removed), key=lambda entry: entry.path))
    for path in (work / REMOVED, work / "bm25", work):
        fsync_path(path)
    write_manifest(work, facts.model_copy(update={"version": version, "files": files, "removed": len(dead)}))
    if not (target / MANIFEST).exists():
        shutil.rmtree(target, ignore_errors=True)
        work.rename(target)
        fsync_path(home)
    write_atomic(home / CURRENT, version + "\n")

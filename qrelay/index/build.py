"""`qrelay index build`: a corpus to an immutable, versioned index, in steps that survive a kill.

1. read     the corpus to a spool on disk: its hash, with the model and the parameters, is the version
2. chunk    passages and BM25 tokens, into `.build-<version>/`; what model and BM25 do not know of them is counted
3. embed    vectors, shard by shard (vectors.py), and over many of them an approximate index (ann.py); an interrupted
            build continues here
4. postings BM25's matrix (bm25.py)
5. seal     checksums, manifest, fsync, rename to `<version>/`, replace CURRENT

Memory is bounded by one document, one shard of passages and one block of tokens, plus: BM25's vocabulary;
about 32 bytes a document to sort ids; 24 bytes a passage of an earlier version whose vectors are reused; what the
approximate index needs while it is built (ann.py).
A build of the same corpus, model and parameters is not repeated. One build a collection at a time.
"""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Final

from qrelay.errors import ConfigError, CorpusIndexError, MalformedInput
from qrelay.files import fsync_path, held, write_atomic
from qrelay.formats.datasets import DOCUMENT_COLUMNS, Columns
from qrelay.formats.records import metadata_remark
from qrelay.identity import valid_collection
from qrelay.index import bm25, spool
from qrelay.index.ann import AUTO, AnnRequest
from qrelay.index.approximate import approximate
from qrelay.index.corpus import read_corpus
from qrelay.index.documents import MAX_TITLE_CHARS, Document
from qrelay.index.kinds import Form
from qrelay.index.language import detected
from qrelay.index.manifest import (
    CURRENT,
    MANIFEST,
    SCAFFOLD,
    UNDER_WAY,
    Manifest,
    checked_manifest,
    current_version,
    describe_files,
    embedded_by,
    read_manifest,
    version_of,
    write_manifest,
)
from qrelay.index.store import PassageWriter, write_order
from qrelay.index.vectors import embed_passages
from qrelay.models.catalogue import load_catalogue, multilingual_embedders
from qrelay.models.embedder import Embedder
from qrelay.parsing import json_document
from qrelay.progress import step
from qrelay.terms import ANY, ENGLISH, K1, LANGUAGES, B, language_of, tokenize, tokenizer_of
from qrelay.text import passage_text

WINDOW_TOKENS: Final = 160
STRIDE_TOKENS: Final = 80
CHARACTERS_A_TOKEN: Final = 16
"""Most of a window: a tokenizer may make one token of a word of megabytes."""
FEW: Final = 0.03
"""Share of unknown tokens, and of passages without terms, above which people are warned."""
PUBLIC: Final = "paraphrase-multilingual-MiniLM-L12-v2"
"""A public model of 50 languages in many scripts, for people whose catalogue has none."""
_REJECTED: Final = "rejected.jsonl"
Parameters = dict[str, int | float | str]
AUTO_LANGUAGE: Final = "auto"
MEASURED: Final = ("tokens", "unknown_tokens", "windows_cut")
"""What the manifest counts of passages while they are cut."""
_NOTHING: Final[Mapping[str, int]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class BuildRequest:
    """What to build. `limit`: at most so many documents; None: all. Windows in the model's tokens. `questions`: a
    file of queries by which an approximate index's recall is measured; None: pieces of passages. `language`: of
    BM25's terms, a key of `LANGUAGES`, "any", or "auto".
    `columns`: where the source's fields stand."""

    source: str
    collection: str
    out: Path
    limit: int | None = None
    window: int = WINDOW_TOKENS
    stride: int = STRIDE_TOKENS
    vectors: Form = "float32"
    ann: AnnRequest = AUTO
    questions: Path | None = None
    language: str = AUTO_LANGUAGE
    columns: Columns = DOCUMENT_COLUMNS

    @property
    def characters(self) -> int:
        """Most of a passage."""
        return CHARACTERS_A_TOKEN * self.window

    @property
    def parameters(self) -> Parameters:
        """What, beside corpus and model, decides the index's content."""
        return {
            "window_tokens": self.window,
            "stride_tokens": self.stride,
            "window_characters": self.characters,
            "bm25_k1": K1,
            "bm25_b": B,
            "bm25_tokenizer": tokenizer_of(self.language),
            "vectors": self.vectors,
            **self.ann.parameters,
        }


@dataclass(frozen=True, slots=True)
class BuildResult:
    """A finished build. `already`: this version was there, nothing was done. `rejected` and its first
    examples are of this run's reading of the source, as are `replaced` NUL characters, `cut_titles` and fields of
    metadata that were `left_out`; `resumed` counts passages found embedded."""

    folder: Path
    manifest: Manifest
    already: bool
    rejected: int
    examples: tuple[str, ...]
    resumed: int = 0
    replaced: int = 0
    cut_titles: int = 0
    left_out: int = 0

    def remarks(self) -> Iterator[str]:
        """What people should know of the corpus, a line each."""
        facts = self.manifest
        if self.replaced:
            yield f"{self.replaced:,} NUL characters in titles and texts are U+FFFD now"
        if (language := language_of(facts.tokenizer)) != ENGLISH:
            yield _language(language)
        if self.cut_titles:
            yield f"{self.cut_titles:,} titles were longer than {MAX_TITLE_CHARS:,} characters and were cut"
        if self.left_out:
            yield metadata_remark(self.left_out)
        if facts.windows_cut:
            limit = facts.parameters["window_characters"]
            yield f"{facts.windows_cut:,} times a passage was cut at {limit:,} characters: a word has no end there"
        if (share := _share(facts.unknown_tokens, facts.tokens)) > FEW:
            yield (
                f"warning: {share:.0%} of the passages' tokens are unknown to {facts.embedder}, whose vectors say"
                f" little of them: {_multilingual()}"
            )
        if (share := _share(facts.without_terms, facts.passages)) > FEW:
            yield f"warning: {share:.0%} of the passages have no term by which BM25 could find them"


def _language(code: str) -> str:
    if code == ANY:
        return "BM25's terms are words as they stand: it has neither a stemmer nor stop words for this language"
    return f"BM25's terms are those of {LANGUAGES[code].name} texts; --language says another"


def _share(part: int | None, whole: int | None) -> float:
    return (part or 0) / (whole or 1)


def _multilingual() -> str:
    known = multilingual_embedders(load_catalogue())
    if known:
        return f"build with a multilingual one, `--embedder {known[0]}`"
    return (
        "the catalogue has no multilingual one; give one that sentence-transformers loads, `--embedder path:FOLDER` "
        f"({PUBLIC}, say), or add it to the file that QRELAY_CATALOGUE names, with `multilingual: true`"
    )


def bounded(windows: Sequence[str], characters: int) -> tuple[list[str], int]:
    """(the windows, longer ones in pieces of at most so many characters, how often one was cut)."""
    pieces = [
        piece
        for window in windows
        for at in range(0, max(1, len(window)), characters)
        if (piece := window[at : at + characters].strip()) or not window
    ]
    return pieces, len(pieces) - len(windows)


def build_index(
    request: BuildRequest,
    embedder: Embedder,
    say: Callable[[str], None],
    source: str = "",
) -> BuildResult:
    """Build, continue, or find finished, the index of `request`. `say` is told of each record left out. source: what
    to read in the place of the request's.

    Raises:
        MalformedInput: the corpus is absent, unreadable, or holds no usable document.
        ConfigError: the collection's name or the windows cannot be used.
        CorpusIndexError: another build of this collection runs, or the finished version is damaged.
    """
    _check(request)
    home = request.out / request.collection
    home.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with held(home / ".lock", CorpusIndexError(f"another build writes to {home}; wait for it, or end it, and rerun")):
        rejections = spool.Rejections(home / _REJECTED, say)
        documents = read_corpus(source or request.source, rejections, request.limit, request.columns)
        return assemble(request, documents, embedder, rejections, began)


def assemble(
    request: BuildRequest,
    documents: Iterable[Document],
    embedder: Embedder,
    rejections: spool.Rejections,
    began: float,
    counted: Mapping[str, int] = _NOTHING,
) -> BuildResult:
    """An index of `documents`, for a caller that holds the collection's lock. counted: what the manifest shall count
    of documents whose windows were cut before."""
    home = request.out / request.collection
    spooled = _read(request, home, documents, rejections)
    request = _with_language(request, home / ".spool")
    version = version_of(spooled.corpus_hash, embedder.fingerprint, request.parameters)
    folder, work = home / version, home / f".build-{version}"
    if (folder / MANIFEST).exists():
        checked_manifest(folder, "size")
        if current_version(home) != version:
            write_atomic(home / CURRENT, version + "\n")
        _clear(home)
        return _result(folder, rejections, spooled, already=True)
    resumed = 0
    if not (work / MANIFEST).exists():
        _chunk(request, embedder, home / ".spool", work, counted)
        facts = _Facts(version, spooled, rejections.count, began)
        resumed = _complete(request, embedder, work, facts)
    _publish(home, work, folder)
    return _result(folder, rejections, spooled, resumed=resumed)


def _result(
    folder: Path,
    rejections: spool.Rejections,
    spooled: spool.SpoolSummary,
    *,
    already: bool = False,
    resumed: int = 0,
) -> BuildResult:
    return BuildResult(
        folder,
        read_manifest(folder),
        already,
        rejections.count,
        tuple(rejections.examples),
        resumed,
        spooled.replaced,
        spooled.cut_titles,
        spooled.left_out,
    )


@dataclass(frozen=True, slots=True)
class _Facts:
    version: str
    spooled: spool.SpoolSummary
    rejected: int
    began: float


def _check(request: BuildRequest) -> None:
    if not valid_collection(request.collection):
        raise ConfigError(
            f"{request.collection!r} cannot name a collection: lower-case letters, digits, - and _, at most 64"
        )
    if not 0 < request.stride <= request.window:
        raise ConfigError(
            f"a stride of {request.stride} tokens over windows of {request.window} would skip text; "
            "use 1 <= stride <= window"
        )


def _read(
    request: BuildRequest, home: Path, documents: Iterable[Document], rejections: spool.Rejections
) -> spool.SpoolSummary:
    folder = home / ".spool"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    with step("reading documents", unit="documents") as reading:
        summary = spool.fill(folder, documents, rejections, reading.advance)
    if not summary.documents:
        shutil.rmtree(folder)
        raise MalformedInput(
            f"{request.source} holds no usable document ({rejections.count} left out"
            + (f"; the first: {rejections.examples[0]}" if rejections.examples else "")
            + ")"
        )
    return summary


def _with_language(request: BuildRequest, spooled: Path) -> BuildRequest:
    if request.language != AUTO_LANGUAGE:
        return request
    texts = (f"{each.title} {each.text or ' '.join(each.windows or ())}" for each in spool.read(spooled))
    return replace(request, language=detected(texts))


def _chunk(request: BuildRequest, embedder: Embedder, spooled: Path, work: Path, counted: Mapping[str, int]) -> None:
    """Passages and tokens into `work`, unless an interrupted build already has them."""
    scaffold = work / SCAFFOLD
    if (work / UNDER_WAY).exists():
        return
    shutil.rmtree(work, ignore_errors=True)
    scaffold.mkdir(parents=True)
    positions = spool.positions_by_id(spooled)
    passages, measured = PassageWriter(work), Counter(counted)
    terms = bm25.TokenSpool(scaffold, partial(tokenize, language=request.language))
    with step("cutting passages", total=len(positions), unit="documents") as cutting:
        for document in spool.read(spooled):
            windows, counts = cut_windows(document, request, embedder)
            measured.update(counts)
            passages.add(document, windows)
            for window in windows:
                terms.add(passage_text(document.title, window))
            cutting.advance(1)
    passages.close()
    terms.close()
    write_order(work, positions)
    measured["without_terms"], measured["with_metadata"] = terms.without_terms, passages.with_metadata
    state = {
        "embedder": embedder.fingerprint,
        "documents": passages.documents,
        "passages": passages.passages,
        "measured": measured,
    }
    write_atomic(work / UNDER_WAY, json.dumps(state))


def cut_windows(
    document: Document, request: BuildRequest, embedder: Embedder
) -> tuple[Sequence[str], Mapping[str, int]]:
    """(the texts of a document's passages, MEASURED of them: nothing where they are cut already)."""
    if document.windows is not None:
        return document.windows, _NOTHING
    windows, cut = bounded(embedder.windows(document.text, request.window, request.stride), request.characters)
    tokens, unknown = embedder.unknown(windows)
    return windows, {"tokens": tokens, "unknown_tokens": unknown, "windows_cut": cut}


def _complete(request: BuildRequest, embedder: Embedder, work: Path, facts: _Facts) -> int:
    """Vectors, postings and manifest into `work`. Returns how many vectors an earlier run had left."""
    state = json_document((work / UNDER_WAY).read_text("utf8"))
    earlier = _earlier(work, embedder.fingerprint)
    vectors = embed_passages(work, embedder, earlier, "embedding passages", request.vectors)
    ann = approximate(work, embedder, request.ann, request.questions)
    with step("building BM25"):
        bm25.build_bm25(work / SCAFFOLD, work / "bm25")
    with step("hashing the index's files"):
        files = describe_files(work)
    for path in [*(work / entry.path for entry in files), work / "bm25", work]:
        fsync_path(path)
    manifest = Manifest(
        collection=request.collection,
        version=facts.version,
        source=request.source,
        corpus_hash=facts.spooled.corpus_hash,
        embedder=embedder.fingerprint,
        dim=embedder.dim,
        parameters=request.parameters,
        documents=state["documents"],
        passages=state["passages"],
        rejected=facts.rejected,
        duplicates=facts.spooled.duplicates,
        reused=vectors.reused,
        build_seconds=round(time.monotonic() - facts.began, 2),
        passages_per_second=vectors.rate,
        size_bytes=sum(entry.size_bytes for entry in files),
        files=files,
        ann=ann,
        **state["measured"],
    )
    write_manifest(work, manifest)
    return vectors.resumed


def _earlier(work: Path, fingerprint: str) -> list[Path]:
    """Folders whose vectors this model made: the current version, and interrupted builds of others."""
    current = current_version(work.parent)
    finished = [work.parent / current] if current else []
    return embedded_by(fingerprint, finished, (each for each in sorted(work.parent.glob(".build-*")) if each != work))


def _publish(home: Path, work: Path, folder: Path) -> None:
    """Make a sealed build the current version. A kill at any point leaves the old one, or the new."""
    shutil.rmtree(work / SCAFFOLD, ignore_errors=True)
    if folder.exists():  # without a manifest it is no index, but the remains of one
        shutil.rmtree(folder)
    work.rename(folder)
    fsync_path(home)
    write_atomic(home / CURRENT, folder.name + "\n")  # even the same name: services look at its time
    _clear(home)


def _clear(home: Path) -> None:
    """Remove what builds that did not finish have left."""
    for leftover in [home / ".spool", *home.glob(".build-*")]:
        shutil.rmtree(leftover, ignore_errors=True)

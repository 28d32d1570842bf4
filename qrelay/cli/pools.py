"""`feed --run` and `feed --format candidates`: lines to candidate sets, with the texts of a corpus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import click
from click.core import ParameterSource

from qrelay.cli.options import Decorator
from qrelay.errors import MalformedInput
from qrelay.feed.windows import MOST, WORDS
from qrelay.formats.datasets import Columns
from qrelay.formats.queries import Format
from qrelay.formats.records import metadata_remark
from qrelay.naming import examples
from qrelay.progress import step

if TYPE_CHECKING:
    from qrelay.feed.pool import Pools

CANDIDATES: Final = "candidates"
_OPTIONS: Final = (
    click.option("--run", "runs", type=click.Path(path_type=Path, exists=True), multiple=True,
                 help="Judge what a TREC run (gzip too), or each in a folder, ranks for the queries; repeatable."),
    click.option("--corpus", help="With --run or candidates: the documents, as `qrelay index build` reads them."),
    click.option("--depth", type=click.IntRange(1), default=10, show_default=True,
                 help="With --run: the first documents of every run that are judged."),
    click.option("--words", type=click.IntRange(1), default=WORDS, show_default=True,
                 help="Of a passage; a longer document is several, and its best one decides."),
    click.option("--passages", type=click.IntRange(1), default=MOST, show_default=True,
                 help="Most passages of a document."),
)  # fmt: skip


def pool_options() -> Decorator:
    """The options of `PoolOptions`, in the order of their names there."""

    def decorated(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(_OPTIONS):
            command = option(command)
        return command

    return decorated


@dataclass(frozen=True, slots=True)
class PoolOptions:
    """What the command was told. kind: a format of query lines, or CANDIDATES."""

    kind: str
    runs: Sequence[Path]
    corpus: str | None
    depth: int
    words: int
    passages: int

    @property
    def asked(self) -> bool:
        """Whether candidates are fed, and not queries alone."""
        return bool(self.runs) or self.kind == CANDIDATES

    def check(self, file: Path | None, follow: bool) -> None:
        """Raises UsageError: options that do not go together."""
        given = click.get_current_context().get_parameter_source
        for name in () if self.runs else ("depth",) if self.asked else ("depth", "words", "passages"):
            if given(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(
                    f"--{name} is about pools: add --run" + ("" if name == "depth" else ", or --format candidates")
                )
        if self.runs and self.kind == CANDIDATES:
            raise click.UsageError("--run pools runs, --format candidates brings the candidates: give one of the two")
        if self.runs and not self.corpus:
            raise click.UsageError("a run has no texts to judge: add --corpus, the documents that it ranks")
        if self.corpus and not self.asked:
            raise click.UsageError("--corpus gives candidates their texts: add --run, or --format candidates")
        if self.corpus and not self.runs and (file is None or follow):
            raise click.UsageError("--corpus is read for the ids in FILE, which must be a whole file: give its name")


@dataclass(slots=True)
class Corpus:
    """What was read of it. bad: lines that are no documents, and the first with why. left_out: fields of metadata."""

    name: str = ""
    texts: dict[str, tuple[str, str, Mapping[str, str]]] = field(default_factory=dict)
    bad: int = 0
    first_bad: str = ""
    left_out: int = 0

    def reject(self, where: str, why: str) -> None:
        """Counts a line that is no document."""
        self.bad += 1
        self.first_bad = self.first_bad or f"{where}: {why}"


@dataclass(frozen=True, slots=True)
class Opened:
    """What makes candidate sets of lines, and what is to be told of it. ranked: the queries that the runs rank
    documents for."""

    pools: Pools
    corpus: Corpus
    ranked: frozenset[str] = frozenset()

    @property
    def counts(self) -> dict[str, int]:
        """What was read, for scripts."""
        return {"pairs": self.pools.pairs, "without_text": self.pools.without_text}

    def remarks(self) -> Iterator[str]:
        """What people should know when all lines are read, a line each."""
        pools, corpus = self.pools, self.corpus
        yield f"{pools.pairs:,} pairs of query and document in {len(pools.query_ids):,} pools"
        if pools.without_text:
            why = f"{corpus.name} has none" if corpus.name else "--corpus would give it"
            yield (
                f"{pools.without_text:,} of the pairs are without a text ({why}): their labels will be missing, not 0"
            )
        if pools.cut:
            yield f"in {pools.cut:,} pairs the document is longer than its passages (--passages, --words)"
        if corpus.bad:
            yield f"{corpus.bad:,} lines of the corpus are no documents, first {corpus.first_bad}"
        if left_out := pools.left_out + corpus.left_out:
            yield metadata_remark(left_out)
        if unfed := sorted(self.ranked - pools.query_ids):
            yield f"{len(unfed):,} queries of the runs are not in FILE, and nothing of them is fed: {examples(unfed)}"


def open_pools(options: PoolOptions, collection: str, file: Path | None, columns: Columns) -> Opened:
    """Reads runs and corpus. Raises InputError: one that cannot be read."""
    from qrelay.feed.pool import Pools, of_candidates, of_runs, pool_runs, run_files, textless
    from qrelay.feed.windows import Windows

    windows = Windows(options.words, options.passages)
    if not options.runs:
        corpus = _read(options.corpus, textless(file, collection)) if file and options.corpus else Corpus()
        return Opened(Pools(of_candidates(collection), corpus.texts, windows, CANDIDATES), corpus)
    files = run_files(options.runs)
    with step("reading the runs twice", total=2 * len(files), unit="files") as reading:
        pool = pool_runs(files, options.depth, reading.advance)
    corpus = _read(options.corpus or "", pool.doc_ids)
    find = of_runs(pool, collection, cast(Format, options.kind), columns)
    return Opened(Pools(find, corpus.texts, windows, pool.version), corpus, frozenset(pool.found))


def _read(source: str, wanted: set[str]) -> Corpus:
    """The documents that are wanted; of two with one id the first counts."""
    from qrelay.index.corpus import read_corpus

    corpus = Corpus(source)
    with step("reading the corpus", unit="documents") as reading:
        for document in read_corpus(source, corpus.reject):
            if document.doc_id in wanted:
                corpus.texts.setdefault(document.doc_id, (document.title, document.text, document.metadata))
                corpus.left_out += document.left_out
            reading.advance(1)
    if wanted and not corpus.texts:
        raise MalformedInput(f"{source} holds none of {examples(sorted(wanted))}: give the corpus that has these ids")
    return corpus

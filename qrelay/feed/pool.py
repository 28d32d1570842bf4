"""Pools: what several systems returned for a query, and the candidate sets that the judge makes labels of.

    runs ──► pool: what any system has at `depth` or before ┐
                                                            ├─► documents ─► passages ─► candidate set ─► judge
    candidates of an engine, JSONL ─────────────────────────┘      ▲
                                                      corpus: title and text by id

Every candidate is marked for the judge, so that the whole pool is labelled. It has the score and rank of each system
that lists the document, beyond the pool's depth too. A long document is several passages, of which the best decides
(`qrelay export qrels --by document`). One without a text is a candidate without a text: its label will be missing,
and never a zero.

Memory: one run, the pools, and the texts of what they hold.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from qrelay.errors import InputError, InvalidQuery, MalformedInput
from qrelay.feed.windows import Windows
from qrelay.formats.candidates import MAX_SYSTEM_CHARS, Found, parse_candidates
from qrelay.formats.datasets import QUERY_COLUMNS, Columns
from qrelay.formats.lines import all_lines
from qrelay.formats.queries import Format, Record, query_of
from qrelay.formats.runs import Ranking, read_systems
from qrelay.identity import digest
from qrelay.naming import passage_name
from qrelay.types import Candidate, CandidateSet, Passage, Query, Score

Texts = Mapping[str, tuple[str, str, Mapping[str, str]]]
"""document id -> (title, text, metadata)."""
_SUFFIXES: Final = (".gz", ".txt", ".trec", ".run", ".res", ".tsv")


@dataclass(frozen=True, slots=True)
class Pool:
    """What systems ranked. found: query_id -> the documents of its pool, by their best rank, then by id."""

    systems: tuple[str, ...]
    depth: int
    found: Mapping[str, Sequence[Found]]

    @property
    def doc_ids(self) -> set[str]:
        """Every document of any query's pool."""
        return {each.doc_id for found in self.found.values() for each in found}

    @property
    def version(self) -> str:
        """Where candidates come from, as `CandidateSet.index_version` says it."""
        return f"pool-{len(self.systems)}x{self.depth}@{digest(*self.systems)[:12]}"


def run_files(paths: Sequence[Path]) -> list[Path]:
    """The files of `paths`; of a folder, all that are in it. Raises MalformedInput: a folder is empty."""
    found: list[Path] = []
    for path in paths:
        inside = sorted(each for each in path.iterdir() if each.is_file()) if path.is_dir() else [path]
        if not (visible := [each for each in inside if not each.name.startswith(".")]):
            raise MalformedInput(f"{path} holds no file: give runs in TREC's format")
        found += visible
    return found


def pool_runs(files: Sequence[Path], depth: int, advance: Callable[[int], None] = lambda _: None) -> Pool:
    """The union of what every system ranks at `depth` or before, as its run counts: one that counts from 0 gives one
    document more. Reads each file twice; `advance` is told of it.

    Raises:
        MalformedInput: a line that is none of a run; it is named. Or two systems have one name.
    """
    pooled: dict[str, dict[str, list[Score]]] = {}
    tags: list[tuple[Path, str]] = []
    for path in files:
        for tag, run in read_systems(path).items():
            tags.append((path, tag))
            for query_id, ranking in run.items():
                documents = pooled.setdefault(query_id, {})
                for doc_id in (doc_id for doc_id, (rank, _) in ranking.items() if rank <= depth):
                    documents.setdefault(doc_id, [])
        advance(1)
    names = _names(tags)
    for path in files:
        for tag, run in read_systems(path).items():
            for query_id, ranking in run.items():
                _add(names[path, tag], ranking, pooled[query_id])
        advance(1)
    found = {query_id: _by_rank(documents) for query_id, documents in pooled.items() if documents}
    return Pool(tuple(sorted(names.values())), depth, found)


def _add(system: str, ranking: Ranking, documents: Mapping[str, list[Score]]) -> None:
    """What the system says of the pool's documents; here ranks count from 1."""
    first = 1 if min(rank for rank, _ in ranking.values()) == 0 else 0
    for doc_id in documents.keys() & ranking.keys():
        rank, score = ranking[doc_id]
        documents[doc_id].append(Score(system, score, rank + first))


def _by_rank(documents: Mapping[str, Sequence[Score]]) -> list[Found]:
    order = sorted(documents, key=lambda doc_id: (min(score.rank for score in documents[doc_id]), doc_id))
    return [Found(doc_id, tuple(sorted(documents[doc_id]))) for doc_id in order]


def _names(tags: Sequence[tuple[Path, str]]) -> dict[tuple[Path, str], str]:
    """A name for each system: its tag, or the name of its file where several files have that tag."""
    times = Counter(tag for _, tag in tags)
    names = {(path, tag): tag if times[tag] == 1 else _stem(path) for path, tag in tags}
    for name, count in Counter(names.values()).items():
        if count > 1:
            files = ", ".join(str(path) for (path, _), each in names.items() if each == name)
            raise MalformedInput(f"{count} systems have the name {name!r} ({files}): give each a tag of its own")
        if len(name) > MAX_SYSTEM_CHARS or name.split() != [name]:
            raise MalformedInput(f"the system {name[:40]!r}: one word of at most {MAX_SYSTEM_CHARS} letters names it")
    return names


def _stem(path: Path) -> str:
    name = path.name
    for suffix in _SUFFIXES:
        name = name.removesuffix(suffix)
    return name or path.name


Find = Callable[[Any], tuple[Query, Sequence[Found]]]
"""A line's or row's query, and what systems returned for it. Raises InputError."""


@dataclass
class Pools:
    """Lines to candidate sets, all of each marked for the judge; counts what they hold. texts: of documents (or
    passages) that come without one. version: where the candidates come from."""

    find: Find
    texts: Texts
    windows: Windows
    version: str
    query_ids: set[str] = field(default_factory=set)
    pairs: int = 0
    without_text: int = 0
    cut: int = 0
    """Pairs whose document has more words than its windows hold."""
    left_out: int = 0
    """Fields of the candidates' own metadata."""

    def __call__(self, line: Record) -> CandidateSet:
        """The line's candidate set. Raises InputError."""
        query, found = self.find(line)
        candidates = tuple(candidate for each in found for candidate in self._candidates(each))
        _refuse_twice(candidates)
        self.query_ids.add(query.query_id)
        self.pairs += len(found)
        return CandidateSet(query, candidates, self.version)

    def _candidates(self, found: Found) -> Iterator[Candidate]:
        title, text, metadata = found.title, found.text, found.metadata
        if not text:
            title, text, theirs = self.texts.get(found.passage_id or found.doc_id, (title, "", {}))
            metadata = metadata or theirs
        self.without_text += not text.strip()
        self.left_out += found.left_out
        for passage_id, part in self._parts(found, text):
            yield Candidate(Passage(passage_id, found.doc_id, title, part, metadata), found.scores, sampled=True)

    def _parts(self, found: Found, text: str) -> Iterator[tuple[str, str]]:
        if found.passage_id:
            yield found.passage_id, text
            return
        windows, whole = self.windows.of(text)
        self.cut += not whole
        for number, window in enumerate(windows or [""]):
            yield passage_name(found.doc_id, number), window


def of_runs(pool: Pool, collection: str, line_format: Format = "auto", columns: Columns = QUERY_COLUMNS) -> Find:
    """Query lines, or rows, to the pools of their queries."""

    def find(record: Record) -> tuple[Query, Sequence[Found]]:
        query = query_of(record, collection, columns, line_format)
        if found := pool.found.get(query.query_id):
            return query, found
        raise InvalidQuery(f"no run ranks anything for the query {query.query_id}: give runs of these queries")

    return find


def of_candidates(collection: str) -> Find:
    """Lines of candidates to themselves."""
    return partial(parse_candidates, collection=collection)


def textless(file: Path, collection: str) -> set[str]:
    """What a file of candidates names without a text; lines that are none are left to whoever feeds them."""
    found: set[str] = set()
    for line in all_lines(file):
        with suppress(InputError):
            _, candidates = parse_candidates(line, collection)
            found.update(each.passage_id or each.doc_id for each in candidates if not each.text)
    return found


def _refuse_twice(candidates: Sequence[Candidate]) -> None:
    """Raises InvalidQuery: a passage's name is also one that a document's passage gets."""
    for name, count in Counter(each.passage.passage_id for each in candidates).items():
        if count > 1:
            raise InvalidQuery(f"{name} is given as a passage and is one of its document: give one of the two")

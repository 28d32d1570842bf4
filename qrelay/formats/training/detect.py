"""Which format a training set is of, by the fields of its first row, and the set itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from qrelay.errors import InputError, MalformedInput
from qrelay.formats.datasets import HUB, is_dataset
from qrelay.formats.training.beir import BeirFolder
from qrelay.formats.training.containers import TRIPLE, Container, Numbered, container_of
from qrelay.formats.training.example import Layout, Look, Row, Scores, TrainingExample, of_text
from qrelay.formats.training.layouts import (
    Ask,
    LabelledLists,
    LabelledPairs,
    Listed,
    Tuples,
    column_query,
    of_object,
)
from qrelay.formats.training.texts import Texts, corpus_texts, query_texts
from qrelay.nearest import listed

ANCHORS: Final = ("anchor", "query", "question", "sentence1", "sentence_A", "text1")
POSITIVES: Final = (
    "positive",
    "pos",
    "answer",
    "passage",
    "document",
    "response",
    "sentence2",
    "sentence_B",
    "text2",
)
LABELS: Final = ("label", "labels", "score", "scores")
LISTS: Final = ("docs", "documents", "passages", "answers", "responses")
_NEGATIVE: Final = re.compile(r"(?:negative|neg)(?:_?(\d+))?$")


@dataclass(frozen=True)
class TrainingSet:
    """A set that was opened. layout: where its rows have what; container: how they lie."""

    layout: Layout
    container: Container | BeirFolder
    texts: tuple[Texts, ...] = field(default=())

    def rows(self) -> Numbered:
        """Every row. Raises MalformedInput."""
        return self.container.rows()

    def examples(self) -> Iterator[tuple[Row, TrainingExample]]:
        """Each row with its example. Raises MalformedInput: a row that is none; it is named."""
        for number, row in self.rows():
            try:
                yield row, self.layout.example(row)
            except InputError as error:
                raise MalformedInput(f"{self.container.source}:{number}: {error}") from error

    def close(self) -> None:
        """Frees what was kept."""
        for each in self.texts:
            each.close()


@dataclass(frozen=True)
class _Place:
    """What a layout is made of. passage, query: how ids are looked up, in formats that have ids alone."""

    row: Row
    scores: Scores
    lists: bool
    passage: Look
    query: Callable[[object], str]


def _flagembedding(place: _Place) -> Layout | None:
    if isinstance(place.row.get("pos"), list):
        return Listed(
            "flagembedding", column_query("query"), "pos", "neg", of_text, place.scores, parallel=("pos_", "neg_")
        )
    return None


def _tevatron(place: _Place) -> Layout | None:
    if "positive_passages" in place.row:
        lists = ("positive_passages", "negative_passages")
        return Listed("tevatron", column_query("query"), *lists, of_object, place.scores, inside=True)
    return None


def _tevatron_v2(place: _Place) -> Layout | None:
    if "positive_document_ids" not in place.row:
        return None
    query: Ask = column_query("query_text" if "query_text" in place.row else "query")
    lists = ("positive_document_ids", "negative_document_ids")
    beside = ("positive_document_", "negative_document_")
    return Listed("tevatron-v2", query, *lists, place.passage, place.scores, parallel=beside)


def _labelled_list(place: _Place) -> Layout | None:
    anchor, passages, labels = (_named(place.row, names) for names in (ANCHORS, LISTS, LABELS))
    if anchor and passages and labels and isinstance(place.row[passages], list):
        return LabelledLists("st-labeled-list", column_query(anchor), passages, labels, place.scores)
    return None


def _tuples(place: _Place) -> Layout | None:
    anchor, positive = _named(place.row, ANCHORS), _named(place.row, POSITIVES)
    if not anchor or not positive or not isinstance(place.row[positive], str):
        return None
    negatives = sorted((name for name in place.row if _NEGATIVE.match(name)), key=_rank)
    label = _named(place.row, LABELS)
    if label and not negatives:
        return LabelledPairs("st-pairs", column_query(anchor), positive, label, place.scores)
    name = ("st-pairs", "st-triplet")[len(negatives)] if len(negatives) < 2 else "st-ntuple"
    return Tuples(name, column_query(anchor), positive, negatives, of_text, place.scores, lists=place.lists)


def _msmarco(place: _Place) -> Layout | None:
    if tuple(place.row) != TRIPLE:
        return None
    return Tuples("msmarco", column_query("query"), "positive", ["negative"], of_text, "none", lists=False)


def _msmarco_ids(place: _Place) -> Layout | None:
    if tuple(place.row) != TRIPLE:
        return None
    ask: Ask = lambda row: place.query(row["query"])  # noqa: E731
    return Tuples("msmarco-ids", ask, "positive", ["negative"], place.passage, "none", lists=False)


_SENTENCE_TRANSFORMERS: Final = ("st-ntuple", "st-triplet", "st-pairs", "st-labeled-list")
_MAKERS: Final[Mapping[str, Callable[[_Place], Layout | None]]] = {
    "flagembedding": _flagembedding,
    "tevatron": _tevatron,
    "tevatron-v2": _tevatron_v2,
    "st-labeled-list": _labelled_list,
    **dict.fromkeys(("st-ntuple", "st-triplet", "st-pairs"), _tuples),
    "msmarco-ids": _msmarco_ids,
    "msmarco": _msmarco,
}
_WITH_IDS: Final = {"tevatron-v2": (True, False), "msmarco-ids": (True, True)}
"""Formats of ids: whether a corpus is needed, and queries."""


def open_training_set(
    source: str, *, kind: str = "", corpus: Path | None = None, queries: Path | None = None,
    scores: Scores = "beside", split: str = "train",
) -> TrainingSet:  # fmt: skip
    """The set in a file or folder. kind: one of FORMATS; empty: as its fields say. corpus, queries: the texts, where
    rows have ids alone. split: of a BEIR folder.

    Raises:
        MalformedInput: it cannot be read, or is of no format that is known, or not of the one that was named.
        InputError: a corpus or queries are needed and were not given.
    """
    if kind == "beir" or (not kind and Path(source).is_dir() and not is_dataset(source)):
        folder = BeirFolder(source, split)
        texts = corpus_texts(corpus or folder.corpus), query_texts(queries or folder.queries)
        ask: Ask = lambda row: texts[1].text(row["query_id"])  # noqa: E731
        layout = Listed(
            "beir", ask, "positive_ids", "negative_ids", texts[0].passage, scores, ("positive_", "negative_")
        )
        return TrainingSet(layout, folder, texts)
    if not source.startswith(HUB) and not is_dataset(source) and not Path(source).exists():
        raise MalformedInput(f"{source} does not exist: name a training set, or a folder in BEIR's layout")
    return _of_rows(container_of(source), kind, corpus, queries, scores)


def _of_rows(
    container: Container, kind: str, corpus: Path | None, queries: Path | None, scores: Scores
) -> TrainingSet:
    _, first = next(container.rows(), (0, {}))
    name = kind or ("msmarco-ids" if container.kind == "plain-tsv" and corpus else "")
    texts = _texts(name or _format_of(first), corpus, queries)
    passage, query = (texts[0].passage if texts else of_text), (texts[-1].text if texts else str)
    place = _Place(first, scores, container.kind not in ("csv", "tsv", "plain-tsv"), passage, query)
    made = (_MAKERS[each](place) for each in ([name] if name else _MAKERS) if name or each not in _guarded(container))
    layout = next((each for each in made if each), None)
    if layout is None or (name and layout.name != name):
        for each in texts:
            each.close()
        raise MalformedInput(_unknown(container, first, name))
    return TrainingSet(layout, container, texts)


def _guarded(container: Container) -> tuple[str, ...]:
    """Formats that are not tried: triples have no header, and n-tuples one."""
    plain = container.kind == "plain-tsv"
    return ("msmarco-ids", *(_SENTENCE_TRANSFORMERS if plain else ("msmarco",)))


def _format_of(first: Row) -> str:
    return "tevatron-v2" if "positive_document_ids" in first else ""


def _texts(name: str, corpus: Path | None, queries: Path | None) -> tuple[Texts, ...]:
    """Of a format of ids: the corpus, and the queries where it needs them. Raises InputError: one is not given."""
    wanted = _WITH_IDS.get(name, (False, False))
    for needed, given, option in zip(wanted, (corpus, queries), ("--corpus", "--queries"), strict=True):
        if needed and given is None:
            raise InputError(f"the rows of {name} have ids alone: give their texts with {option} FILE")
    found: list[Texts] = []
    if wanted[0] and corpus:
        found.append(corpus_texts(corpus))
    if wanted[1] and queries:
        found.append(query_texts(queries))
    return tuple(found)


def _unknown(container: Container, first: Row, name: str) -> str:
    there = listed(list(first)[:20], "none")
    if name:
        return f"{container.source} is not of the format {name}: its first row has {there}"
    return (
        f"{container.source} is of no format that is known: its first row has {there}. Known are: query, pos, neg"
        " (FlagEmbedding); query, positive_passages, negative_passages (Tevatron); query_text, positive_document_ids,"
        " negative_document_ids (Tevatron v2); a query (anchor, query, sentence1), positive, and negative or"
        " negative_1 … (sentence-transformers); query, docs, labels (its labeled lists); three columns without a"
        " header (MS MARCO). Rename the fields"
    )


def _named(row: Row, names: tuple[str, ...]) -> str:
    return next((name for name in names if name in row), "")


def _rank(name: str) -> int:
    found = _NEGATIVE.match(name)
    return int(found[1] or 0) if found else 0

"""Examples as rows of one width, and as the data sets that the trainers take.

A row is a query with N documents: at most `max_positives` of its positives, then negatives, the hardest first, then
documents that are neither, then padding. A query with more positives gives more rows, so an epoch sees each positive
once; the other documents go round. With `every_label` an epoch sees each of those once as well.
Labels are those of `losses.batch.BLOCKS`: relevance, soft target, key of the text.

    rows = rows_of(examples, documents=8, max_positives=2)
    dataset = as_dataset(rows, seed=13)      # columns query, document_0 … document_7, label
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Final

from qrelay.errors import ConfigError
from qrelay.training.data import Document, Example

PADDING: Final = -1.0
"""The key of a document that is not there: rows have one width, queries have not."""
RELEVANT, NOT_RELEVANT, NEITHER = 1.0, 0.0, -1.0
"""A document's relevance in a row. NEITHER: labelled, but no negative: its soft target alone counts."""
_EXACT: Final = 2**24
"""Keys travel as float32, which holds integers exactly below it."""
Row = tuple[str, list[str], list[float]]
"""Query, N texts, 3 N labels."""
_Judged = tuple[Document, float]


@dataclass(slots=True)
class Keys:
    """Numbers for texts: equal for equal texts."""

    numbers: dict[str, int] = field(default_factory=dict)

    def of(self, text: str) -> float:
        """The text's number. Raises ConfigError beyond 16 million texts."""
        number = self.numbers.setdefault(text, len(self.numbers))
        if number >= _EXACT:
            raise ConfigError(f"more than {_EXACT:,} distinct texts: train on fewer examples a stage")
        return float(number)


def rows_of(
    examples: Iterable[Example],
    *,
    documents: int,
    max_positives: int,
    every_label: bool = False,
    keys: Keys | None = None,
) -> Iterator[Row]:
    """Every example's rows; see the module."""
    known = keys or Keys()
    for example in examples:
        for portion in portions(example, documents, max_positives, every_label):
            yield _row(example.query, portion, documents, known)


def portions(example: Example, documents: int, max_positives: int, every_label: bool) -> Iterator[list[_Judged]]:
    """Each row's documents with their relevance, at most `documents` of them."""
    held = [(each, RELEVANT) for each in example.positives]
    rest = [(each, NOT_RELEVANT) for each in example.negatives] + [(each, NEITHER) for each in example.others]
    turns = max(1, math.ceil(len(held) / max_positives))
    room = documents - min(len(held), max_positives)
    count = max(turns, math.ceil(len(rest) / room)) if every_label else turns
    offset = 0
    for i in range(count):
        start = i % turns * max_positives
        positives = held[start : start + max_positives]
        free = documents - len(positives)
        yield positives + _round_robin(rest, offset, free)
        offset += free


def _round_robin(items: Sequence[_Judged], offset: int, count: int) -> list[_Judged]:
    """`count` of the items from `offset` on, round and round, none twice."""
    if not items:
        return []
    start = offset % len(items)
    return list(islice(chain(items[start:], items[:start]), count))


def _row(query: str, judged: Sequence[_Judged], width: int, keys: Keys) -> Row:
    empty = width - len(judged)
    texts = [document.text for document, _ in judged]
    relevance = [side for _, side in judged]
    targets = [document.target for document, _ in judged]
    blocks = (relevance, 0.0), (targets, 0.0), ([keys.of(text) for text in texts], PADDING)
    labels = [value for block, fill in blocks for value in [*block, *[fill] * empty]]
    return query, texts + [""] * empty, labels


def with_random_negatives(
    lists: Iterable[tuple[str, Sequence[Document]]], count: int, *, seed: int
) -> Iterator[tuple[str, list[Document]]]:
    """Each list with `count` documents of other queries behind it, target 0; none that one of the query's own lists
    holds, by its text, and fewer where there are no more."""
    held = [(query, list(documents)) for query, documents in lists]
    own: dict[str, set[str]] = {}
    for query, documents in held:
        own.setdefault(query, set()).update(document.text for document in documents)
    pool = list(dict.fromkeys(document.text for _, documents in held for document in documents))
    drawn = random.Random(seed)
    for query, documents in held:
        chosen = drawn.sample(pool, min(len(pool), count + len(own[query])))
        negatives = [Document(text, 0.0) for text in chosen if text not in own[query]][:count]
        yield query, documents + negatives


def as_dataset(rows: Iterable[Row], *, seed: int) -> Any:
    """A `datasets.Dataset` of the rows, shuffled by the seed. Raises ConfigError where there is none."""
    held = _shuffled(rows, seed)
    width = len(held[0][1])
    columns: dict[str, list[Any]] = {"query": [query for query, _, _ in held]}
    for i in range(width):
        columns[f"document_{i}"] = [texts[i] for _, texts, _ in held]
    columns["label"] = [labels for _, _, labels in held]
    return _dataset(columns)


def as_pairs(lists: Iterable[tuple[str, Sequence[Document]]], *, seed: int) -> Any:
    """A `datasets.Dataset` of (query, document, label), each pair once, shuffled. Raises ConfigError: none."""
    pairs = {(query, each.text): each.target for query, documents in lists for each in documents}
    held = _shuffled(pairs.items(), seed)
    return _dataset(
        {
            "query": [query for (query, _), _ in held],
            "document": [text for (_, text), _ in held],
            "label": [target for _, target in held],
        }
    )


def as_lists(lists: Iterable[tuple[str, Sequence[Document]]], *, seed: int) -> Any:
    """A `datasets.Dataset` of (query, docs, labels), a list of each a row, shuffled; labels from 0 up, for gains
    cannot be below it; a list of one target has no order and is left out. Raises ConfigError: none."""
    found = []
    for query, documents in lists:
        least = min((each.target for each in documents), default=0.0)
        labels = [each.target - min(least, 0.0) for each in documents]
        if len(set(labels)) > 1:
            found.append((query, [each.text for each in documents], labels))
    held = _shuffled(found, seed)
    columns = zip(*held, strict=True)
    return _dataset(dict(zip(("query", "docs", "labels"), map(list, columns), strict=True)))


def _shuffled(rows: Iterable[Any], seed: int) -> list[Any]:
    held = list(rows)
    if not held:
        raise ConfigError(
            "the training data holds no example that these losses learn from: judge more queries, loosen the mining"
            " rules, or let soft losses take examples without a positive (need_positive: false)"
        )
    random.Random(seed).shuffle(held)
    return held


def _dataset(columns: dict[str, list[Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_dict(columns)

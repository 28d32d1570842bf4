"""Training data: exports of the sink (`qrelay export triples`) as rows of one width.

A row is a query with N documents: at most `max_positives` of its positives, then negatives, the hardest first, then
padding. A query with more positives gives more rows, so an epoch sees each positive once; the negatives go round.
Labels are those of `losses.batch.BLOCKS`: relevance, soft target, key of the text.

    rows = rows_of(read_examples(paths), documents=8, max_positives=2)
    dataset = as_dataset(rows, seed=13)      # columns query, document_0 … document_7, label
"""

from __future__ import annotations

import glob
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import orjson

from qrelay.errors import ConfigError, MalformedInput
from qrelay.models.terms import indexed_text
from trainer.losses.batch import PADDING

HUMAN: Final = "human"
WEAK: Final = "weak"
MIXED: Final = "mixed"
_EXACT: Final = 2**24
"""Keys travel as float32, which holds integers exactly below it."""


@dataclass(frozen=True, slots=True)
class Document:
    """A passage as the model reads it, with its soft target in 0..1."""

    text: str
    target: float


@dataclass(frozen=True, slots=True)
class Example:
    """A query with its positives, the best first, and its negatives, the hardest first."""

    query_id: str
    query: str
    positives: tuple[Document, ...]
    negatives: tuple[Document, ...]


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


Row = tuple[str, list[str], list[float]]
"""Query, N texts, 3 N labels."""


def expand(patterns: Sequence[str]) -> list[Path]:
    """The files that globs name, sorted, each once. Raises ConfigError where one names none."""
    found: dict[Path, None] = {}
    for pattern in patterns:
        paths = sorted(glob.glob(pattern))  # noqa: PTH207
        if not paths:
            raise ConfigError(f"no training data at {pattern!r}: write it with `qrelay export triples`")
        found.update(dict.fromkeys(map(Path, paths)))
    return list(found)


def read_examples(paths: Iterable[Path]) -> Iterator[Example]:
    """The examples in exports of format `triples`, in their order.

    Raises:
        MalformedInput: a line that is none; it is named.
    """
    for path in paths:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    yield _example(orjson.loads(line))
                except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as error:
                    raise MalformedInput(
                        f"{path}:{number}: no line of `qrelay export triples` ({type(error).__name__}: {error})"
                    ) from error


def _example(row: dict[str, Any]) -> Example:
    return Example(
        row["query_id"],
        row["query"],
        tuple(_document(each) for each in row["positives"]),
        tuple(_document(each) for each in row["negatives"]),
    )


def _document(passage: dict[str, Any]) -> Document:
    return Document(indexed_text(passage["title"], passage["text"]), float(passage["p_relevant"]))


def rows_of(
    examples: Iterable[Example], *, documents: int, max_positives: int, keys: Keys | None = None
) -> Iterator[Row]:
    """Every example's rows; see the module."""
    known = keys or Keys()
    for example in examples:
        offset = 0
        for start in range(0, len(example.positives), max_positives):
            positives = example.positives[start : start + max_positives]
            room = documents - len(positives)
            negatives = _round_robin(example.negatives, offset, room)
            offset += room
            yield _row(example.query, positives, negatives, documents, known)


def _round_robin(items: Sequence[Document], offset: int, count: int) -> list[Document]:
    """`count` of the items from `offset` on, round and round, none twice."""
    if not items:
        return []
    start = offset % len(items)
    return list(islice(chain(items[start:], items[:start]), count))


def _row(query: str, positives: Sequence[Document], negatives: Sequence[Document], width: int, keys: Keys) -> Row:
    present = [*positives, *negatives]
    empty = width - len(present)
    texts = [document.text for document in present]
    relevance = [1.0] * len(positives) + [0.0] * len(negatives)
    targets = [document.target for document in present]
    blocks = (relevance, 0.0), (targets, 0.0), ([keys.of(text) for text in texts], PADDING)
    labels = [value for block, fill in blocks for value in [*block, *[fill] * empty]]
    return query, texts + [""] * empty, labels


def as_dataset(rows: Iterable[Row], *, seed: int) -> Any:
    """A `datasets.Dataset` of the rows, shuffled by the seed. Raises ConfigError where there is none."""
    from datasets import Dataset

    held = list(rows)
    if not held:
        raise ConfigError("the training data holds no example: judge more queries, or loosen the mining rules")
    random.Random(seed).shuffle(held)
    width = len(held[0][1])
    columns: dict[str, list[Any]] = {"query": [query for query, _, _ in held]}
    for i in range(width):
        columns[f"document_{i}"] = [texts[i] for _, texts, _ in held]
    columns["label"] = [labels for _, _, labels in held]
    return Dataset.from_dict(columns)

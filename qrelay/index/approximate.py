"""A build's last step for vectors: the approximate index where one is due, and its recall."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

import numpy as np

from qrelay.formats.queries import read_queries
from qrelay.index.ann import AnnRequest, AnnSearch, Approximation, build_ann, tuned
from qrelay.index.manifest import SCAFFOLD, dead_rows
from qrelay.index.store import PassageStore
from qrelay.index.stored import StoredVectors
from qrelay.models.embedder import Embedder
from qrelay.progress import step

QUESTIONS: Final = 200
_WORDS: Final = 12
_CHARACTERS: Final = 100


def approximate(
    work: Path, embedder: Embedder, request: AnnRequest, questions: Path | None = None
) -> Approximation | None:
    """Build the index that `request` asks for over the vectors in `work`, and measure it; None: exact search is due.

    questions: a file of queries to measure with; None: pieces of passages.

    Raises:
        SetupError: it does not reach the wanted recall.
        MalformedInput: the file of queries cannot be read.
    """
    vectors = StoredVectors.open(work)
    kind = request.choose(len(vectors), vectors.dim)
    if kind == "exact":
        return None
    began = time.monotonic()
    texts = [query.text for query in read_queries(questions)] if questions else sample_questions(PassageStore(work))
    build_ann(vectors, work, work / SCAFFOLD, kind, request.links)
    seconds = round(time.monotonic() - began, 2)
    with step("measuring recall"):
        queries = embedder.encode(texts, "query")
        search = AnnSearch(work, kind, dead_rows(work))
        return tuned(search, kind, vectors, queries, request.recall, seconds)


def sample_questions(store: PassageStore, count: int = QUESTIONS) -> list[str]:
    """Title and a dozen words from somewhere in a passage, of passages drawn at random, always alike."""
    draws = np.random.default_rng(0)
    rows = np.sort(draws.choice(len(store), min(count, len(store)), replace=False))
    questions = []
    for passage in store.passages(rows):
        words = passage.text.split(maxsplit=4096)
        start = int(draws.integers(0, max(1, len(words) - _WORDS)))
        questions.append(f"{passage.title} {' '.join(words[start : start + _WORDS])[:_CHARACTERS]}".strip())
    return questions

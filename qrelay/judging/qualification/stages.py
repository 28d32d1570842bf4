"""The retrieval systems' scores of graded pairs: what a judge must know more than."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qrelay.formats.annotated_pairs import GradedPair
from qrelay.index.bm25 import Bm25
from qrelay.models.embedder import Embedder, TextKind, load_embedder
from qrelay.text import passage_text
from qrelay.types import BM25, DENSE

Scores = dict[str, NDArray[np.float64]]
"""System -> one score a pair, nan where there is none."""


@dataclass(frozen=True, slots=True)
class StageOptions:
    """embedders: catalogue names of the dense systems, the retriever's first (`dense_names`). corpus: (title, text)
    of every document of the collection, from which BM25 takes its statistics; empty: no BM25, for its scores mean
    nothing without them. load: from a name to the model."""

    embedders: Sequence[str] = ("all-MiniLM-L6-v2",)
    corpus: Sequence[tuple[str, str]] = ()
    load: Callable[[str], Embedder] = load_embedder


def dense_names(embedders: Sequence[str]) -> dict[str, str]:
    """System -> embedder: the first is "dense", the retriever's own; another is "dense:" and its name."""
    first, *others = dict.fromkeys(embedders) or [""]
    return {DENSE: first, **{f"{DENSE}:{name}": name for name in others}} if first else {}


def score_pairs(pairs: Sequence[GradedPair], options: StageOptions, progress: Callable[[str], None]) -> Scores:
    """BM25 and dense scores of the pairs, as the retriever computes them (services/retriever), but on whole passages.

    Raises:
        ModelError: the embedder is absent; the text says what to pull.
    """
    found: Scores = {}
    for system, name in dense_names(options.embedders).items():
        progress(f"{system} scores")
        found[system] = _dense(pairs, options.load(name))
    if options.corpus:
        progress("BM25 scores")
        found[BM25] = _bm25(pairs, options.corpus)
    return found


def _dense(pairs: Sequence[GradedPair], embedder: Embedder) -> NDArray[np.float64]:
    passages = [passage_text(pair.title, pair.text) for pair in pairs]

    def vectors(texts: Iterable[str], kind: TextKind) -> dict[str, NDArray[np.float32]]:
        once = list(dict.fromkeys(texts))
        return dict(zip(once, embedder.encode(once, kind), strict=True))

    of_query, of_passage = vectors((pair.query for pair in pairs), "query"), vectors(passages, "document")
    products = [float(of_query[pair.query] @ of_passage[text]) for pair, text in zip(pairs, passages, strict=True)]
    return np.array(products, np.float64)


def _bm25(pairs: Sequence[GradedPair], corpus: Iterable[tuple[str, str]]) -> NDArray[np.float64]:
    """The retriever's BM25 over the corpus and the pairs' passages."""
    rows = {text: number for number, text in enumerate(dict.fromkeys(passage_text(*each) for each in corpus))}
    for pair in pairs:
        rows.setdefault(passage_text(pair.title, pair.text), len(rows))
    index = Bm25.of(rows)
    by_query = {query: index.scores(query) for query in dict.fromkeys(pair.query for pair in pairs)}
    return np.array([by_query[p.query][rows[passage_text(p.title, p.text)]] for p in pairs], np.float64)

"""Systems that answer the queries of a collection with a run: BM25, a bi-encoder, a cross-encoder over a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from qrelay.chunks import chunks
from qrelay.errors import InputError, ModelError
from qrelay.formats.beir import Collection, Run
from qrelay.formats.runs import ranked
from qrelay.index.bm25 import Bm25
from qrelay.models.embedder import SentenceTransformerEmbedder
from qrelay.naming import absent
from qrelay.parsing import json_document
from qrelay.progress import step
from qrelay.training.evaluation.embedding import Arithmetic, computing, corpus_vectors

DEPTH: Final = 100
_QUERIES_AT_ONCE: Final = 256


def bm25_run(collection: Collection, depth: int = DEPTH) -> Run:
    """The retriever's BM25 over whole documents."""
    index = Bm25.of(collection.texts)
    return {
        query_id: {collection.doc_ids[row]: score for row, score in index.best(text, depth)}
        for query_id, text in collection.asked.items()
    }


def bi_encoder_run(
    collection: Collection,
    embedder: SentenceTransformerEmbedder,
    *,
    depth: int = DEPTH,
    arithmetic: Arithmetic = "float32",
    keep: Path | None = None,
) -> Run:
    """Exact search over the whole corpus by cosine; `keep`: as of `corpus_vectors`."""
    corpus = corpus_vectors(collection, embedder, arithmetic=arithmetic, keep=keep)
    asked = collection.asked
    run: Run = {}
    for part in chunks(list(asked), _QUERIES_AT_ONCE):
        scores = embedder.encode([asked[query_id] for query_id in part], "query") @ corpus.T
        for query_id, row in zip(part, scores, strict=True):
            run[query_id] = _best(row, collection.doc_ids, depth)
    return run


def cross_encoder_run(
    collection: Collection,
    model: Any,
    first: Run,
    *,
    depth: int = DEPTH,
    batch: int = 32,
    arithmetic: Arithmetic = "float32",
) -> Run:
    """`model`: a CrossEncoder; it orders the first `depth` documents of each query of `first` anew. Documents below
    are dropped: what the first run did not find, this one cannot.

    Raises:
        InputError: the run names a document that the corpus does not hold.
        ModelError: a score is not finite.
    """
    run: Run = {}
    asked = collection.asked
    with step("reranking", total=len(asked), unit="queries") as reranking:
        for query_id, query in asked.items():
            found = ranked(first.get(query_id, {}))[:depth]
            if unknown := [doc_id for doc_id in found if doc_id not in collection.text_of]:
                raise InputError(f"the run of {query_id}: {absent(unknown[0], collection.text_of, 'the corpus')}")
            if found:
                pairs = [(query, collection.text_of[doc_id]) for doc_id in found]
                with computing(model, arithmetic):
                    new = model.predict(pairs, batch_size=batch, show_progress_bar=False)
                if not np.isfinite(new).all():
                    raise ModelError(f"the model gives a pair of query {query_id} no finite score: it is damaged")
                run[query_id] = {doc_id: float(score) for doc_id, score in zip(found, new, strict=True)}
            reranking.advance(1)
    return run


def is_cross_encoder(folder: Path) -> bool:
    """Whether the folder's model scores pairs: its architecture classifies sequences."""
    try:
        told = json_document((folder / "config.json").read_bytes())
        return any("SequenceClassification" in each for each in told["architectures"] or ())
    except (OSError, ValueError, KeyError, TypeError):  # loading the model says what is wrong with it
        return False


def _best(scores: npt.NDArray[np.float32], ids: Sequence[str], depth: int) -> dict[str, float]:
    top = np.argpartition(-scores, min(depth, len(scores)) - 1)[:depth]
    return {ids[i]: float(scores[i]) for i in top}

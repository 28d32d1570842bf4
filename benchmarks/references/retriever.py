"""The retriever beside bm25s and FAISS: the same passages, vectors, embedding model and depths.

The bare way: one call of `SentenceTransformer.encode_query`, one of FAISS's exact inner-product search (top 100) and
one of `bm25s.retrieve` (top 200) a batch. It returns row numbers: no passages are read, no lists are fused, and a
passage that one system found has no score of the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qrelay.index.arrays import load_array
from qrelay.index.manifest import current_folder
from qrelay.index.store import PassageStore
from qrelay.index.stored import VECTORS
from qrelay.models.catalogue import resolve
from qrelay.terms import K1, B, tokenize
from qrelay.text import passage_text

LIBRARY = "bm25s + FAISS"
BM25_TOP, DENSE_TOP = 200, 100


class Bare:
    """Texts in, row numbers out: ([texts, BM25_TOP], [texts, DENSE_TOP])."""

    def __init__(self, index_dir: Path, collection: str, model: str) -> None:
        import bm25s
        import faiss
        from sentence_transformers import SentenceTransformer

        folder = current_folder(index_dir / collection)
        vectors = np.ascontiguousarray(load_array(folder / VECTORS), dtype=np.float32)
        passages = PassageStore(folder).passages(np.arange(len(vectors)))
        self._terms = [tokenize(passage_text(each.title, each.text)) for each in passages]
        self._bm25 = bm25s.BM25(k1=K1, b=B)
        self._bm25.index(self._terms, show_progress=False)
        self._dense = faiss.IndexFlatIP(vectors.shape[1])
        self._dense.add(vectors)
        self._model = SentenceTransformer(str(resolve(model).path), local_files_only=True)
        self.passages = len(passages)

    def search(self, texts: Sequence[str]) -> tuple[Any, Any]:
        """One batch."""
        vectors = self._model.encode_query(list(texts), batch_size=len(texts), normalize_embeddings=True)
        _scores, dense = self._dense.search(vectors, min(DENSE_TOP, self.passages))
        terms = [tokenize(text) for text in texts]
        lexical, _ = self._bm25.retrieve(terms, k=min(BM25_TOP, self.passages), show_progress=False)
        return lexical, dense

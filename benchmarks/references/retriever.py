"""The retriever beside bm25s and FAISS: the same passages, vectors, embedding model and depths.

The bare way: one call of `SentenceTransformer.encode_query`, one of FAISS's exact inner-product search (top 100) and
one of `bm25s.retrieve` (top 200) a batch. It returns row numbers: no passages are read, no lists are fused, and a
passage that one system found has no score of the other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from qrelay.index.ann import INDEX
from qrelay.index.manifest import current_folder, read_manifest
from qrelay.index.stored import StoredVectors
from qrelay.models.catalogue import resolve

LIBRARY = "bm25s + FAISS"
BM25_TOP, DENSE_TOP = 200, 100


class Bare:
    """Texts in, row numbers out: ([texts, BM25_TOP], [texts, DENSE_TOP]). On the index's own files: bm25s loads its
    matrix into memory, FAISS reads the approximate index where there is one, else it holds all vectors."""

    def __init__(
        self, index_dir: Path, collection: str, model: str, encode: Callable[[Sequence[str]], Any] | None = None
    ) -> None:
        """encode: queries to vectors; None: as sentence-transformers does it."""
        import bm25s
        import faiss
        from sentence_transformers import SentenceTransformer

        folder = current_folder(index_dir / collection)
        facts = read_manifest(folder)
        self._tokenize = facts.tokenize(folder)
        self._bm25 = bm25s.BM25.load(str(folder / "bm25"), show_progress=False)
        self._parameters: Any = None
        if facts.ann is None:
            vectors = np.ascontiguousarray(StoredVectors.open(folder).take(np.arange(facts.passages)))
            self._dense = faiss.IndexFlatIP(vectors.shape[1])
            self._dense.add(vectors)
        else:
            self._dense = faiss.read_index(str(folder / INDEX))
            if facts.ann.kind == "hnsw":
                self._parameters = faiss.SearchParametersHNSW(efSearch=max(facts.ann.effort, DENSE_TOP))
            else:
                self._parameters = faiss.SearchParametersIVF(nprobe=facts.ann.effort)
        self._encode = encode or self._by(SentenceTransformer(str(resolve(model).path), local_files_only=True))
        self.passages = facts.passages

    @staticmethod
    def _by(model: Any) -> Callable[[Sequence[str]], Any]:
        return lambda texts: model.encode_query(list(texts), batch_size=len(texts), normalize_embeddings=True)

    def search(self, texts: Sequence[str]) -> tuple[Any, Any]:
        """One batch."""
        vectors = self._encode(texts)
        _scores, dense = self._dense.search(vectors, min(DENSE_TOP, self.passages), params=self._parameters)
        terms = [self._tokenize(text) for text in texts]
        lexical, _ = self._bm25.retrieve(terms, k=min(BM25_TOP, self.passages), show_progress=False)
        return lexical, dense

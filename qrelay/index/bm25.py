"""BM25 with bm25s: postings with precomputed scores, memory-mapped; built without holding the corpus.

Terms and constants: `qrelay.terms`.

bm25s builds its score matrix from Python lists of the whole corpus; here the same matrix, in bm25s's own
files, is written by a counting sort of spooled token ids. Memory: the vocabulary (a dict) and a block of
passages. The postings are written through memory maps, whose pages the system may take back.

The formula is bm25s's "lucene" method (Kamphuis et al., ECIR 2020): score(t, p) = idf(t) * tf /
(k1 * (1 - b + b * length / mean length) + tf), idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5)).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from qrelay.index.arrays import NpyWriter, RowBuffer, load_array
from qrelay.parsing import json_document
from qrelay.terms import K1, B, Tokenize, tokenize

_BLOCK_TOKENS: Final = 1 << 17
Rows = NDArray[np.int64]
_NONE: Final[Rows] = np.empty(0, np.int64)


class TokenSpool:
    """Passages' token ids on disk: tokens.npy int32 [tokens], lengths.npy int32 [passages], vocab.json."""

    def __init__(self, folder: Path, tokenize: Tokenize = tokenize) -> None:
        self._folder, self._tokenize = folder, tokenize
        self.without_terms = 0
        """Passages in which BM25 finds nothing."""
        self._vocab: dict[str, int] = {}
        self._tokens = RowBuffer(NpyWriter(folder / "tokens.npy", np.int32))
        self._lengths = RowBuffer(NpyWriter(folder / "lengths.npy", np.int32))

    def add(self, text: str) -> None:
        """Add a passage's terms."""
        vocab, terms = self._vocab, self._tokenize(text)
        self.without_terms += not terms
        self._tokens.add(*[vocab.setdefault(term, len(vocab)) for term in terms])
        self._lengths.add(len(terms))

    def close(self) -> None:
        self._tokens.close()
        self._lengths.close()
        vocab = self._vocab or {"": 0}
        (self._folder / "vocab.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf8")


def build_bm25(spool: Path, out: Path) -> None:
    """Write bm25s's files into `out` from the token spool in `spool`."""
    out.mkdir(exist_ok=True)
    lengths = load_array(spool / "lengths.npy")
    vocab: dict[str, int] = json_document((spool / "vocab.json").read_text("utf8"))
    df = np.zeros(len(vocab), np.int64)
    for terms, _, _ in _postings(spool, lengths):
        df += np.bincount(terms, minlength=len(df))
    indptr = np.concatenate([[0], np.cumsum(df)])
    np.save(out / "indptr.csc.index.npy", indptr)
    if indptr[-1]:
        _write_scores(spool, out, lengths, df, indptr)
    else:
        np.save(out / "data.csc.index.npy", np.zeros(0, np.float32))
        np.save(out / "indices.csc.index.npy", np.zeros(0, np.int32))
    (out / "vocab.index.json").write_text(json.dumps(vocab, ensure_ascii=False), "utf8")
    (out / "params.index.json").write_text(json.dumps(_parameters(len(lengths)), indent=1), "utf8")


def _parameters(passages: int) -> dict[str, Any]:
    """What bm25s reads back to score queries as we scored passages."""
    return {
        "k1": K1,
        "b": B,
        "delta": 0.5,
        "method": "lucene",
        "idf_method": "lucene",
        "dtype": "float32",
        "int_dtype": "int32",
        "num_docs": passages,
        "backend": "numpy",
    }


def _write_scores(
    spool: Path, out: Path, lengths: NDArray[Any], df: NDArray[np.int64], indptr: NDArray[np.int64]
) -> None:
    n, total = len(lengths), int(indptr[-1])
    idf = np.log(1 + (n - df + 0.5) / (df + 0.5))
    mean = float(lengths.mean(dtype=np.float64))
    data = np.lib.format.open_memmap(out / "data.csc.index.npy", "w+", np.float32, (total,))
    indices = np.lib.format.open_memmap(out / "indices.csc.index.npy", "w+", np.int32, (total,))
    next_free = indptr[:-1].copy()
    for terms, rows, tf in _postings(spool, lengths):
        norm = K1 * (1 - B + B * lengths[rows] / mean)
        firsts = np.flatnonzero(np.diff(terms, prepend=-1))
        counts = np.diff(firsts, append=len(terms))
        places = next_free[terms] + np.arange(len(terms)) - np.repeat(firsts, counts)
        data[places] = idf[terms] * tf / (norm + tf)
        indices[places] = rows
        next_free[terms[firsts]] += counts
    data.flush()
    indices.flush()


def _postings(
    spool: Path, lengths: NDArray[Any]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
    """Blocks of (term, row, count in that passage), sorted by term, then row; about 130,000 tokens each."""
    tokens = load_array(spool / "tokens.npy")
    start = row = 0
    while row < len(lengths):
        window = np.cumsum(lengths[row : row + _BLOCK_TOKENS], dtype=np.int64)
        size = max(1, int(np.searchsorted(window, _BLOCK_TOKENS, side="right")))
        stop = start + int(window[size - 1])
        local = np.repeat(np.arange(size), lengths[row : row + size])
        keys, tf = np.unique(tokens[start:stop].astype(np.int64) * size + local, return_counts=True)
        if len(keys):
            yield keys // size, keys % size + row, tf
        start, row = stop, row + size


class Bm25:
    """Scores of every passage for a query. Safe to share between threads. tokenize: that of the index's build."""

    def __init__(self, index: Any, tokenize: Tokenize = tokenize, dead: Rows = _NONE) -> None:
        """index: bm25s's. dead: rows that score 0."""
        self._index, self._tokenize, self._dead = index, tokenize, dead

    @classmethod
    def load(cls, folder: Path, tokenize: Tokenize = tokenize, dead: Rows = _NONE) -> Self:
        """What `build_bm25` wrote, memory-mapped."""
        import bm25s

        index = bm25s.BM25.load(str(folder), mmap=True, show_progress=False)
        for name in ("data", "indices", "indptr"):
            index.scores[name] = np.asarray(index.scores[name])
        return cls(index, tokenize, dead)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Self:
        """Over texts in memory, as many as fit there."""
        import bm25s

        index = bm25s.BM25(k1=K1, b=B, method="lucene")
        index.index([tokenize(text) for text in texts], show_progress=False)
        return cls(index)

    def best(self, text: str, count: int) -> list[tuple[int, float]]:
        """(number, score) of the best passages that share a term with the text, at most `count`, best first."""
        index = self._index
        terms = [term for term in self._tokenize(text) if term in index.vocab_dict]
        if not terms:
            return []
        rows, scores = index.retrieve(
            [terms], k=min(count, index.scores["num_docs"]), show_progress=False, n_threads=1
        )
        return [(int(row), float(score)) for row, score in zip(rows[0], scores[0], strict=True) if score > 0]

    def scores(self, text: str) -> NDArray[np.float32]:
        """Shape [passages]; 0 where a passage shares no term with the text."""
        ids = self._index.get_tokens_ids(self._tokenize(text))
        scores: NDArray[np.float32] = self._index.get_scores_from_ids(ids)
        if len(self._dead):
            scores[self._dead] = 0
        return scores

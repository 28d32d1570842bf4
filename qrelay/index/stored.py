"""Stored vectors: rows on disk in the form that the settings say, read as float32.

| form | a row of vectors.npy | bytes at 384 dimensions |
|---|---|---|
| float32 | the vector | 1,536 |
| float16 | the vector, rounded | 768 |
| int8 | integers from -127 to 127, then the float32 by which they are multiplied | 388 |
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from qrelay.index.arrays import load_array, load_rows
from qrelay.index.kinds import FORMS, Form

VECTORS: Final = "vectors.npy"
Vectors = NDArray[np.float32]
_SCALE_BYTES: Final = 4
_LEVELS: Final = 127
_BLOCK_ROWS: Final = 8192


def form_of(parameters: Mapping[str, object]) -> Form:
    """Of a version with these parameters."""
    return next((form for form in FORMS if form == parameters.get("vectors")), "float32")


def row_of(form: Form, dim: int) -> tuple[Any, tuple[int]]:
    """(dtype, shape) of one stored row."""
    return np.dtype(form), (dim + _SCALE_BYTES if form == "int8" else dim,)


def stored(vectors: Vectors, form: Form) -> NDArray[Any]:
    """Vectors [n, dim] as rows of that form."""
    if form != "int8":
        return vectors.astype(form, copy=False)
    scales = np.maximum(np.abs(vectors).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / _LEVELS
    levels = np.rint(vectors / scales).astype(np.int8)
    return np.hstack([levels, np.ascontiguousarray(scales, np.float32).view(np.int8)])


class StoredVectors:
    """Rows of a vectors.npy as float32, memory-mapped. Safe to share between threads."""

    def __init__(self, rows: NDArray[Any]) -> None:
        """rows: [n, width] as `stored` makes them."""
        self._rows = rows
        self.form: Form = "int8" if rows.dtype == np.int8 else "float16" if rows.dtype == np.float16 else "float32"
        self.dim = rows.shape[1] - (_SCALE_BYTES if self.form == "int8" else 0)

    @classmethod
    def open(cls, folder: Path, rows: int | None = None) -> Self:
        """Of a version, or the first rows of one under way. Raises OSError and ValueError as `load_array`."""
        path = folder / VECTORS
        return cls(load_array(path) if rows is None else load_rows(path, rows))

    def __len__(self) -> int:
        return len(self._rows)

    def take(self, rows: NDArray[Any]) -> Vectors:
        """The vectors at `rows`, [len(rows), dim]."""
        return self._read(self._rows[rows])

    def blocks(self) -> Iterator[tuple[int, Vectors]]:
        """(first row, vectors) from the first to the last; float32, which needs no conversion, whole."""
        if self.form == "float32":
            yield 0, self._rows
            return
        for start in range(0, len(self), _BLOCK_ROWS):
            yield start, self._read(self._rows[start : start + _BLOCK_ROWS])

    def similarities(self, queries: Vectors) -> Vectors:
        """Inner products [len(queries), n]."""
        found = np.empty((len(queries), len(self)), np.float32)
        for start, block in self.blocks():
            np.matmul(queries, block.T, out=found[:, start : start + len(block)])
        return found

    def _read(self, rows: NDArray[Any]) -> Vectors:
        if self.form != "int8":
            return rows.astype(np.float32, copy=False)
        scales = np.ascontiguousarray(rows[:, self.dim :]).view(np.float32)
        return rows[:, : self.dim].astype(np.float32) * scales

"""Writing an index's arrays: they grow on disk, not in memory."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

_BLOCK_BYTES: Final = 1 << 16


class NpyWriter:
    """A .npy file of shape [rows, *row_shape] to which rows are appended; memory holds one piece.

    The header leaves room for the row count to grow (numpy pads it for this), and is completed by close.
    `keep_rows` reopens a file and drops what was written after them.
    """

    def __init__(self, path: Path, dtype: Any, row_shape: tuple[int, ...] = (), *, keep_rows: int = 0) -> None:
        self._dtype, self._row_shape = np.dtype(dtype), row_shape
        self.rows = keep_rows
        self._stream: IO[bytes] = path.open("r+b" if keep_rows else "wb")
        self._write_header()
        row_bytes = self._dtype.itemsize * int(np.prod(row_shape, dtype=np.int64))
        self._stream.truncate(self._stream.tell() + keep_rows * row_bytes)
        self._stream.seek(0, os.SEEK_END)

    def _write_header(self) -> None:
        self._stream.seek(0)
        descr = np.lib.format.dtype_to_descr(self._dtype)
        header = {"descr": descr, "fortran_order": False, "shape": (self.rows, *self._row_shape)}
        np.lib.format.write_array_header_1_0(self._stream, header)

    def append(self, rows: Any) -> None:
        """Add an array [n, *row_shape]."""
        array = np.ascontiguousarray(rows, dtype=self._dtype).reshape(-1, *self._row_shape)
        self._stream.write(array.tobytes())
        self.rows += len(array)

    def sync(self) -> None:
        """Make the rows so far survive a power failure."""
        self._stream.flush()
        os.fsync(self._stream.fileno())

    def close(self) -> None:
        self._write_header()
        self.sync()
        self._stream.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class RowBuffer:
    """Collects rows in front of an `NpyWriter`, about 8,000 of them at most."""

    def __init__(self, writer: NpyWriter, row_bytes: int = 8) -> None:
        self._writer, self._limit = writer, max(1, _BLOCK_BYTES // row_bytes)
        self._rows: list[Any] = []

    def add(self, *rows: Any) -> None:
        self._rows.extend(rows)
        if len(self._rows) >= self._limit:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.append(self._rows)
            self._rows = []

    def close(self) -> None:
        self._flush()
        self._writer.close()


def load_array(path: Path) -> NDArray[Any]:
    """A .npy file, memory-mapped read-only: replicas on one machine share its pages. Raises OSError, and ValueError
    where it is no such file, or cut short."""
    with _damage(path):
        return np.asarray(np.load(path, mmap_mode="r"))


def load_rows(path: Path, rows: int) -> NDArray[Any]:
    """The first rows of a .npy file whose header may not count them yet. Raises as `load_array`."""
    with _damage(path), path.open("rb") as stream:
        np.lib.format.read_magic(stream)
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
        return np.asarray(np.memmap(path, dtype, "r", stream.tell(), (rows, *shape[1:])))


@contextmanager
def _damage(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError:
        raise
    except Exception as error:  # numpy's parser of headers is Python's own, and raises what that raises
        raise ValueError(f"{path} is no array: {error!r}") from error

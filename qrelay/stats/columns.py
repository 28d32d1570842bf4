"""What the statistics accept: columns of equal length, finite scores, labels that are yes or no, whole grades."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qrelay.errors import InputError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
_ROUNDING: Final = 1e-9


def yes_or_no(labels: ArrayLike) -> Bools:
    """Labels [n], true/false or 1/0, as booleans.

    Raises:
        InputError: empty, not one column, or something else than yes and no: a grade, or nan.
    """
    found = _column(np.asarray(labels), "labels")
    if found.dtype == np.bool_:
        return found
    values = _numbers(found, "labels")
    if not np.isin(values, (0.0, 1.0)).all():
        raise InputError("a label is neither 0 nor 1: compare grades with the least relevant grade first")
    return np.asarray(values == 1.0)


def finite(values: ArrayLike, what: str = "scores") -> Floats:
    """Numbers [n] as doubles.

    Raises:
        InputError: empty, not one column, not numbers, nan or infinite.
    """
    found = _numbers(_column(np.asarray(values), what), what)
    if not np.isfinite(found).all():
        raise InputError(f"{what}: {_which(~np.isfinite(found))} no finite number: leave such rows out, count them")
    return found


def probabilities(values: ArrayLike) -> Floats:
    """Probabilities [n]; sums that rounding carried past 0 or 1 are set to it.

    Raises:
        InputError: as `finite`, or outside 0 to 1.
    """
    found = finite(values, "probabilities")
    if found.min() < -_ROUNDING or found.max() > 1.0 + _ROUNDING:
        raise InputError("a probability lies outside 0 to 1: calibrate scores before measuring their calibration")
    return np.clip(found, 0.0, 1.0)


def whole(values: ArrayLike, what: str = "grades") -> Ints:
    """Whole numbers [n], booleans as 0 and 1.

    Raises:
        InputError: as `finite`, or a number with a fraction.
    """
    found = finite(values, what)
    if (found != np.rint(found)).any():
        raise InputError(f"{what}: {_which(found != np.rint(found))} no whole number: cut scores into grades first")
    return found.astype(np.int64)


def codes(groups: ArrayLike) -> Ints:
    """Groups [n] of any kind, such as query ids, numbered from 0 in sorted order.

    Raises:
        InputError: empty, or not one column.
    """
    found = _column(np.asarray(groups), "groups")
    return np.asarray(np.unique(found, return_inverse=True)[1], np.int64)


def same_length(*columns: NDArray[Any]) -> None:
    """Raises InputError where the columns are not equally long."""
    if len({len(column) for column in columns}) > 1:
        lengths = ", ".join(str(len(column)) for column in columns)
        raise InputError(f"columns of {lengths} rows: give every column one value a row")


def _column(found: NDArray[Any], what: str) -> NDArray[Any]:
    if found.ndim != 1 or not len(found):
        raise InputError(f"{what} of shape {found.shape}: give one column with at least one row")
    return found


def _numbers(found: NDArray[Any], what: str) -> Floats:
    try:
        return np.asarray(found, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{what} are no numbers ({error}): convert them first") from error


def _which(wrong: NDArray[np.bool_]) -> str:
    rows = np.flatnonzero(wrong)
    return f"row {rows[0]} holds" if len(rows) == 1 else f"{len(rows)} rows, the first of them {rows[0]}, hold"

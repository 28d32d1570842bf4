"""Krippendorff's alpha, apart from the other figures of agreement: it alone needs the library of that name."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from qrelay.errors import InputError
from qrelay.stats.columns import finite, same_length

LEVELS: Final = ("nominal", "ordinal", "interval", "ratio")


def krippendorff_alpha(one: ArrayLike, other: ArrayLike, level: str = "ordinal") -> float:
    """Krippendorff's alpha (Content Analysis, 4th ed. 2018, chapter 12) of two complete gradings [n], by the library
    of that name; nan where nothing varies. level: one of `LEVELS`."""
    a, b = finite(one, "grades"), finite(other, "grades")
    same_length(a, b)
    return alpha_of(np.vstack([a, b]), level)


def alpha_of(gradings: ArrayLike, level: str = "ordinal") -> float:
    """The same of any number of gradings [people, n], with nan where somebody gave no grade."""
    import krippendorff

    if level not in LEVELS:
        raise InputError(f"level {level!r}: use one of {', '.join(LEVELS)}")
    data = np.asarray(gradings, dtype=float)
    shared = data[:, (~np.isnan(data)).sum(0) > 1]
    if len(np.unique(shared[~np.isnan(shared)])) < 2:
        return float("nan")
    return float(krippendorff.alpha(reliability_data=data, level_of_measurement=level))

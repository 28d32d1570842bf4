"""How well labels and scores agree with people's grades."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from qrelay.errors import InputError
from qrelay.stats.columns import Ints, codes, finite, same_length, whole, yes_or_no

_MOST_GRADES: Final = 256


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """P(a relevant row scores above a not relevant one), ties counting half: Mann and Whitney's U (1947) over the
    number of such pairs, from ranks.

    labels: [n] yes or no; scores: [n] finite. nan where there are not both classes.
    """
    from scipy.stats import rankdata

    y, s = yes_or_no(labels), finite(scores)
    same_length(y, s)
    positives = int(y.sum())
    negatives = len(y) - positives
    if not positives or not negatives:
        return float("nan")
    return float((rankdata(s)[y].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def auc_within(labels: ArrayLike, scores: ArrayLike, groups: ArrayLike) -> tuple[float, int]:
    """The mean of the groups' own AUCs, every group counting the same, and how many groups have both classes;
    (nan, 0) where none has. Shapes [n]."""
    y, s, g = yes_or_no(labels), finite(scores), codes(groups)
    same_length(y, s, g)
    order = np.argsort(g, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(g[order])) + 1)
    found = [auc(y[part], s[part]) for part in parts if y[part].any() and not y[part].all()]
    return (float(np.mean(found)), len(found)) if found else (float("nan"), 0)


def kappa(one: ArrayLike, other: ArrayLike, weights: str | None = None) -> float:
    """Agreement of two gradings [n] beyond chance: Cohen's kappa (1960), or with weights "quadratic" (Cohen
    1968), where a disagreement costs the square of the distance in grades. 0 where both are the same constant.

    Distances are between grades, so a grade that nobody gave leaves its gap (scikit-learn's function closes it unless
    it is told all labels). Fast enough for a bootstrap: 0.06 ms on 1,000 rows.
    """
    if weights not in (None, "quadratic"):
        raise InputError(f'weights {weights!r}: use None or "quadratic"')
    a, b = whole(one), whole(other)
    same_length(a, b)
    low = min(a.min(), b.min())
    steps = np.arange(max(a.max(), b.max()) - low + 1)
    counts = _counts(a - low, b - low, len(steps))
    apart = np.subtract.outer(steps, steps)
    cost = apart**2 if weights else apart != 0
    by_chance = float((cost * np.outer(counts.sum(1), counts.sum(0))).sum()) / len(a)
    return 1.0 - float((cost * counts).sum()) / by_chance if by_chance > 0 else 0.0


def fleiss_kappa(counts: ArrayLike) -> float:
    """Agreement of several people beyond chance: Fleiss' kappa (1971) of counts [n, grades], how many people gave a
    row each grade. Rows may have different numbers of grades, and count by theirs; rows with fewer than two say
    nothing. nan where nothing varies or no row counts."""
    given = whole(np.asarray(counts).ravel()).reshape(np.shape(counts))
    given = given[given.sum(1) > 1]
    raters = given.sum(1)
    if not len(given):
        return float("nan")
    agreed = float(((given * (given - 1)).sum(1) / (raters * (raters - 1))).mean())
    by_chance = float(((given.sum(0) / given.sum()) ** 2).sum())
    return (agreed - by_chance) / (1 - by_chance) if by_chance < 1 else float("nan")


def confusion(people: ArrayLike, said: ArrayLike, grades: Sequence[int]) -> Ints:
    """Counts [len(grades), len(grades)] of rows: row: people's grade, column: what was said, in this order.

    Raises:
        InputError: a grade that is not among `grades`.
    """
    a, b = whole(people), whole(said)
    same_length(a, b)
    position = {int(grade): number for number, grade in enumerate(grades)}
    unknown = sorted({*a.tolist(), *b.tolist()} - position.keys())
    if unknown:
        raise InputError(f"grades {unknown} are not on the scale {list(grades)}: name every grade that occurs")
    rows, columns = ([position[grade] for grade in each.tolist()] for each in (a, b))
    return _counts(np.array(rows), np.array(columns), len(grades))


def best_kappa_threshold(labels: ArrayLike, scores: ArrayLike) -> float:
    """The threshold t for which the decision score >= t has the highest binary kappa with the labels [n]; of several
    the highest. It lies halfway between two scores [n] that occur, so that rounding cannot move a row across it;
    where all scores are equal it is that score."""
    y, s = yes_or_no(labels), finite(scores)
    same_length(y, s)
    values = np.unique(s)
    if len(values) == 1:
        return float(values[0])
    cuts = values[:-1] / 2 + values[1:] / 2
    said = len(s) - np.searchsorted(np.sort(s), cuts)
    hits = y.sum() - np.searchsorted(np.sort(s[y]), cuts)
    return float(cuts[::-1][int(np.argmax(_binary_kappa(len(y), y.sum(), said, hits)[::-1]))])


def _binary_kappa(n: Any, relevant: Any, said: Any, hits: Any) -> NDArray[np.float64]:
    """Cohen's kappa of many decisions at once: rows, relevant ones, called relevant [cuts], both [cuts]."""
    agreed = (n - relevant - said + 2 * hits) / n
    chance = (relevant * said + (n - relevant) * (n - said)) / n**2
    return np.asarray(np.where(chance < 1, (agreed - chance) / np.where(chance < 1, 1 - chance, 1), 0.0))


def _counts(rows: Ints, columns: Ints, size: int) -> Ints:
    if size > _MOST_GRADES:
        raise InputError(f"a scale of {size} grades, {_MOST_GRADES} are the most: cut scores into grades first")
    return np.asarray(np.bincount(rows * size + columns, minlength=size * size).reshape(size, size), np.int64)

"""Whether a map is applied to passages like those that it was fitted on.

A map keeps a profile of each query that it was fitted on: mean, spread and best of each of its inputs over the
query's judged passages. Where it is applied, profiles of new queries are compared with these, figure by figure, by
the Kolmogorov-Smirnov test of two samples, corrected for the number of figures (Bonferroni). The unit is the query,
as passages of one query are not independent. So a difference means that texts, queries or judges are others, or that
the passages are chosen otherwise (only the best ones, say): then the map's probabilities may be wrong. No difference
means that nothing of this kind shows; what people would grade does not show in scores at all.
"""

from __future__ import annotations

import logging
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

log = logging.getLogger(__name__)

LEAST_PASSAGES: Final = 5
"""Of a query, below which it has no profile."""
LEAST_QUERIES: Final = 10
"""On either side, below which nothing is said."""
MOST_QUERIES: Final = 200
LEVEL: Final = 0.001
"""p below which two samples differ."""
STEPS: Final = 20
"""A difference below a twentieth of a figure's spread is none: engines differ in last digits, and grades in steps."""
LEAST_STEP: Final = 1e-4
FIGURES: Final = ("mean", "spread", "best")
Profile = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Domain:
    """collection: what the pairs came from, for people. profiles: one a query, `FIGURES` of the first input, then of
    the next; nan where it was missing throughout."""

    collection: str = ""
    profiles: tuple[Profile, ...] = ()

    @property
    def known(self) -> bool:
        """Whether there are enough queries to compare with."""
        return len(self.profiles) >= LEAST_QUERIES


@dataclass(frozen=True, slots=True)
class Likeness:
    """queries: of the new ones. p: of the figure that differs most; what: that figure's name and its medians, fitted
    and new."""

    fitted_on: str
    queries: int
    p: float
    what: str

    @property
    def differs(self) -> bool:
        """Whether the new queries are not like those of the map."""
        return self.p < LEVEL

    def __str__(self) -> str:
        where = f"{self.queries} queries here and those of {self.fitted_on or 'the pairs it was fitted on'}"
        if not self.differs:
            return f"no difference shows between {where} (p {self.p:.2g})"
        return f"{where} differ (p {self.p:.1g}): {self.what}"


def profile(rows: Sequence[Sequence[float]]) -> Profile | None:
    """The profile of one query's passages, a row of inputs each, nan where one is missing; None: too few passages."""
    import numpy as np

    if len(rows) < LEAST_PASSAGES:
        return None
    found: list[float] = []
    for column in np.asarray(rows, np.float64).T:
        known = column[~np.isnan(column)]
        found += [known.mean(), known.std(), known.max()] if len(known) else [np.nan] * len(FIGURES)
    return tuple(round(float(value), 6) for value in found)


def likeness(domain: Domain, inputs: Sequence[str], here: Sequence[Profile]) -> Likeness | None:
    """How like the map's queries these are; None where one side has too few. inputs: their names, in the profiles'
    order."""
    import numpy as np
    from scipy.stats import ks_2samp

    if not domain.known or len(here) < LEAST_QUERIES:
        return None
    tests = []
    names = [f"{figure} of {name}" for name in inputs for figure in FIGURES]
    for name, fitted, new in zip(names, np.array(domain.profiles).T, np.array(here).T, strict=True):
        fitted, new = fitted[~np.isnan(fitted)], new[~np.isnan(new)]
        step = float(np.concatenate([fitted, new]).std()) / STEPS
        if len(fitted) and len(new) and step > LEAST_STEP:
            said = f"the {name} is {np.median(new):.3g} here, {np.median(fitted):.3g} there (medians)"
            tests.append((float(ks_2samp(np.round(fitted / step), np.round(new / step)).pvalue), said))
    p, what = min(tests, default=(1.0, ""))
    return Likeness(domain.collection, len(here), min(1.0, p * max(1, len(tests))), what)


class Watch:
    """The last `MOST_QUERIES` queries of each collection that a map is applied to. They are compared when there are
    20, 40, 80, … of them: the more often one looks, the more often chance alone shows a difference."""

    def __init__(self, domain: Domain, inputs: Sequence[str]) -> None:
        self._domain = domain
        self._inputs = tuple(inputs)
        self._recent: dict[str, deque[Profile]] = defaultdict(lambda: deque(maxlen=MOST_QUERIES))
        self._seen: dict[str, int] = defaultdict(int)
        self._found: dict[str, Likeness] = {}

    def add(self, collection: str, rows: Sequence[Sequence[float]]) -> None:
        """One query's inputs, a row a passage."""
        found = profile(rows)
        if found is None or not self._domain.known:
            return
        self._recent[collection].append(found)
        self._seen[collection] += 1
        doublings, rest = divmod(self._seen[collection], 2 * LEAST_QUERIES)
        if not rest and not doublings & (doublings - 1):
            self._look(collection)

    def _look(self, collection: str) -> None:
        found = likeness(self._domain, self._inputs, list(self._recent[collection]))
        if found is None:
            return
        self._found[collection] = found
        if found.differs:
            log.warning(
                "calibration: of %s, %s. Probabilities of this map may be wrong: grade pairs of this collection and "
                "fit one, with --prior if they are few",
                collection,
                found,
            )

    def details(self) -> dict[str, Any]:
        """What to say of each collection."""
        if not self._domain.known:
            return {"calibration's domain": "not recorded: nothing shows where this map does not hold"}
        return {f"calibration's domain: {name}": str(found) for name, found in self._found.items()}

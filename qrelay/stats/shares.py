"""The share of hits among units that come in groups: passages of a query are not independent of each other."""

from __future__ import annotations

from statistics import NormalDist

from qrelay.stats.intervals import Interval


class GroupedShare:
    """Counted a group at a time, in constant memory.

    The interval is Wilson's (1927), with the number of units divided by the design effect: how much wider the groups
    make the variance of the share, as a ratio of two sums over groups, than independent units would (Kish 1965,
    sections 5.4 and 6.5). A share of 0 or 1, and a single group, have no such effect.
    """

    def __init__(self) -> None:
        self.hits = 0
        self.units = 0
        self._groups = 0
        self._hits_squared = self._hits_units = self._units_squared = 0

    def add(self, hits: int, units: int) -> None:
        """A group of so many units, of which so many are hits; one without units counts nothing."""
        if not units:
            return
        self.hits, self.units, self._groups = self.hits + hits, self.units + units, self._groups + 1
        self._hits_squared += hits * hits
        self._hits_units += hits * units
        self._units_squared += units * units

    @property
    def design_effect(self) -> float:
        """At least 1: with few groups less is chance."""
        if not 0 < self.hits < self.units or self._groups < 2:
            return 1.0
        share = self.hits / self.units
        between = self._hits_squared - 2 * share * self._hits_units + share * share * self._units_squared
        independent = share * (1 - share) * self.units
        return max(1.0, between * self._groups / (self._groups - 1) / independent)

    def interval(self, level: float = 0.95) -> Interval:
        """The share; all of it nan where nothing was counted."""
        if not self.units:
            return Interval(float("nan"), float("nan"), float("nan"))
        share, n = self.hits / self.units, self.units / self.design_effect
        z = NormalDist().inv_cdf(0.5 + level / 2)
        middle = (share + z * z / (2 * n)) / (1 + z * z / n)
        reach = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
        return Interval(share, max(0.0, middle - reach), min(1.0, middle + reach))

"""Whether a cascade's thresholds still keep their promise: the audited answers, watched over a window.

The small judge's answers promise an error: the mean of their calibrated probabilities of being wrong. An audited
answer is also judged by the large judge, and a disagreement counts as an error. The alarm is on while the promise
lies below the 95% Clopper-Pearson interval (1934) of the errors observed: then the data no longer look like those
that the map was fitted on, or the map was never right. Pairs are audited by the configured `max_error`, also while a
stricter one is in force, so that the window can recover.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any, Final

from qrelay.runtime import telemetry
from qrelay.stats.intervals import Interval, clopper_pearson

log = logging.getLogger(__name__)

LEAST: Final = 20
"""Audited pairs below which nothing is said."""


@dataclass(frozen=True, slots=True)
class Audit:
    """What the window shows. promised: mean calibrated error; observed: share of disagreements with its interval."""

    pairs: int
    disagreements: int
    promised: float
    observed: Interval

    @property
    def drifted(self) -> bool:
        """Whether the promise lies below what was observed."""
        return self.pairs >= LEAST and self.promised < self.observed.low

    @property
    def scale(self) -> float:
        """What to multiply the largest error allowed with: promised over observed while it drifts, else 1."""
        return self.promised / self.observed.estimate if self.drifted else 1.0

    def report(self) -> dict[str, Any]:
        """For reports; None where nothing was audited yet."""
        known = self.pairs > 0
        return {
            "audited": self.pairs,
            "audit_agreement": 1.0 - self.observed.estimate if known else None,
            "error_promised": self.promised if known else None,
            "error_observed": [self.observed.low, self.observed.high] if known else None,
            "drift": self.drifted,
        }


class Watch:
    """The last `window` audited pairs, each once: judging a pair again replaces what was seen of it."""

    def __init__(self, window: int) -> None:
        self._window = window
        self._pairs: OrderedDict[str, tuple[float, bool]] = OrderedDict()
        self._alarm = False

    def add(self, key: str, promised: float, wrong: bool) -> None:
        """One audited pair: the error that was promised for it, and whether the large judge disagreed."""
        self._pairs.pop(key, None)
        self._pairs[key] = (promised, wrong)
        while len(self._pairs) > self._window:
            self._pairs.popitem(last=False)
        telemetry.CASCADE_AUDITS.inc()
        telemetry.CASCADE_DISAGREEMENTS.inc(wrong)
        self._say(self.audit())

    def _say(self, audit: Audit) -> None:
        if audit.drifted and not self._alarm:
            log.warning(
                "cascade: the small judge errs in %.3f of %d audited pairs (at least %.3f), %.3f was promised: fewer "
                "of its answers count until that is better; fit its map again on fresh pairs",
                audit.observed.estimate, audit.pairs, audit.observed.low, audit.promised,
            )  # fmt: skip
        elif self._alarm and not audit.drifted:
            log.warning("cascade: the small judge keeps its promise again over %d audited pairs", audit.pairs)
        self._alarm = audit.drifted
        telemetry.CASCADE_DRIFT.set(audit.drifted)

    def audit(self) -> Audit:
        """What the window shows now."""
        n = len(self._pairs)
        wrong = sum(wrong for _, wrong in self._pairs.values())
        promised = sum(promised for promised, _ in self._pairs.values()) / n if n else 0.0
        return Audit(n, wrong, promised, clopper_pearson(wrong, n))

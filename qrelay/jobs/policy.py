"""The policy of training: a pure function of counters and times.

The rules; the first one that is reached names the trigger:

    min_new_hard_examples   hard positives and hard negatives since the last trigger
    min_judged              judged pairs since then
    disagreement_rate       share of those that exactly one of BM25 and dense has in its top, of enough pairs
    max_age                 time since then (before the first trigger: since the collection's first query), and
                            at least one new hard example

A reached rule waits while a trigger is pending, while `max_running` jobs run, and in quiet hours: what was counted
stays counted, and the next evaluation after that decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from qrelay.labels.ledger.outbox_rows import TrainingStatus
from qrelay.labels.ledger.times import moment
from qrelay.settings.training import TrainingSettings

MANUAL: Final = "manual"
RULES: Final = ("min_new_hard_examples", "min_judged", "disagreement_rate", "max_age")


@dataclass(frozen=True, slots=True)
class Progress:
    """How near one rule is: `have` of `needed`, in the rule's own unit (examples, pairs, a share, seconds), and
    `lacks` in words what is missing; empty: the rule is reached."""

    rule: str
    have: float
    needed: float
    lacks: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the policy says now. `rule` fired, or it is empty and `waits` says why none did."""

    rule: str
    waits: str
    progress: tuple[Progress, ...]

    @property
    def numbers(self) -> dict[str, Any]:
        """rule -> what there was of what was needed, for the trigger's record."""
        return {each.rule: {"have": each.have, "needed": each.needed} for each in self.progress}


def decide(standing: TrainingStatus, settings: TrainingSettings, now_us: int) -> Decision:
    """Whether to train now, for one collection. `now_us`: microseconds since 1970 UTC."""
    progress = tuple(_progress(standing, settings, now_us))
    reached = next((each.rule for each in progress if not each.lacks), "")
    if not reached:
        return Decision("", "no rule is reached", progress)
    hindrance = _hindrance(standing, settings, now_us)
    return Decision("" if hindrance else reached, hindrance, progress)


def _hindrance(standing: TrainingStatus, settings: TrainingSettings, now_us: int) -> str:
    """Why a trigger may not be now; empty: it may."""
    if standing.pending:
        return "a trigger is pending"
    if standing.running >= settings.max_running:
        return f"{standing.running} job(s) run, of at most {settings.max_running}"
    ends = settings.quiet.ends_after(moment(now_us)) if settings.quiet else None
    return f"quiet hours until {ends.isoformat(timespec='minutes')}" if ends else ""


def _progress(standing: TrainingStatus, settings: TrainingSettings, now_us: int) -> list[Progress]:
    """One entry a rule that is set, in the order of RULES."""
    new, found = standing.new, []
    if (needed := settings.min_new_hard_examples) is not None:
        found.append(_count("min_new_hard_examples", new.hard_examples, needed, "hard examples"))
    if (needed := settings.min_judged) is not None:
        found.append(_count("min_judged", new.judged, needed, "judged pairs"))
    if settings.disagreement_rate is not None:
        found.append(_disagreement(standing, settings.disagreement_rate, settings.disagreement_min_judged))
    if settings.max_age_s is not None:
        found.append(_age(standing, settings.max_age_s, now_us))
    return found


def _count(rule: str, have: int, needed: int, unit: str) -> Progress:
    return Progress(rule, have, needed, "" if have >= needed else f"{needed - have} more {unit}")


def _disagreement(standing: TrainingStatus, needed: float, min_judged: int) -> Progress:
    new = standing.new
    rate = new.disagreements / new.judged if new.judged else 0.0
    lacks = "" if rate >= needed else f"a share of {needed:g}, it is {rate:.3f}"
    if new.judged < min_judged:
        lacks = f"{min_judged - new.judged} more judged pairs to measure the share"
    return Progress("disagreement_rate", rate, needed, lacks)


def _age(standing: TrainingStatus, needed: float, now_us: int) -> Progress:
    since_us = now_us if standing.since_us is None else standing.since_us
    age = (now_us - since_us) / 1e6
    lacks = "" if age >= needed else f"{needed - age:.0f} s more"
    if not standing.new.hard_examples:
        lacks = "a new hard example"
    return Progress("max_age", age, needed, lacks)

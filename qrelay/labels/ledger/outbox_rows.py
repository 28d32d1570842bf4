"""The records of training's outbox: counters, triggers, runs, and where a collection stands. See `outbox.py`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Self

import orjson

PENDING: Final = "pending"
LAUNCHED: Final = "launched"
REFUSED: Final = "refused"
RUNNING: Final = "running"
SUCCEEDED: Final = "succeeded"
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class Counters:
    """What the policy counts: see `qrelay/jobs/counting.py`."""

    hard_examples: int = 0
    disagreements: int = 0
    judged: int = 0

    def __add__(self, other: Counters) -> Counters:
        return Counters(
            self.hard_examples + other.hard_examples,
            self.disagreements + other.disagreements,
            self.judged + other.judged,
        )

    def __sub__(self, other: Counters) -> Counters:
        return self + Counters(-other.hard_examples, -other.disagreements, -other.judged)


@dataclass(frozen=True, slots=True)
class Trigger:
    """A row of `triggers`. `detail`: the numbers behind the rule, and in `place` where its job is started, once a
    dispatcher has claimed it. Times are microseconds since 1970 UTC."""

    trigger_no: int
    collection: str
    change_no: int
    rule: str
    detail: dict[str, Any]
    counters: Counters
    job_name: str
    state: str
    decided_us: int
    closed_us: int | None
    attempts: int
    error: str

    @classmethod
    def of(cls, row: Any) -> Self:
        """From a row of the table."""
        counters = Counters(row.hard_examples, row.disagreements, row.judged)
        return cls(row.trigger_no, row.collection, row.change_no, row.rule, orjson.loads(row.detail), counters,
                   row.job_name, row.state, row.decided_us, row.closed_us, row.attempts, row.error)  # fmt: skip

    @property
    def facts(self) -> dict[str, Any]:
        """Which trigger it is, for logs and reports."""
        named = {"trigger": self.trigger_no, "collection": self.collection, "change_no": self.change_no}
        return {**named, "rule": self.rule, "job": self.job_name}


@dataclass(frozen=True, slots=True)
class Run:
    """A row of `training_runs`, with its collection. `detail`: `place`, where it runs; once it has ended, the
    `reason` and the `log`'s last lines."""

    job_name: str
    trigger_no: int
    collection: str
    launcher: str
    state: str
    started_us: int
    finished_us: int | None
    exit_code: int | None
    detail: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, row: Any) -> Self:
        """From a row of the table and its trigger's collection."""
        return cls(row.job_name, row.trigger_no, row.collection, row.launcher, row.state, row.started_us,
                   row.finished_us, row.exit_code, orjson.loads(row.detail))  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingStatus:
    """Where a collection stands for the policy. `since_us`: the last trigger's time, before the first one that of
    the collection's first query, None where it has neither. `running`: its jobs that run."""

    collection: str
    change_no: int
    total: Counters
    at_last: Counters
    since_us: int | None
    pending: bool
    running: int

    @property
    def new(self) -> Counters:
        """Since the last trigger."""
        return self.total - self.at_last

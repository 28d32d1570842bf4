"""A launcher for tests: jobs are entries of a dict, and the test ends them."""

from __future__ import annotations

from dataclasses import dataclass, field

from qrelay.errors import QrelayError
from qrelay.jobs.launcher import JobStatus, Launched, TrainingJob
from qrelay.labels.ledger.outbox_rows import RUNNING


@dataclass
class MemoryLauncher:
    """Keeps the contract of `Launcher` within one process. `errors`: raised by the next launches, the first first."""

    place: str = "memory"
    name: str = "memory"
    jobs: dict[str, TrainingJob] = field(default_factory=dict)
    states: dict[str, JobStatus] = field(default_factory=dict)
    errors: list[QrelayError] = field(default_factory=list)

    def launch(self, job: TrainingJob) -> Launched:
        """See `Launcher`."""
        if self.errors:
            raise self.errors.pop(0)
        if job.name in self.jobs:
            return Launched.ALREADY_THERE
        self.jobs[job.name], self.states[job.name] = job, JobStatus(RUNNING)
        return Launched.STARTED

    def status(self, name: str) -> JobStatus | None:
        """See `Launcher`."""
        return self.states.get(name)

    def tail(self, name: str, lines: int = 20) -> list[str]:
        """See `Launcher`."""
        return [f"log of {name}"][:lines] if name in self.jobs else []

    def close(self) -> None:
        """See `Launcher`: there is nothing to let go of."""

    def end(self, name: str, status: JobStatus) -> None:
        """The job ends so."""
        self.states[name] = status

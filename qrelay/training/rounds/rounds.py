"""The loop. A round: feed the queries with its number and wait, run the job, wait until the promoted versions serve.

Labels accumulate in the ledger, so each round's job learns from all rounds so far; the sink's limits
(`round_examples`, `round_negatives`) cap what one takes. A round in which the gate lets nothing through is the last
one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from qrelay.errors import BackendUnavailable, InternalError, SetupError
from qrelay.exitcodes import EXIT_NOT_ENOUGH, EXIT_SETUP
from qrelay.labels.permission import NOTHING, Allowed
from qrelay.training.job.job import Job
from qrelay.training.job.result import PROMOTED, read_result
from qrelay.training.job.run import RESULT
from qrelay.training.rounds.installation import Installation
from qrelay.training.rounds.state import Round, Series, StateFile
from qrelay.training.settings import TrainerSettings

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Rounds:
    """Rounds of one collection on one installation."""

    installation: Installation
    collection: str
    queries: Path
    settings: TrainerSettings
    say: Say = lambda _: None
    allowed: Allowed = NOTHING
    """Which labels may train beside those of qualified judges."""

    @property
    def file(self) -> StateFile:
        """Where the state is kept."""
        return StateFile(self.installation.data_dir, self.collection)

    def run(self, n: int) -> Series:
        """Goes on until `n` rounds are done, or one passes the gate for no slot; what is done already is not done
        again.

        Raises:
            BackendUnavailable: a step failed; the text says which, and running again resumes there.
            BackendTimeout: a service does not serve what was promoted.
        """
        series = self.file.read()
        while series.done < n and not series.stopped:
            self._round(series, series.current())
        return series

    def job(self, name: str, rule: str = "") -> Job:
        """A training job of these rounds."""
        return Job(
            name, self.collection, self.installation.data_dir, rule=rule, unmeasured=self.allowed.unmeasured,
            unqualified=self.allowed.unqualified,
        )  # fmt: skip

    def _round(self, series: Series, at: Round) -> None:
        if not at.fed:
            self.say(f"round {at.number}: feeding {self.queries}, and waiting for its judgments")
            fed = self.installation.feed(self.queries, self.collection, at.number)
            at.fed, at.committed, at.dead = True, fed.committed, fed.dead
            self.file.write(series)
        if not at.slots:
            self._job(series, at)
            self.file.write(series)
        for each in at.slots:
            if each.outcome == PROMOTED:
                self.say(f"round {at.number}: waiting until {each.version} serves")
                self.installation.await_served(each.slot, self.collection, each.version, self.settings.swap_timeout_s)
        at.done = True
        if not at.passed:
            outcomes = ", ".join(f"{each.slot} {each.outcome}" for each in at.slots)
            series.stopped = f"round {at.number} passed the gate for no slot ({outcomes})"
        self.file.write(series)

    def _job(self, series: Series, at: Round) -> None:
        """Trains, gates and promotes, in a process of its own."""
        at.job = f"rounds-{self.collection}-{series.name}-{at.number}"
        job = self.job(at.job, rule=f"round {at.number}")
        self.file.write(series)
        self.say(f"round {at.number}: training job {at.job}")
        code = self.installation.job(job.write())
        if code not in (0, EXIT_NOT_ENOUGH):
            text = f"the job of round {at.number} ended with {code}; its output above says why; run again to go on"
            raise SetupError(text) if code == EXIT_SETUP else BackendUnavailable(text)
        result = read_result(job.folder / RESULT)
        if result is None:
            raise InternalError(f"job {at.job} ended without an error and left no result")
        at.slots = list(result.slots)

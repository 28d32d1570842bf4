"""Reads the outbox: launches pending triggers as jobs, and records how the jobs end.

One step: apply the time rules (`Decisions.on_timer`), launch what is pending, check what runs. Any number of sinks
may take steps at once. A trigger is first claimed for this launcher's place. Then the job is launched, which happens
once however often it is asked. Then that is recorded. So if a sink dies anywhere in between, the next step of any
sink of that place continues with the trigger. A launch that fails is tried again, later each time; so is one whose
labels may not train (`permission.py`), which waits, and says so, until they may or somebody abandons it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from qrelay.errors import InputError, NotQualified, QrelayError
from qrelay.jobs.decisions import Decisions
from qrelay.jobs.kubernetes_launcher import kubernetes_launcher
from qrelay.jobs.launcher import JobStatus, Launched, Launcher, TrainingJob
from qrelay.jobs.permission import allowed_of, require_permission
from qrelay.jobs.subprocess_launcher import SubprocessLauncher
from qrelay.labels.ledger import outbox
from qrelay.labels.ledger.database import resolve_url
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.outbox import FAILED, RUNNING, Run, Trigger
from qrelay.labels.permission import Allowed
from qrelay.labels.settings import SinkSettings
from qrelay.runtime import faults, telemetry

log = logging.getLogger(__name__)

LAUNCHERS: Final[dict[str, Callable[[SinkSettings], Launcher]]] = {
    "subprocess": lambda settings: SubprocessLauncher(settings.data_dir),
    "kubernetes": kubernetes_launcher,
}
_RETRY_MAX_S: Final = 600.0
_GONE: Final = JobStatus(
    FAILED,
    None,
    "its launcher does not know it any more: its folder or its Job was removed (by hand, or a Job by its ttl after "
    "it ended) before a sink had read how it ended; it may have succeeded",
)


class Dispatcher:
    """Launches and follows the jobs of one ledger. `clock`: seconds, for the pauses between attempts."""

    def __init__(
        self,
        ledger: Ledger,
        settings: SinkSettings,
        launcher: Launcher | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._decisions = Decisions(settings.training, settings.rules)
        self._launcher = launcher or LAUNCHERS[settings.training.launcher](settings)
        self._clock = clock
        self._not_before: dict[int, float] = {}

    @property
    def launcher(self) -> Launcher:
        """What starts the jobs; `run` closes it."""
        return self._launcher

    async def run(self, stopping: asyncio.Event) -> None:
        """A step every `poll_s` seconds until `stopping`; then closes the launcher. What fails is logged and tried
        again at the next step."""
        try:
            while not stopping.is_set():
                try:
                    await asyncio.to_thread(self.step)
                except QrelayError as error:
                    log.warning("cannot dispatch training", extra={"error": str(error)})
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(stopping.wait(), self._settings.training.poll_s)
        finally:
            await asyncio.to_thread(self._launcher.close)

    def step(self) -> None:
        """Everything that is due now.

        Raises:
            BackendUnavailable: the ledger or the launcher's place cannot be used now.
        """
        self._decisions.on_timer(self._ledger)
        place = self._launcher.place
        with self._ledger.snapshot() as snapshot:
            pending = outbox.pending_triggers(snapshot.connection)
            running = outbox.runs(snapshot.connection, states=(RUNNING,))
        self._not_before = {each.trigger_no: self._not_before.get(each.trigger_no, 0.0) for each in pending}
        for trigger in pending:
            self._dispatch(trigger, place)
        for run in running:
            self._follow(run, place)

    def _dispatch(self, trigger: Trigger, place: str) -> None:
        """Launches the trigger's job if it is ours and its pause is over."""
        if not self._settings.training.command or self._clock() < self._not_before[trigger.trigger_no]:
            return
        if trigger.detail.get("place", place) != place:
            return
        with self._ledger.writing("claim a trigger") as connection:
            ours = outbox.claim(connection, trigger.trigger_no, place)
        if not ours:
            return
        faults.point("sink.trigger.decided")
        try:
            self._require_permission(trigger)
            launched = self._launcher.launch(self._job(trigger))
        except QrelayError as error:
            self._failed(trigger, error)
            return
        faults.point("sink.launch.after")
        self._launched(trigger, launched, place)

    def _require_permission(self, trigger: Trigger) -> None:
        """Raises NotQualified where the labels may not train, and the job has not begun either (before a sink could
        record it)."""
        try:
            require_permission(self._ledger, trigger.collection, self._settings, _allowed(trigger))
        except NotQualified:
            if self._launcher.status(trigger.job_name) is None:
                raise

    def _launched(self, trigger: Trigger, launched: Launched, place: str) -> None:
        with self._ledger.writing("record a launch") as connection:
            now_us = self._ledger.now_us()
            new = outbox.record_launch(connection, trigger, self._launcher.name, place, now_us)
        if not new:
            return  # another sink recorded it
        telemetry.TRAINING_TRIGGERS.labels(trigger.rule).inc()
        telemetry.TRAINING_RUNS.labels(RUNNING).inc()
        log.info("training launched", extra={**trigger.facts, "found": launched.value})

    def _failed(self, trigger: Trigger, error: QrelayError) -> None:
        """Records the error; the trigger is refused where its job never can start, and else tried again."""
        final = isinstance(error, InputError) and not isinstance(error, NotQualified)
        with self._ledger.writing("record a failed launch") as connection:
            outbox.record_failure(connection, trigger.trigger_no, str(error))
            if final:
                outbox.refuse(connection, trigger.trigger_no, str(error), self._ledger.now_us())
        pause_s = min(2.0 ** min(trigger.attempts, 30), _RETRY_MAX_S)
        self._not_before[trigger.trigger_no] = self._clock() + pause_s
        telemetry.TRAINING_LAUNCH_ERRORS.labels("refused" if final else "retried").inc()
        log.warning("cannot launch training", extra={**trigger.facts, "error": str(error), "refused": final})

    def _follow(self, run: Run, place: str) -> None:
        """Records how the job ended, if it is one of ours and has."""
        if run.detail.get("place") != place:
            return
        try:
            status = self._launcher.status(run.job_name) or _GONE
            lines = self._launcher.tail(run.job_name) if status.state != RUNNING else []
        except QrelayError as error:
            log.warning("cannot follow a training", extra={"job": run.job_name, "error": str(error)})
            return
        if status.state != RUNNING:
            self._finished(run, status, lines)

    def _finished(self, run: Run, status: JobStatus, lines: list[str]) -> None:
        with self._ledger.writing("record a training run") as connection:
            finished_us = status.finished_us or self._ledger.now_us()
            detail = {**run.detail, "reason": status.reason, "log": lines}
            new = outbox.finish_run(connection, run.job_name, status.state, status.exit_code, finished_us, detail)
        if new:
            telemetry.TRAINING_RUNS.labels(status.state).inc()
            about = {"job": run.job_name, "collection": run.collection, "state": status.state}
            log.info("training ended", extra={**about, "exit_code": status.exit_code, "reason": status.reason})

    def _job(self, trigger: Trigger) -> TrainingJob:
        ledger, secret_ledger = addresses(self._settings.ledger_url)
        return TrainingJob(
            name=trigger.job_name,
            collection=trigger.collection,
            change_no=trigger.change_no,
            rule=trigger.rule,
            ledger=ledger,
            data_dir=Path(self._settings.data_dir).absolute(),
            command=self._settings.training.command,
            secret_ledger=secret_ledger,
            allowed=_allowed(trigger) | allowed_of(self._settings),
        )


def addresses(ledger_url: str) -> tuple[str, str]:
    """(without a password, whole) the ledger's URL for use from any folder; a SQLite file's is its path."""
    url = resolve_url(ledger_url)
    if url.get_backend_name() == "sqlite":
        path = str(Path(str(url.database)).absolute())
        return path, path
    whole = url.set(drivername=url.get_backend_name())
    bare = whole.difference_update_query(["password"])
    public = sa.URL.create(bare.drivername, bare.username, None, bare.host, bare.port, bare.database, bare.query)
    return public.render_as_string(), whole.render_as_string(hide_password=False)


def _allowed(trigger: Trigger) -> Allowed:
    """What was allowed with the trigger itself."""
    return Allowed(bool(trigger.detail.get("unmeasured")), bool(trigger.detail.get("unqualified")))

"""Exactly one job a trigger: processes killed at the named points, many dispatchers, failing launchers."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client import REGISTRY

from qrelay.errors import BackendUnavailable, InputError
from qrelay.jobs.decisions import trigger_manually
from qrelay.jobs.dispatcher import Dispatcher
from qrelay.jobs.launcher import JobStatus
from qrelay.jobs.subprocess_launcher import SubprocessLauncher
from qrelay.labels.ledger import outbox
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.outbox import Run, Trigger
from qrelay.labels.settings import SinkSettings
from qrelay.runtime import faults
from qrelay.settings.training import TrainingSettings
from tests.conftest import eventually
from tests.jobs.memory_launcher import MemoryLauncher
from tests.jobs.training_process import made_settings
from tests.labels.builders import graded, judged_set
from tests.labels.test_qualification import report_file

ROOT = Path(__file__).resolve().parents[2]
HARD = [graded(3), graded(0)]


class Paused:
    """A clock in seconds that is set by hand."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def start(ledger_url: str, folder: Path, *query_ids: str, data_dir: Path | None = None) -> subprocess.Popen[bytes]:
    """A process that commits and dispatches; it dies at the points that are armed in folder/faults."""
    (folder / "faults").mkdir(exist_ok=True)
    arguments = [ledger_url, str(data_dir or folder), str(folder / "jobs"), *query_ids]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.training_process", *arguments],
        cwd=ROOT,
        env={**os.environ, faults.VARIABLE: str(folder / "faults")},
    )


def ran(folder: Path) -> list[str]:
    """The names of the jobs that were executed, one an execution."""
    file = folder / "jobs"
    return sorted(file.read_text().split()) if file.exists() else []


def outcome(ledger: Ledger) -> tuple[list[Trigger], list[Run]]:
    with ledger.snapshot() as snapshot:
        return outbox.triggers(snapshot.connection), outbox.runs(snapshot.connection)


def assert_one_job_a_trigger(ledger: Ledger, folder: Path, count: int) -> None:
    triggers, runs = outcome(ledger)
    assert [each.state for each in triggers] == ["launched"] * count
    assert [each.state for each in runs] == ["succeeded"] * count
    assert ran(folder) == sorted(each.job_name for each in triggers) == sorted(each.job_name for each in runs)
    assert all(each.detail["log"] == ["trained"] and each.exit_code == 0 for each in runs)


def test_killed_at_each_point_in_turn_every_trigger_starts_exactly_one_job(
    ledger: Ledger, ledger_url: str, tmp_path: Path
) -> None:
    points = ["sink.trigger.decided", "sink.launch.after"] * 2
    for number, point in enumerate(points):
        (tmp_path / "faults").mkdir(exist_ok=True)
        (tmp_path / "faults" / point).write_text("1")
        process = start(ledger_url, tmp_path, f"q{number}")
        assert process.wait() == -signal.SIGKILL, point
        triggers, _ = outcome(ledger)
        assert triggers[0].state == "pending", "on disk, and the ledger does not know of its job"
    assert start(ledger_url, tmp_path, "q9").wait() == 0
    assert_one_job_a_trigger(ledger, tmp_path, len(outcome(ledger)[0]))
    assert len(ran(tmp_path)) >= 2


def test_two_dispatchers_at_once_start_each_job_once(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    processes = [start(ledger_url, tmp_path, *(f"q{n}{m}" for m in range(4))) for n in range(2)]
    assert [process.wait() for process in processes] == [0, 0]
    triggers, _ = outcome(ledger)
    assert_one_job_a_trigger(ledger, tmp_path, len(triggers))
    assert triggers[0].counters.hard_examples >= 4


def test_dispatchers_of_two_places_do_not_both_start_a_job(ledger: Ledger, ledger_url: str, tmp_path: Path) -> None:
    ledger.commit([judged_set("q1", outcomes=HARD)])
    trigger_manually(ledger, "docs", TrainingSettings(command=("true",)))
    homes = [tmp_path / "a", tmp_path / "b"]
    processes = [start(ledger_url, tmp_path, data_dir=home) for home in homes]
    assert [process.wait() for process in processes] == [0, 0]
    assert len(ran(tmp_path)) == 1
    assert_one_job_a_trigger(ledger, tmp_path, 1)
    assert sum((home / "training" / ran(tmp_path)[0]).exists() for home in homes) == 1


def manual(ledger: Ledger, tmp_path: Path, **fields: Any) -> tuple[SinkSettings, Trigger]:
    """Settings with a command and without a policy, and a pending trigger."""
    settings = SinkSettings(
        data_dir=tmp_path, training=TrainingSettings(**{"command": ("train", "{name}"), "unmeasured": True, **fields})
    )
    ledger.commit([judged_set("q1", outcomes=HARD)])
    return settings, trigger_manually(ledger, "docs", settings.training)


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_a_job_is_launched_with_what_the_trigger_says_and_followed_to_its_end(ledger: Ledger, tmp_path: Path) -> None:
    settings, trigger = manual(ledger, tmp_path)
    launcher = MemoryLauncher()
    dispatcher = Dispatcher(ledger, settings, launcher)
    fired, failed = (
        value("qrelay_training_triggers_total", rule="manual"),
        value("qrelay_training_runs_total", state="failed"),
    )
    dispatcher.step()
    dispatcher.step()
    job = launcher.jobs[trigger.job_name]
    assert (job.collection, job.change_no, job.rule, job.command) == ("docs", 1, "manual", ("train", "{name}"))
    assert job.ledger == str(tmp_path / "ledger.sqlite") and job.data_dir == tmp_path
    (run,) = outcome(ledger)[1]
    assert (run.state, run.launcher, run.finished_us) == ("running", "memory", None)
    launcher.end(trigger.job_name, JobStatus("failed", 3, "exit code 3", finished_us=99))
    dispatcher.step()
    dispatcher.step()
    (run,) = outcome(ledger)[1]
    assert (run.state, run.exit_code, run.finished_us) == ("failed", 3, 99)
    assert run.detail == {"place": "memory", "reason": "exit code 3", "log": [f"log of {trigger.job_name}"]}
    assert value("qrelay_training_triggers_total", rule="manual") == fired + 1
    assert value("qrelay_training_runs_total", state="failed") == failed + 1


def test_a_launcher_that_fails_is_asked_again_later_each_time_and_its_error_is_recorded(
    ledger: Ledger, tmp_path: Path
) -> None:
    settings, _ = manual(ledger, tmp_path)
    launcher = MemoryLauncher(errors=[BackendUnavailable(f"no room {n}") for n in range(3)])
    clock = Paused()
    dispatcher = Dispatcher(ledger, settings, launcher, clock)
    for attempts, pause in ((1, 1), (2, 2), (3, 4)):
        dispatcher.step()
        dispatcher.step()
        found = outcome(ledger)[0][0]
        assert (found.state, found.attempts, found.error) == ("pending", attempts, f"no room {attempts - 1}")
        clock.now += pause - 0.5
        dispatcher.step()
        assert outcome(ledger)[0][0].attempts == attempts, "not yet"
        clock.now += 0.5
    dispatcher.step()
    found = outcome(ledger)[0][0]
    assert (found.state, found.attempts, found.error) == ("launched", 3, "")


def test_a_trigger_whose_job_never_can_start_is_refused_with_the_reason(ledger: Ledger, tmp_path: Path) -> None:
    settings, _ = manual(ledger, tmp_path)
    Dispatcher(ledger, settings, MemoryLauncher(errors=[InputError("the folder of another job")])).step()
    (found,), runs = outcome(ledger)
    assert (found.state, found.error, found.attempts, runs) == ("refused", "the folder of another job", 1, [])


def test_a_trigger_whose_labels_may_not_train_waits_says_why_and_goes_ahead_once_they_may(
    ledger: Ledger, tmp_path: Path
) -> None:
    settings, trigger = manual(ledger, tmp_path, unmeasured=False)
    launcher, clock = MemoryLauncher(), Paused()
    dispatcher = Dispatcher(ledger, settings, launcher, clock)
    for attempts in (1, 2):
        dispatcher.step()
        dispatcher.step()
        waiting = outcome(ledger)[0][0]
        assert (waiting.state, waiting.attempts, launcher.jobs) == ("pending", attempts, {})
        assert "measured by nobody" in waiting.error
        clock.now += 600
    measured = settings.model_copy(update={"qualification": str(report_file(tmp_path))})
    Dispatcher(ledger, measured, launcher).step()
    assert list(launcher.jobs) == [trigger.job_name]
    assert outcome(ledger)[0][0].error == ""


def test_a_job_that_began_before_its_sink_died_is_recorded_whatever_is_known_of_its_labels_now(
    ledger: Ledger, tmp_path: Path
) -> None:
    settings, trigger = manual(ledger, tmp_path, unmeasured=False)
    launcher = MemoryLauncher(states={trigger.job_name: JobStatus("running")})
    launcher.jobs[trigger.job_name] = Dispatcher(ledger, settings, launcher)._job(trigger)
    Dispatcher(ledger, settings, launcher).step()
    assert [each.state for each in outcome(ledger)[0]] == ["launched"]


def test_a_run_is_followed_by_the_launchers_of_its_place_alone(ledger: Ledger, tmp_path: Path) -> None:
    settings, trigger = manual(ledger, tmp_path)
    here, there = MemoryLauncher("here"), MemoryLauncher("there")
    Dispatcher(ledger, settings, here).step()
    Dispatcher(ledger, settings, there).step()
    assert outcome(ledger)[1][0].state == "running" and not there.jobs, "elsewhere it is unknown, and not lost"
    here.states.clear()
    Dispatcher(ledger, settings, here).step()
    (run,) = outcome(ledger)[1]
    assert run.state == "failed" and "does not know it any more" in run.detail["reason"]
    assert list(here.jobs) == [trigger.job_name], "what was launched is never launched again"


def test_a_trigger_that_one_place_tried_to_launch_is_not_launched_in_another(ledger: Ledger, tmp_path: Path) -> None:
    settings, _ = manual(ledger, tmp_path)
    here, there = MemoryLauncher("here", errors=[BackendUnavailable("who knows")]), MemoryLauncher("there")
    Dispatcher(ledger, settings, here).step()
    Dispatcher(ledger, settings, there).step()
    assert outcome(ledger)[0][0].state == "pending" and not there.jobs, "its job may have begun here"
    Dispatcher(ledger, settings, here).step()
    assert outcome(ledger)[0][0].state == "launched" and len(here.jobs) == 1


def test_without_a_command_a_trigger_waits_for_one(ledger: Ledger, tmp_path: Path) -> None:
    manual(ledger, tmp_path)
    launcher = MemoryLauncher()
    Dispatcher(ledger, SinkSettings(data_dir=tmp_path), launcher).step()
    assert outcome(ledger)[0][0].state == "pending" and not launcher.jobs


async def test_the_loop_goes_on_after_errors_until_it_is_told_to_stop(ledger: Ledger, tmp_path: Path) -> None:
    settings, _ = manual(ledger, tmp_path, poll_s=0.01)

    class Shy(MemoryLauncher):
        """Its place cannot be read the first two times."""

        asked = 0

        @property  # type: ignore[override]
        def place(self) -> str:
            self.asked += 1
            if self.asked <= 2:
                raise BackendUnavailable("the folder is away")
            return "memory"

        @place.setter
        def place(self, value: str) -> None:
            pass

    launcher, stopping = Shy(), asyncio.Event()
    loop = asyncio.create_task(Dispatcher(ledger, settings, launcher).run(stopping))
    await eventually(lambda: launcher.jobs)
    stopping.set()
    await loop


async def test_the_service_runs_the_job_of_a_commit_without_a_queue(tmp_path: Path) -> None:
    settings = made_settings("", tmp_path, tmp_path / "jobs")
    config = tmp_path / "qrelay.yaml"
    policy = {**settings.training.model_dump(mode="json"), "poll_s": 0.05}
    config.write_text(
        json.dumps({"sink": {"data_dir": str(tmp_path), "worker": {"enabled": False}, "training": policy}})
    )
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    ledger.commit([judged_set("q1", outcomes=HARD)])
    trigger_manually(ledger, "docs", settings.training)
    service = subprocess.Popen(
        [sys.executable, "-m", "qrelay.services.sink"], cwd=ROOT, env={**os.environ, "QRELAY_CONFIG": str(config)},
        stderr=subprocess.PIPE,
    )  # fmt: skip
    await eventually(lambda: [each.state for each in outcome(ledger)[1]] == ["succeeded"])
    service.send_signal(signal.SIGTERM)
    _, logged = await asyncio.to_thread(service.communicate)
    assert service.returncode == 0, logged.decode()
    assert [json.loads(line)["message"] for line in logged.splitlines()].count("training launched") == 1
    assert_one_job_a_trigger(ledger, tmp_path, 1)
    ledger.close()


def places(folders: Sequence[Path]) -> set[str]:
    return {SubprocessLauncher(folder).place for folder in folders}


def test_a_place_is_its_folder_and_stays(tmp_path: Path) -> None:
    assert len(places([tmp_path / "a", tmp_path / "a"])) == 1
    assert len(places([tmp_path / "a", tmp_path / "b"])) == 2

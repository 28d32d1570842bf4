"""One start a job: real runners and commands, killed wherever it hurts."""

from __future__ import annotations

import json
import os
import random
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import BackendTimeout, BackendUnavailable, InputError
from qrelay.jobs.dispatcher import addresses
from qrelay.jobs.folder import JobFolder
from qrelay.jobs.kubernetes_launcher import KubernetesLauncher
from qrelay.jobs.launcher import JobStatus, Launched, Launcher, TrainingJob, job_name
from qrelay.jobs.subprocess_launcher import SubprocessLauncher
from qrelay.settings.kubernetes import KubernetesSettings
from tests.jobs.kubernetes_api import ApiServer, serving
from tests.jobs.memory_launcher import MemoryLauncher

APPEND = ("sh", "-c", 'echo "$0" >> "$1"', "{name}")


def job(folder: Path, *command: str, name: str = "train-docs-1", **fields: Any) -> TrainingJob:
    """By default one that appends its name to the file `ran`."""
    words = command or (*APPEND, str(folder / "ran"))
    values = {"change_no": 7, "rule": "manual", "ledger": "postgresql://u@h/db", **fields}
    return TrainingJob(name, "docs", data_dir=folder, command=words, **values)


def ran(folder: Path) -> list[str]:
    """The names that jobs appended, one an execution."""
    file = folder / "ran"
    return file.read_text().split() if file.exists() else []


def until(condition: Callable[[], Any]) -> Any:
    """What the condition gives once it is true."""
    while not (found := condition()):
        time.sleep(0.01)
    return found


def ended(launcher: Launcher, name: str = "train-docs-1") -> JobStatus:
    def status() -> JobStatus | None:
        found = launcher.status(name)
        assert found is not None
        return None if found.state == "running" else found

    found = until(status)
    assert isinstance(found, JobStatus)
    return found


def runner_of(folder: Path, name: str = "train-docs-1") -> int:
    return int(json.loads((folder / "training" / name / "started").read_text())["runner"])


@pytest.fixture
def launcher(tmp_path: Path) -> SubprocessLauncher:
    return SubprocessLauncher(tmp_path)


@pytest.fixture(params=["memory", "subprocess", "kubernetes"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Launcher]:
    """Every launcher; what it needs runs as long as the test does."""
    with ExitStack() as held:
        made: Launcher = MemoryLauncher() if request.param == "memory" else SubprocessLauncher(tmp_path)
        if request.param == "kubernetes":
            kubeconfig = held.enter_context(serving(ApiServer())).kubeconfig(tmp_path)
            made = KubernetesLauncher(KubernetesSettings(image="trainer", kubeconfig=kubeconfig))
        held.callback(made.close)
        yield made


def test_a_launcher_starts_a_name_once_and_knows_it(either: Launcher, tmp_path: Path) -> None:
    assert either.status("train-docs-1") is None and either.tail("train-docs-1") == []
    assert either.launch(job(tmp_path)) is Launched.STARTED
    assert either.launch(job(tmp_path)) is Launched.ALREADY_THERE
    assert either.status("train-docs-1") is not None
    assert either.launch(job(tmp_path, name="train-docs-2")) is Launched.STARTED
    assert either.place == either.place != ""
    either.close()
    assert either.status("train-docs-2") is not None, "what it let go of was no job"


def test_a_job_that_succeeds_says_so_and_keeps_its_log(launcher: SubprocessLauncher, tmp_path: Path) -> None:
    launcher.launch(job(tmp_path, "sh", "-c", "for i in 1 2 3; do echo line $i; done; echo bad >&2"))
    found = ended(launcher)
    assert (found.state, found.exit_code, found.reason) == ("succeeded", 0, "")
    assert found.started_us and found.finished_us and found.started_us <= found.finished_us
    assert launcher.tail("train-docs-1", 2) == ["line 3", "bad"]


@pytest.mark.parametrize(
    ("command", "code", "log"),
    [
        (("sh", "-c", "echo no; exit 3"), 3, "no"),
        (("sh", "-c", "kill -9 $$"), 137, None),
        (("/no/such/program",), 127, "cannot run '/no/such/program': No such file or directory"),
    ],
)
def test_a_job_that_fails_says_how(
    launcher: SubprocessLauncher, tmp_path: Path, command: tuple[str, ...], code: int, log: str | None
) -> None:
    launcher.launch(job(tmp_path, *command))
    assert (ended(launcher).state, ended(launcher).exit_code) == ("failed", code)
    assert launcher.tail("train-docs-1") == ([log] if log else [])


def test_a_job_gets_its_description_and_the_ledger_and_no_password_is_on_disk(
    launcher: SubprocessLauncher, tmp_path: Path
) -> None:
    show = (
        "sh",
        "-c",
        'cat "$QRELAY_JOB"; echo "$QRELAY_SINK__LEDGER $QRELAY_DATA_DIR" | wc -c; echo {ledger} {job}',
    )
    launcher.launch(job(tmp_path, *show, secret_ledger="postgresql://u:hushhush@h/db"))
    assert ended(launcher).state == "succeeded"
    folder = tmp_path / "training" / "train-docs-1"
    *description, length, filled = launcher.tail("train-docs-1", 100)
    found = json.loads("\n".join(description))
    assert {key: found[key] for key in ("name", "collection", "change_no", "rule", "ledger", "data_dir")} == {
        "name": "train-docs-1", "collection": "docs", "change_no": 7, "rule": "manual",
        "ledger": "postgresql://u@h/db", "data_dir": str(tmp_path),
    }  # fmt: skip
    assert int(length) == len(f"postgresql://u:hushhush@h/db {tmp_path}\n")
    assert filled == f"postgresql://u@h/db {folder / 'job.json'}"
    assert all(b"hushhush" not in file.read_bytes() for file in folder.iterdir())
    assert stat.S_ISREG((folder / "lock").stat().st_mode)


def test_the_password_is_in_the_whole_address_alone() -> None:
    assert addresses("postgresql://u:s3cret@h/db?options=-cx%3Dy") == (
        "postgresql://u@h/db?options=-cx%3Dy",
        "postgresql://u:s3cret@h/db?options=-cx%3Dy",
    )
    assert "s3cret" not in addresses("postgresql://h/db?password=s3cret")[0]
    assert addresses("sqlite:///l.sqlite") == (str(Path("l.sqlite").absolute()),) * 2


def test_many_launches_at_once_start_one(tmp_path: Path) -> None:
    launchers = [SubprocessLauncher(tmp_path) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda each: each.launch(job(tmp_path)), launchers))
    assert found.count(Launched.STARTED) == 1
    assert ended(launchers[0]).state == "succeeded"
    assert ran(tmp_path) == ["train-docs-1"]
    assert len({each.place for each in launchers}) == 1


def test_a_job_outlives_the_process_group_that_launched_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tests.jobs.test_launcher import *\n"
        "path = Path(sys.argv[1])\n"
        "wait = 'until [ -e $1/go ]; do sleep 0.05; done; echo $0 >> $1/ran'\n"
        "SubprocessLauncher(path).launch(job(path, 'sh', '-c', wait, '{name}', str(path)))\n"
        "print('launched', flush=True); time.sleep(60)"
    )
    sink = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    assert sink.stdout is not None and sink.stdout.readline() == "launched\n"
    os.killpg(sink.pid, signal.SIGKILL)
    sink.wait()
    sink.stdout.close()
    launcher = SubprocessLauncher(tmp_path)
    found = launcher.status("train-docs-1")
    assert found is not None and (found.state, found.exit_code) == ("running", None)
    (tmp_path / "go").touch()
    assert ended(launcher).state == "succeeded"
    assert launcher.launch(job(tmp_path)) is Launched.ALREADY_THERE
    assert ran(tmp_path) == ["train-docs-1"]


def test_a_runner_that_is_killed_before_it_started_the_job_is_followed_by_another(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "training" / "train-docs-1")
    folder.create(job(tmp_path).document(folder.job))
    runner = subprocess.Popen([sys.executable, "-m", "qrelay.jobs.runner", str(folder.path)])
    runner.kill()
    runner.wait()
    launcher = SubprocessLauncher(tmp_path)
    assert not folder.started.exists() and launcher.status("train-docs-1") is None
    assert launcher.launch(job(tmp_path)) is Launched.STARTED
    assert ended(launcher).state == "succeeded" and ran(tmp_path) == ["train-docs-1"]


def test_a_job_whose_runner_is_killed_after_it_started_fails_and_never_runs_again(
    launcher: SubprocessLauncher, tmp_path: Path
) -> None:
    wait = 'echo "$0" >> "$1/ran"; until [ -e "$1/go" ]; do sleep 0.05; done'
    launcher.launch(job(tmp_path, "sh", "-c", wait, "{name}", str(tmp_path)))
    until(lambda: ran(tmp_path))
    os.kill(runner_of(tmp_path), signal.SIGKILL)
    found = launcher.status("train-docs-1")
    assert found is not None and found.state == "running", "its command still does"
    (tmp_path / "go").touch()
    found = ended(launcher)
    assert (found.state, found.exit_code) == ("failed", None)
    assert "its runner was killed" in found.reason
    assert launcher.launch(job(tmp_path)) is Launched.ALREADY_THERE
    runner = [sys.executable, "-m", "qrelay.jobs.runner", str(tmp_path / "training" / "train-docs-1")]
    assert subprocess.run(runner, check=False).returncode == 0
    assert ran(tmp_path) == ["train-docs-1"]


def test_runners_killed_at_any_moment_execute_a_job_once_at_most(tmp_path: Path) -> None:
    rng = random.Random(20260102)
    before = 0
    for number in range(10):
        name = f"train-docs-{number}"
        this = job(tmp_path, name=name)
        folder = JobFolder(tmp_path / "training" / name)
        folder.create(this.document(folder.job))
        runner = subprocess.Popen([sys.executable, "-m", "qrelay.jobs.runner", str(folder.path)])
        time.sleep(rng.uniform(0, 0.12))
        runner.kill()
        runner.wait()
        started = folder.started.exists()
        launcher = SubprocessLauncher(tmp_path)
        assert launcher.launch(this) is (Launched.ALREADY_THERE if started else Launched.STARTED)
        found = ended(launcher, name)
        assert ran(tmp_path).count(name) == 1 or (started and ran(tmp_path).count(name) == 0)
        if not started:
            before += 1
            assert (found.state, ran(tmp_path).count(name)) == ("succeeded", 1)
    assert before, "none was killed before it started: raise the range of the pause"


def test_the_folder_of_another_job_is_refused(launcher: SubprocessLauncher, tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "training" / "train-docs-1")
    folder.create(job(tmp_path, change_no=8).document(folder.job))
    with pytest.raises(InputError, match="holds another job than train-docs-1"):
        launcher.launch(job(tmp_path))
    assert ran(tmp_path) == []


def test_a_folder_that_cannot_be_made_is_a_reason_to_try_later(tmp_path: Path) -> None:
    (tmp_path / "training").write_text("a file where the folder should be")
    with pytest.raises(BackendUnavailable, match="tried again later"):
        SubprocessLauncher(tmp_path).launch(job(tmp_path))


def test_a_job_that_does_not_begin_in_time_may_be_asked_for_again(tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "training" / "train-docs-1")
    folder.create(job(tmp_path).document(folder.job))
    lock = folder.take()  # as a runner that was stopped before it wrote `started`
    assert lock is not None
    with pytest.raises(BackendTimeout, match="has not begun"):
        SubprocessLauncher(tmp_path, start_timeout_s=0.3).launch(job(tmp_path))
    os.close(lock)
    launcher = SubprocessLauncher(tmp_path)
    launcher.launch(job(tmp_path))  # which of the two runners takes the lock is open
    assert (ended(launcher).state, len(ran(tmp_path))) == ("succeeded", 1)


def test_a_runner_that_cannot_write_is_a_reason_to_try_later(launcher: SubprocessLauncher, tmp_path: Path) -> None:
    folder = JobFolder(tmp_path / "training" / "train-docs-1")
    folder.create(job(tmp_path).document(folder.job))
    (folder.path / "lock").mkdir()
    with pytest.raises(BackendUnavailable, match="ended with 1 before the job began"):
        launcher.launch(job(tmp_path))


def test_job_names_are_of_their_trigger_and_fit_kubernetes() -> None:
    name = job_name("a_b" + "c" * 61, 7, ["train"], 1)
    assert (
        len(name) == 63
        and name.startswith("train-a-bc")
        and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    )
    assert name == job_name("a_b" + "c" * 61, 7, ["train"], 1)
    others = {
        job_name("a", 7, ["t"], 1),
        job_name("a", 8, ["t"], 1),
        job_name("a", 7, ["u"], 1),
        job_name("a", 7, ["t"], 2),
    }
    assert len(others) == 4
    assert "--" not in job_name("a" * 39 + "_" * 20, 7, [], 1)[-18:]

"""`qrelay up` keeps its services running, waits while they get on, and knows when one was meant to end."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from filelock import FileLock
from rich.console import Console

from qrelay.cli.checks import checked_settings
from qrelay.cli.down import LOCK
from qrelay.cli.up import _run, build
from qrelay.config import NatsSettings
from qrelay.errors import BackendTimeout, BackendUnavailable, SetupError
from qrelay.exitcodes import EXIT_SETUP
from qrelay.labels.settings import SinkSettings
from qrelay.rundir import endpoints
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.natsaccounts import User, accounts_of, seed_file, write_accounts
from qrelay.runtime.natsserver import NatsServer
from qrelay.runtime.supervisor import Child, Supervisor, service_environ
from tests.pipeline.harness import DOUBLES, Installation, called, qrelay

SERVICES = {"retriever", "reranker", "judge", "sink"}
HUNG = {"QRELAY_JUDGE__FAKE__LOAD_STEPS": "1", "QRELAY_JUDGE__FAKE__LOAD_STEP_S": "600"}


def ended(tmp_path: Path, code: int) -> tuple[Supervisor, Child, list[str]]:
    """A supervisor with one child that has exited with `code`, and what it says."""
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait()
    log = tmp_path / "judge.log"
    log.write_text("the last words\n")
    child = Child("judge", log, {}, process)
    said: list[str] = []
    return Supervisor([child], None, said.append), child, said


def test_a_service_that_ended_as_it_should_stays_down(tmp_path: Path) -> None:
    supervisor, child, said = ended(tmp_path, 0)
    for _ in range(3):
        supervisor.watch_once()
    assert (child.process, child.restart_at) == (None, 0.0)
    assert len(said) == 1
    assert "stays down" in said[0]


def test_a_service_that_failed_is_started_again(tmp_path: Path) -> None:
    supervisor, child, said = ended(tmp_path, 1)
    supervisor.watch_once()
    assert child.restart_at > 0
    assert "the last words; starting it again" in said[0]


def test_a_service_that_cannot_run_ends_everything_with_its_last_words(tmp_path: Path) -> None:
    supervisor, _, _ = ended(tmp_path, 78)
    with pytest.raises(SetupError, match="judge cannot run: the last words"):
        supervisor.watch_once()


def test_a_service_that_worked_and_cannot_run_any_more_is_named_and_started_again_beside_the_others(
    tmp_path: Path,
) -> None:
    supervisor, child, said = ended(tmp_path, 78)
    child.was_ready = True
    supervisor.watch_once()
    assert child.restart_at > 0
    assert "judge ended with 78: the last words; the other services go on; starting it again" in said[0]


def test_a_service_that_dies_again_and_again_before_it_was_ever_ready_ends_the_wait(tmp_path: Path) -> None:
    supervisor, child, _ = ended(tmp_path, 1)
    child.failures = 2
    with pytest.raises(
        BackendUnavailable,
        match=r"judge died 3 times before it was ever ready; the last time it ended with 1:\nthe last words",
    ):
        supervisor.watch_once()


def test_a_service_that_was_ready_is_started_again_however_often(tmp_path: Path) -> None:
    supervisor, child, _ = ended(tmp_path, 1)
    child.was_ready, child.failures = True, 99
    supervisor.watch_once()
    assert child.restart_at > 0


def test_last_words_are_the_whole_traceback_of_this_run_alone(tmp_path: Path) -> None:
    _, child, _ = ended(tmp_path, 1)
    child.log.write_text("Traceback (most recent call last):\n  of the former run\nValueError: old\n")
    child.log_from = child.log.stat().st_size
    traceback = "Traceback (most recent call last):\n" + "  a line\n" * 20 + "ValueError: new"
    with child.log.open("a") as log:
        log.write('{"message": "preparing"}\na warning of a library\n' + traceback + "\n")
    assert child.last_words() == traceback


def test_last_words_are_an_error_of_several_lines_whole(tmp_path: Path) -> None:
    _, child, _ = ended(tmp_path, 78)
    child.log.write_text("judge: 2 problem(s) in the settings of judge:\n  one\n  two\nread from no file\n")
    assert child.last_words() == "2 problem(s) in the settings of judge:\n  one\n  two\nread from no file"


class WithoutServices(Supervisor):
    """`qrelay up` with no service, whose queues are on a server that answers later than it starts; it ends when
    all is ready, or after as many looks as nothing needs."""

    late: NatsServer
    looks = 0

    def start(self) -> None:
        assert self.nats
        self.nats.start()

    def watch_once(self) -> None:
        self.looks += 1
        if self.looks == 2:
            self.late.start()
        self.stopping |= self.looks > 300


def test_up_declares_the_queues_of_a_server_with_users_however_late_it_answers(tmp_path: Path) -> None:
    accounts = tmp_path / "accounts"
    write_accounts(accounts)
    servers = [NatsServer(tmp_path / name, accounts=accounts) for name in ("own", "late")]
    said = list[str]()
    supervisor = WithoutServices([], servers[0], said.append)
    supervisor.late = servers[1]
    supervisor.late.reserve_port()
    settings = NatsSettings(url=supervisor.late.url, nkey_seed=accounts)

    def say(line: str) -> None:
        said.append(line)
        supervisor.stopping |= line.startswith("all ready")

    supervisor.say = say
    try:
        _run(supervisor, tmp_path, Console(), "", settings)
        assert said[-1].startswith("all ready")
        assert asyncio.run(connects(settings))
    finally:
        for server in servers:
            server.kill()


async def connects(settings: NatsSettings) -> bool:
    """Whether the queues are there: one who may not declare them connects."""
    await (await JetStreamBroker.connect(settings, name="judge")).close()
    return True


def test_a_seed_is_not_rotated_under_a_running_up(tmp_path: Path) -> None:
    environ = {"QRELAY_DATA_DIR": str(tmp_path)}
    assert called("nats", "accounts", environ=environ).returncode == 0
    seed = seed_file(accounts_of(tmp_path), User.JUDGE)
    before = seed.read_text()
    with FileLock(tmp_path / LOCK):
        refused = called("nats", "accounts", "--rotate", "judge", environ=environ)
        assert called("nats", "accounts", environ=environ).returncode == 0, "new users come without a new seed"
        elsewhere = called("nats", "accounts", "--rotate", "judge", "--out", str(tmp_path / "o"), environ=environ)
    assert (refused.returncode, "run `qrelay down`" in refused.stderr, seed.read_text()) == (EXIT_SETUP, True, before)
    assert elsewhere.returncode == 0
    assert called("nats", "accounts", "--rotate", "judge", environ=environ).returncode == 0
    assert seed.read_text() != before


@contextmanager
def loading_judge(tmp_path: Path, **fake: str) -> Iterator[tuple[Supervisor, Child]]:
    """A real judge's process that loads as `fake` says, with no NATS."""
    environ = service_environ({**os.environ, **DOUBLES, **fake}, "judge", tmp_path, "nats://127.0.0.1:9")
    child = Child("judge", tmp_path / "judge.log", environ)
    supervisor = Supervisor([child], None, lambda _: None)
    supervisor.start()
    yield supervisor, child
    supervisor.stop()


def test_a_service_is_waited_for_while_its_steps_advance(tmp_path: Path) -> None:
    """Looks beyond the number that ends a wait for what is still, and no look at a clock."""
    limit, looks, steps = 25, 0, set()
    fake = {"QRELAY_JUDGE__FAKE__LOAD_STEPS": "30", "QRELAY_JUDGE__FAKE__LOAD_STEP_S": "0.3"}
    with loading_judge(tmp_path, **fake) as (supervisor, child):
        while not supervisor.ready:
            supervisor.watch_once()
            supervisor.look(endpoints(tmp_path))
            if child.watch.doing.total:
                looks += 1
                steps.add(child.watch.doing.done)
                supervisor.refuse_stillness(looks=limit)
            time.sleep(0.1)
    assert looks > limit
    assert len(steps) > 5
    assert child.watch.doing.name == "judge: loading the fake"


def test_a_service_that_hangs_is_told_and_not_waited_for(tmp_path: Path) -> None:
    with (
        loading_judge(tmp_path, **HUNG) as (supervisor, child),
        pytest.raises(BackendTimeout, match=r"judge: loading the fake: 0 of 1 steps \(no sign of life for"),
    ):
        while not supervisor.ready:
            supervisor.look(endpoints(tmp_path))
            if child.watch.doing.total:
                supervisor.refuse_stillness(looks=10)
            time.sleep(0.1)


def up(folder: Path, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """`qrelay up` with everything faked, until it ends."""
    return qrelay("up", *arguments, environ={**DOUBLES, "QRELAY_DATA_DIR": str(folder), **environ})


def test_every_service_with_wrong_settings_is_told_before_anything_starts(tmp_path: Path) -> None:
    wrong = {"QRELAY_JUDGE__BACKEND": "nonsense", "QRELAY_SINK__GRPC__MAX_PENDING_ITEMS": "-1"}
    done = up(tmp_path, "--port-base", "0", **wrong)
    assert done.returncode == 78
    assert "judge.backend" in done.stderr
    assert "sink.grpc.max_pending_items" in done.stderr
    assert not (tmp_path / "nats").exists()
    assert not (tmp_path / "logs").exists()


def test_models_that_are_absent_are_told_together_before_anything_starts(tmp_path: Path) -> None:
    absent = {
        "QRELAY_JUDGE__BACKEND": "transformers",
        "QRELAY_JUDGE__MODEL": "qwen2.5-coder-0.5b-instruct",
        "QRELAY_RETRIEVER__ENGINE": "embedded",
    }
    done = up(tmp_path, "--port-base", "0", QRELAY_MODELS_DIR=str(tmp_path / "none"), **absent)
    assert done.returncode == 78
    assert "qrelay models pull qwen2.5-coder-0.5b-instruct" in done.stderr
    assert "qrelay models pull all-MiniLM-L6-v2" in done.stderr
    assert not (tmp_path / "nats").exists()


def test_taken_ports_are_told_together_before_anything_starts(tmp_path: Path) -> None:
    with socket.socket() as first, socket.socket() as second:
        ports = []
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
            each.listen()
            ports.append(each.getsockname()[1])
        done = up(tmp_path, "--port-base", "0", "--nats-port", str(ports[0]),
                  QRELAY_JUDGE__TELEMETRY__METRICS_BIND=f"127.0.0.1:{ports[1]}")  # fmt: skip
    assert done.returncode == 78
    assert f"NATS 127.0.0.1:{ports[0]}" in done.stderr
    assert not (tmp_path / "logs").exists()


def test_a_nats_server_that_allows_too_little_ends_up_and_feed_with_one_line_that_names_the_limit(
    tmp_path: Path,
) -> None:
    server = NatsServer(tmp_path / "nats", max_payload=65536)
    server.start()
    try:
        folder = tmp_path / "data"
        done = up(folder, "--port-base", "0", "--nats", server.url)
        fed = qrelay("feed", "-", "--collection", "docs", "--nats", server.url, stdin="q1\tone\n",
                     environ={"QRELAY_DATA_DIR": str(folder)})  # fmt: skip
    finally:
        server.kill()
    named = "error: NATS: the server's max_payload is 65536 bytes"
    assert (done.returncode, done.stderr.count(named)) == (78, 1)
    assert not (folder / "logs").exists()
    assert (fed.returncode, fed.stderr.count(named)) == (78, 1)
    assert "no NATS server answers" not in fed.stderr


def test_a_feed_without_services_says_who_declares_the_queues(tmp_path: Path, nats_server: NatsServer) -> None:
    done = qrelay("feed", "-", "--collection", "docs", "--nats", nats_server.url, stdin="q1\tone\n",
                  environ={"QRELAY_DATA_DIR": str(tmp_path)})  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.count("waiting: the queues are not declared") == 1
    assert "error: the queues are not declared: the services declare them, so start these" in done.stderr


def test_up_shows_each_services_steps_as_plain_lines_and_down_names_itself(tmp_path: Path) -> None:
    fake = {"QRELAY_JUDGE__FAKE__LOAD_STEPS": "3", "QRELAY_JUDGE__FAKE__LOAD_STEP_S": "5"}
    done = up(tmp_path, "--detach", "--port-base", "0", **fake)
    try:
        assert done.returncode == 0, done.stderr
        assert re.search(r"^judge: loading the fake: [0-2] of 3 steps", done.stderr, re.MULTILINE)
        assert "all ready" in done.stderr
        assert "`qrelay down` stops" in done.stderr
        assert "Ctrl-C" not in done.stderr
        assert "\x1b" not in done.stderr
        assert all(f"{name:<9} ready" in done.stderr for name in SERVICES)
    finally:
        stopped = called("down", environ={"QRELAY_DATA_DIR": str(tmp_path)})
    assert (stopped.returncode, stopped.stdout) == (0, "stopped\n")
    assert "stopping: services finish" in stopped.stderr


def killed(running: Installation) -> dict[str, int]:
    """Kill `up` alone; the processes that it leaves."""
    left = {name: running.endpoint(name).pid for name in SERVICES}
    assert running._process is not None
    running._process.kill()
    running._process.wait(30)
    (running.folder / "up.log").unlink()
    return left


def test_a_killed_up_leaves_nothing_that_blocks_the_next_and_down_ends_it(tmp_path: Path) -> None:
    with Installation(tmp_path, DOUBLES) as first:
        left = killed(first)
        with Installation(tmp_path, DOUBLES) as second:
            assert "an earlier `qrelay up` was killed and left" in (tmp_path / "up.log").read_text()
            assert not set(left.values()) & set(killed(second).values())
            stopped = called("down", environ=second.environ)
            assert stopped.stdout == "stopped\n"
            assert endpoints(tmp_path) == {}
            assert "nothing runs" in called("down", environ=second.environ).stdout


def test_down_does_not_signal_a_process_that_only_has_the_number(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as foreign:
        (tmp_path / "up.pid").write_text(str(foreign.pid))
        from filelock import FileLock

        with FileLock(tmp_path / "up.lock"):
            done = called("down", environ={"QRELAY_DATA_DIR": str(tmp_path)})
        assert foreign.poll() is None
        foreign.kill()
    assert done.returncode == 1
    assert "does not name its process" in done.stderr


def in_folder(folder: Path, *arguments: str, code: int = 0, **environ: str) -> str:
    """A command in the folder without any other QRELAY_ variable; what it says on both outputs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("QRELAY_")}
    root = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "qrelay.cli.main", *arguments], cwd=folder, capture_output=True, text=True,
        env={**clean, "PYTHONPATH": root, **environ}, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_wrong_settings_of_any_service_are_all_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "qrelay.yaml").write_text("judge: {backend: fak}\nsink: {max_negativs: 3}\n")
    said = in_folder(tmp_path, "up", "--only", "sink", code=78)
    assert "judge.backend" in said
    assert "did you mean max_negatives?" in said
    assert not (tmp_path / ".qrelay").exists()


def test_up_records_what_its_services_run_with_and_says_what_the_file_changes(tmp_path: Path) -> None:
    file, up = tmp_path / "qrelay.yaml", ("up", "--detach", "--only", "sink", "--port-base", "0")
    file.write_text("sink: {max_negatives: 4}\njudge: {backend: fake}\n")
    try:
        in_folder(tmp_path, *up, QRELAY_SINK__JUDGE_RANK="3")
        record = yaml.safe_load((tmp_path / ".qrelay" / "settings.yaml").read_text())
        assert record["settings"]["sink"] == {"max_negatives": 4, "judge_rank": "3"}
        assert record["from"]["sink.judge_rank"] == "QRELAY_SINK__JUDGE_RANK"
        file.write_text("sink: {max_negatives: 5}\n")
        told = in_folder(tmp_path, "config", "sink")
        assert "max_negatives: 4  # .qrelay/settings.yaml (from qrelay.yaml)" in told
        assert "sink.max_negatives is 5 there, 4 in force" in told
        in_folder(tmp_path, "down")
        said = in_folder(tmp_path, *up)
        assert "changed: sink: max_negatives was 4, is now 5 (qrelay.yaml)" in said
        assert "changed: sink: judge_rank was 3, is now 1 (default)" in said
    finally:
        in_folder(tmp_path, "down")


def test_a_service_of_up_is_started_with_the_record_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRELAY_SINK__MAX_NEGATIVES", "3")
    monkeypatch.setenv("QRELAY_CONFIG", "elsewhere.yaml")
    (child,) = build(tmp_path, "nats://127.0.0.1:1", None, 0, ("sink",), print).children
    assert "QRELAY_SINK__MAX_NEGATIVES" not in child.environ
    assert child.environ["QRELAY_CONFIG"] == str(tmp_path / "settings.yaml")
    assert child.environ["QRELAY_DATA_DIR"] == str(tmp_path)


def test_what_is_checked_before_the_start_is_what_the_services_read(tmp_path: Path) -> None:
    """Else `up` would demand the default judge's model where another was chosen for the machine."""
    (tmp_path / "tuned.yaml").write_text("settings: {sink: {max_negatives: 3}}")
    (tmp_path / "settings.yaml").write_text("settings: {}")
    (child,) = build(tmp_path, "nats://127.0.0.1:1", None, 0, ("sink",), print).children
    (settings,) = checked_settings({child.name: child.environ}).values()
    assert isinstance(settings, SinkSettings)
    assert settings.max_negatives == 3

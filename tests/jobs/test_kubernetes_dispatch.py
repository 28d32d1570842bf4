"""A trigger becomes one Job, and what becomes of it reaches the ledger: the real dispatcher, ledger and launcher."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from qrelay.exitcodes import EXIT_SETUP
from qrelay.jobs.decisions import trigger_manually
from qrelay.jobs.dispatcher import Dispatcher
from qrelay.jobs.kubernetes_job import job_object
from qrelay.labels.ledger import outbox
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.outbox import Run, Trigger
from qrelay.labels.settings import SinkSettings
from qrelay.runtime import faults
from qrelay.settings import load_settings
from tests.conftest import eventually
from tests.jobs.kubernetes_api import ALL_RULES, ApiServer, rules_of, serving
from tests.jobs.kubernetes_cluster import Cluster
from tests.jobs.kubernetes_process import made_settings
from tests.jobs.kubernetes_validation import problems
from tests.jobs.test_kubernetes_job import training
from tests.jobs.test_launcher import until
from tests.labels.builders import graded, judged_set

ROOT = Path(__file__).resolve().parents[2]
COMPONENT = ROOT / "deploy" / "k8s" / "components" / "training"
HARD = [graded(3), graded(0)]


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with serving(ApiServer()) as running:
        yield running


@pytest.fixture
def cluster(server: ApiServer) -> Cluster:
    return server.cluster


@pytest.fixture
def dispatcher(server: ApiServer, sqlite_ledger: Ledger, tmp_path: Path) -> Iterator[Dispatcher]:
    """With one pending trigger."""
    settings = made_settings("", tmp_path, server.kubeconfig(tmp_path))
    made = Dispatcher(sqlite_ledger, settings, clock=Hurried())
    sqlite_ledger.commit([judged_set("q1", outcomes=HARD)])
    trigger_manually(sqlite_ledger, "docs", settings.training)
    with closing(made.launcher):
        yield made


class Hurried:
    """A clock in seconds that is past every pause whenever it is asked."""

    now = 0.0

    def __call__(self) -> float:
        self.now += 10_000
        return self.now


def outcome(ledger: Ledger) -> tuple[list[Trigger], list[Run]]:
    with ledger.snapshot() as snapshot:
        return outbox.triggers(snapshot.connection), outbox.runs(snapshot.connection)


def the_run(dispatcher: Dispatcher, ledger: Ledger, done: Callable[[Run], bool] = lambda run: True) -> Run:
    """The one run, after steps until it is `done`."""

    def found() -> Run | None:
        dispatcher.step()
        (run,) = outcome(ledger)[1]
        return run if done(run) else None

    run = until(found)
    assert isinstance(run, Run)
    return run


def start(ledger_url: str, folder: Path, server: ApiServer, *query_ids: str) -> subprocess.Popen[bytes]:
    """A sink that commits and dispatches; it dies at the points that are armed in folder/faults."""
    (folder / "faults").mkdir(exist_ok=True)
    arguments = [ledger_url, str(folder), str(server.kubeconfig(folder)), *query_ids]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.jobs.kubernetes_process", *arguments],
        cwd=ROOT,
        env={**os.environ, faults.VARIABLE: str(folder / "faults")},
    )


def assert_one_job_a_trigger(ledger: Ledger, cluster: Cluster) -> None:
    triggers, runs = outcome(ledger)
    assert triggers and {each.state for each in triggers} == {"launched"}
    assert sorted(cluster.created) == sorted(each.job_name for each in triggers) == sorted(r.job_name for r in runs)
    assert {each.launcher for each in runs} == {"kubernetes"}


def test_a_sink_killed_at_each_point_in_turn_creates_one_job_a_trigger(
    ledger: Ledger, ledger_url: str, server: ApiServer, tmp_path: Path
) -> None:
    for number, point in enumerate(["sink.trigger.decided", "sink.launch.after"]):
        (tmp_path / "faults").mkdir(exist_ok=True)
        (tmp_path / "faults" / point).write_text("1")
        assert start(ledger_url, tmp_path, server, f"q{number}").wait() == -signal.SIGKILL, point
        assert outcome(ledger)[0][0].state == "pending", "on disk, and the ledger does not know of its Job"
    assert start(ledger_url, tmp_path, server, "q9").wait() == 0
    assert_one_job_a_trigger(ledger, server.cluster)


def test_two_sinks_at_once_create_each_job_once(
    ledger: Ledger, ledger_url: str, server: ApiServer, tmp_path: Path
) -> None:
    for what in (503, "lost", 409):
        server.misbehave("create", "jobs", what)
    sinks = [start(ledger_url, tmp_path, server, *(f"q{n}{m}" for m in range(3))) for n in range(2)]
    assert [sink.wait() for sink in sinks] == [0, 0]
    assert_one_job_a_trigger(ledger, server.cluster)


def test_a_job_is_followed_from_its_queue_to_the_ledger(
    dispatcher: Dispatcher, sqlite_ledger: Ledger, cluster: Cluster
) -> None:
    run = the_run(dispatcher, sqlite_ledger)
    assert (run.state, run.launcher, run.job_name) == ("running", "kubernetes", cluster.only())
    cluster.runs(run.job_name, "epoch 1")
    assert the_run(dispatcher, sqlite_ledger).state == "running"
    cluster.exits(run.job_name, 0, "epoch 1\nbi_encoder: promoted")
    run = the_run(dispatcher, sqlite_ledger, lambda run: run.state != "running")
    assert (run.state, run.exit_code, run.detail["log"][-1]) == ("succeeded", 0, "bi_encoder: promoted")
    assert run.finished_us is not None and len(cluster.created) == 1


def test_a_failed_job_is_reported_with_its_last_lines_and_never_created_again(
    dispatcher: Dispatcher, sqlite_ledger: Ledger, cluster: Cluster
) -> None:
    dispatcher.step()
    cluster.exits(cluster.only(), EXIT_SETUP, "\n".join(f"line {n}" for n in range(30)))
    run = the_run(dispatcher, sqlite_ledger, lambda run: run.state != "running")
    assert (run.state, run.exit_code) == ("failed", EXIT_SETUP)
    assert "exit code 78" in run.detail["reason"]
    assert run.detail["log"] == [f"line {n}" for n in range(10, 30)]
    dispatcher.step()
    assert len(cluster.created) == 1 and len(cluster.pods) == 1


@pytest.mark.parametrize("what", [403, 500, 503, "garbage", "lost"])
def test_no_trouble_of_the_server_loses_a_trigger_or_doubles_its_job(
    dispatcher: Dispatcher, sqlite_ledger: Ledger, server: ApiServer, what: int | str
) -> None:
    for verb, resource in (("create", "jobs"), ("get", "jobs"), ("list", "pods")):
        server.misbehave(verb, resource, what, times=2)
    dispatcher.step()
    (trigger,), runs = outcome(sqlite_ledger)
    assert (trigger.state, trigger.attempts, runs) == ("pending", 1, []) and "create jobs" in trigger.error
    while not (runs := outcome(sqlite_ledger)[1]):
        dispatcher.step()
    (run,) = runs
    server.cluster.exits(run.job_name, 0)
    assert the_run(dispatcher, sqlite_ledger, lambda run: run.state != "running").state == "succeeded"
    assert_one_job_a_trigger(sqlite_ledger, server.cluster)


def test_a_job_that_the_server_finds_invalid_is_refused_with_its_words(
    dispatcher: Dispatcher, sqlite_ledger: Ledger, server: ApiServer
) -> None:
    server.misbehave("create", "jobs", 422)
    dispatcher.step()
    (trigger,), runs = outcome(sqlite_ledger)
    assert (trigger.state, runs) == ("refused", []) and "made on purpose" in trigger.error


def test_a_namespace_that_cannot_be_read_holds_triggers_back(
    dispatcher: Dispatcher, sqlite_ledger: Ledger, server: ApiServer
) -> None:
    server.misbehave("get", "namespaces", 403)
    with pytest.raises(Exception, match="grant it verb get on resource namespaces"):
        dispatcher.step()
    assert outcome(sqlite_ledger)[0][0].state == "pending"
    dispatcher.step()
    assert_one_job_a_trigger(sqlite_ledger, server.cluster)


def test_a_job_deleted_before_its_end_was_read_is_failed_and_says_that_it_may_have_succeeded(
    dispatcher: Dispatcher, sqlite_ledger: Ledger, cluster: Cluster
) -> None:
    dispatcher.step()
    cluster.exits(cluster.only(), 0)
    cluster.delete(cluster.only())
    run = the_run(dispatcher, sqlite_ledger, lambda run: run.state != "running")
    assert (
        run.state == "failed"
        and "by its ttl" in run.detail["reason"]
        and "may have succeeded" in run.detail["reason"]
    )
    assert len(cluster.created) == 1, "its name is free again, and its trigger is launched"


def service(folder: Path, settings: dict[str, Any]) -> subprocess.Popen[bytes]:
    """The sink's own process, without a queue."""
    config = folder / "qrelay.yaml"
    config.write_text(json.dumps({"sink": {"data_dir": str(folder), "worker": {"enabled": False}, **settings}}))
    return subprocess.Popen(
        [sys.executable, "-m", "qrelay.services.sink"], cwd=ROOT, env={**os.environ, "QRELAY_CONFIG": str(config)},
        stderr=subprocess.PIPE,
    )  # fmt: skip


async def test_the_service_launches_follows_and_stops(server: ApiServer, tmp_path: Path) -> None:
    settings = made_settings("", tmp_path, server.kubeconfig(tmp_path))
    with closing(Ledger.open(tmp_path / "ledger.sqlite")) as ledger:
        ledger.commit([judged_set("q1", outcomes=HARD)])
        trigger_manually(ledger, "docs", settings.training)
        process = service(tmp_path, {"training": settings.training.model_dump(mode="json")})
        await eventually(lambda: server.count("get", "jobs") >= 2)
        server.cluster.exits(server.cluster.only(), 0, "trained")
        await eventually(lambda: [each.state for each in outcome(ledger)[1]] == ["succeeded"])
        process.send_signal(signal.SIGTERM)
        _, logged = await asyncio.to_thread(process.communicate)
        assert process.returncode == 0, logged.decode()
        assert_one_job_a_trigger(ledger, server.cluster)


def test_a_sink_that_can_reach_no_cluster_ends_at_start_with_the_code_for_setup(tmp_path: Path) -> None:
    absent = {"kubeconfig": str(tmp_path / "absent"), "image": "trainer"}
    process = service(tmp_path, {"training": {"launcher": "kubernetes", "command": ["t"], "kubernetes": absent}})
    _, logged = process.communicate()
    assert process.returncode == EXIT_SETUP and b"sink.training.kubernetes.kubeconfig" in logged


def test_the_role_of_the_deployment_grants_what_is_needed_and_no_more() -> None:
    objects = list(yaml.safe_load_all((COMPONENT / "rbac.yaml").read_text("utf8")))
    assert rules_of([each for each in objects if each["kind"] == "Role"]) == ALL_RULES
    assert not [each for each in objects if each["kind"].startswith("Cluster")]


def test_the_settings_of_the_deployment_make_a_valid_job() -> None:
    maps = yaml.safe_load((COMPONENT / "kustomization.yaml").read_text("utf8"))["configMapGenerator"]
    literals = [each for part in maps if part["name"] == "sink-env" for each in part["literals"]]
    environ = dict(each.split("=", 1) for each in literals)
    settings = load_settings(SinkSettings, "sink", environ=environ).training
    assert settings.launcher == "kubernetes" and settings.kubernetes.ledger_secret
    assert problems(job_object(training(command=settings.command), settings.kubernetes)) == []

"""Running Jobs are followed by a watch; whatever becomes of it, their end is seen."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from qrelay.jobs.kubernetes_launcher import KubernetesLauncher
from tests.conftest import LONG_S
from tests.sink.kubernetes_api import ApiServer
from tests.sink.kubernetes_cluster import Cluster
from tests.sink.test_kubernetes_launcher import NAME, cluster, connected, ended, launcher, server, status, training
from tests.sink.test_launcher import until

__all__ = ("cluster", "launcher", "server")


def watching(launcher: KubernetesLauncher) -> None:
    launcher.status(NAME)
    until(lambda: launcher.watching)


def test_looks_at_a_running_job_ask_the_server_nothing(launcher: KubernetesLauncher, server: ApiServer) -> None:
    launcher.launch(training())
    watching(launcher)
    asked = len(server.asked)
    for _ in range(50):
        assert status(launcher).state == "running"
    assert server.asked[asked:] in ([], [("watch", "jobs", "")])


def test_an_event_of_the_watch_is_seen_without_a_request_for_the_job(
    launcher: KubernetesLauncher, server: ApiServer, cluster: Cluster
) -> None:
    launcher.launch(training())
    watching(launcher)
    before = server.count("get", "jobs"), server.count("list", "jobs")
    cluster.exits(NAME, 0)
    assert ended(launcher).state == "succeeded"
    assert (server.count("get", "jobs"), server.count("list", "jobs")) == before


def test_a_job_that_the_watch_does_not_know_yet_is_asked_for(launcher: KubernetesLauncher, server: ApiServer) -> None:
    launcher.launch(training())
    watching(launcher)
    assert launcher.status("train-docs-9") is None
    assert ("get", "jobs", "train-docs-9") in server.asked


@pytest.mark.parametrize("what", ["drop", "gone", "end", 403, 500, "garbage"])
def test_after_whatever_ends_the_watch_the_end_of_a_job_is_seen(
    launcher: KubernetesLauncher, server: ApiServer, cluster: Cluster, what: int | str
) -> None:
    launcher.launch(training())
    if isinstance(what, int) or what == "garbage":
        server.misbehave("watch", "jobs", what, times=2)
        launcher.status(NAME)
        until(lambda: server.count("watch", "jobs") >= 3)
    else:
        watching(launcher)
        server.misbehave("watch", "jobs", what, times=2)
        until(lambda: server.count("watch", "jobs") >= 3)
    assert status(launcher).state == "running"
    until(lambda: launcher.watching)
    cluster.exits(NAME, 0)
    assert ended(launcher).state == "succeeded"


def test_a_job_that_ends_while_there_is_no_watch_is_seen_by_asking(server: ApiServer, tmp_path: Path) -> None:
    server.rules -= {("batch", "jobs", "watch")}
    launcher = connected(server, tmp_path)
    launcher.launch(training())
    assert status(launcher).state == "running"
    server.cluster.exits(NAME, 78)
    assert ended(launcher).exit_code == 78
    launcher.close()


def test_what_a_broken_watch_last_saw_is_not_believed(
    launcher: KubernetesLauncher, server: ApiServer, cluster: Cluster
) -> None:
    launcher.launch(training())
    watching(launcher)
    server.rules -= {("batch", "jobs", "watch"), ("batch", "jobs", "list")}
    server.misbehave("watch", "jobs", "drop")
    until(lambda: not launcher.watching)
    cluster.exits(NAME, 78)
    assert ended(launcher).exit_code == 78


def test_a_quiet_watch_ends_with_the_launcher_and_not_with_its_time(server: ApiServer, tmp_path: Path) -> None:
    launcher = connected(server, tmp_path)
    watching(launcher)
    until(lambda: server.watching)
    closing = threading.Thread(target=launcher.close)
    closing.start()
    closing.join(LONG_S)  # half of a watch's time
    assert not closing.is_alive()


def test_a_refused_watch_is_asked_for_later_each_time(
    server: ApiServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.rules -= {("batch", "jobs", "watch")}
    launcher = connected(server, tmp_path)
    launcher.status(NAME)
    until(lambda: len(caplog.records) >= 4)
    launcher.close()
    pauses = [vars(record)["pause_s"] for record in caplog.records[:4]]
    assert pauses == [0.01, 0.02, 0.04, 0.08]


def test_a_deleted_job_is_gone_from_the_view(launcher: KubernetesLauncher, cluster: Cluster) -> None:
    launcher.launch(training())
    watching(launcher)
    until(lambda: launcher.status(NAME))
    cluster.delete(NAME)
    until(lambda: launcher.status(NAME) is None)

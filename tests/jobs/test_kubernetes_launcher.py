"""The launcher of Jobs against the double of the API server: what it answers, also where the server misbehaves."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import BackendTimeout, BackendUnavailable, InputError
from qrelay.jobs.kubernetes_launcher import KubernetesLauncher
from qrelay.jobs.launcher import JobStatus, Launched, TrainingJob
from qrelay.settings.kubernetes import KubernetesSettings
from tests.jobs.kubernetes_api import ALL_RULES, ApiServer, serving
from tests.jobs.kubernetes_cluster import NAMESPACE, Cluster
from tests.jobs.test_launcher import until

NAME = "train-docs-1"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with serving(ApiServer()) as running:
        yield running


@pytest.fixture
def cluster(server: ApiServer) -> Cluster:
    return server.cluster


def connected(server: ApiServer, folder: Path, **settings: Any) -> KubernetesLauncher:
    fields = {"image": "trainer@sha256:1", "kubeconfig": server.kubeconfig(folder), **settings}
    return KubernetesLauncher(KubernetesSettings(**fields))


@pytest.fixture
def launcher(server: ApiServer, tmp_path: Path) -> Iterator[KubernetesLauncher]:
    with closing(connected(server, tmp_path)) as made:
        yield made


def training(name: str = NAME, **fields: Any) -> TrainingJob:
    values = {"collection": "docs", "change_no": 7, "command": ("qrelay", "train", "--job", "{job}"), **fields}
    return TrainingJob(name, rule="manual", ledger="postgresql://u@h/db", data_dir=Path("/home/sink"), **values)


def status(launcher: KubernetesLauncher, name: str = NAME) -> JobStatus:
    found = launcher.status(name)
    assert found is not None
    return found


def ended(launcher: KubernetesLauncher, name: str = NAME) -> JobStatus:
    def end() -> JobStatus | None:
        found = status(launcher, name)
        return None if found.state == "running" else found

    found = until(end)
    assert isinstance(found, JobStatus)
    return found


def test_a_conflict_means_already_running(launcher: KubernetesLauncher, cluster: Cluster) -> None:
    assert launcher.launch(training()) is Launched.STARTED
    assert launcher.launch(training(command=("another",))) is Launched.ALREADY_THERE
    assert cluster.created == [NAME]


def test_many_launches_at_once_create_one_job(server: ApiServer, tmp_path: Path, cluster: Cluster) -> None:
    launchers = [connected(server, tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda each: each.launch(training()), launchers))
    assert found.count(Launched.STARTED) == 1 and found.count(Launched.ALREADY_THERE) == 7
    assert cluster.created == [NAME] and len({each.place for each in launchers}) == 1


def test_a_job_of_that_name_for_another_training_is_refused(launcher: KubernetesLauncher, cluster: Cluster) -> None:
    launcher.launch(training(change_no=8))
    with pytest.raises(InputError, match=f"another Job named {NAME}"):
        launcher.launch(training())
    assert len(cluster.created) == 1


def test_a_conflict_without_such_a_job_is_tried_again(
    launcher: KubernetesLauncher, server: ApiServer, cluster: Cluster
) -> None:
    server.misbehave("create", "jobs", 409)
    with pytest.raises(BackendUnavailable, match="there is no Job"):
        launcher.launch(training())
    assert launcher.launch(training()) is Launched.STARTED and cluster.created == [NAME]


@pytest.mark.parametrize("what", [401, 404, 429, 500, 503, "garbage"])
def test_what_may_pass_is_tried_again_and_creates_one_job(
    launcher: KubernetesLauncher, server: ApiServer, cluster: Cluster, what: int | str
) -> None:
    server.misbehave("create", "jobs", what)
    with pytest.raises(BackendUnavailable, match="create jobs in namespace qrelay-training"):
        launcher.launch(training())
    assert server.count("create", "jobs") == 1, "the client does not try again by itself"
    launcher.launch(training())
    assert cluster.created == [NAME]


@pytest.mark.parametrize("what", ["slow", "lost"])
def test_a_job_that_was_created_without_an_answer_is_found_again(
    server: ApiServer, tmp_path: Path, cluster: Cluster, what: str
) -> None:
    server.misbehave("create", "jobs", what)
    with closing(connected(server, tmp_path, request_timeout_s=0.5)) as hasty:
        with pytest.raises((BackendTimeout, BackendUnavailable), match="create jobs"):
            hasty.launch(training())
    until(lambda: cluster.created)
    with closing(connected(server, tmp_path)) as launcher:
        assert launcher.launch(training()) is Launched.ALREADY_THERE
    assert cluster.created == [NAME]


def test_the_client_asks_once_and_leaves_trying_again_to_the_dispatcher(
    launcher: KubernetesLauncher, server: ApiServer
) -> None:
    server.misbehave("get", "namespaces", "lost")
    with pytest.raises(BackendUnavailable, match="cannot be reached"):
        launcher.place  # noqa: B018 - reading it asks
    assert server.count("get", "namespaces") == 1


@pytest.mark.parametrize("what", [400, 422])
def test_an_object_that_the_server_finds_invalid_is_refused_for_good(
    launcher: KubernetesLauncher, server: ApiServer, what: int
) -> None:
    server.misbehave("create", "jobs", what)
    with pytest.raises(InputError, match=r"correct sink\.training\.kubernetes"):
        launcher.launch(training())


def test_nobody_at_the_address_is_a_reason_to_try_later(tmp_path: Path) -> None:
    with serving(ApiServer()) as server:
        launcher = connected(server, tmp_path)
    with closing(launcher), pytest.raises(BackendUnavailable, match="cannot be reached"):
        launcher.launch(training())


@pytest.mark.parametrize("rule", sorted(ALL_RULES))
def test_every_verb_of_the_role_is_needed_and_its_absence_is_said(
    server: ApiServer, tmp_path: Path, rule: tuple[str, str, str]
) -> None:
    server.rules = ALL_RULES - {rule}
    _, resource, verb = rule
    needed = f"grant it verb {verb} on resource {resource} there"

    def use() -> None:
        with closing(connected(server, tmp_path)) as launcher:
            assert launcher.place
            launcher.launch(training()), launcher.launch(training())
            server.cluster.exits(NAME, 78, log="bad")
            if any(needed in line for line in launcher.tail(NAME)):
                raise BackendUnavailable(needed)

    with pytest.raises(BackendUnavailable, match=needed):
        use()


def test_a_namespace_that_is_made_anew_is_another_place(server: ApiServer, tmp_path: Path) -> None:
    places = set()
    for uid in ("one", "one", "two"):
        server.cluster.namespaces[NAMESPACE] = uid
        with closing(connected(server, tmp_path)) as launcher:
            places.add(launcher.place)
            server.misbehave("get", "namespaces", 500)
            assert launcher.place in places, "read once"
            server.mischief.clear()
    assert len(places) == 2


def test_a_job_runs_until_its_conditions_say_otherwise(launcher: KubernetesLauncher, cluster: Cluster) -> None:
    launcher.launch(training())
    assert status(launcher).state == "running", "its pod waits for a node"
    cluster.runs(NAME, "one\ntwo")
    assert status(launcher).state == "running" and launcher.tail(NAME) == ["one", "two"]
    cluster.exits(NAME, 0, "one\ntwo\nthree")
    found = ended(launcher)
    assert (found.state, found.exit_code, found.reason) == ("succeeded", 0, "")
    assert found.started_us and found.finished_us and found.started_us < found.finished_us
    assert launcher.tail(NAME, 2) == ["two", "three"]


def test_a_suspended_job_waits_in_its_queue_and_counts_as_running(server: ApiServer, tmp_path: Path) -> None:
    with closing(connected(server, tmp_path, queue="gpus")) as launcher:
        launcher.launch(training())
        assert server.cluster.pods == {} and "waits in its queue" in status(launcher).reason
        assert status(launcher).state == "running" and launcher.tail(NAME) == []
        server.cluster.admit(NAME)
        server.cluster.exits(NAME, 0)
        assert ended(launcher).state == "succeeded"


def test_exit_78_ends_the_job_at_once_and_other_codes_after_the_backoff_limit(
    launcher: KubernetesLauncher, cluster: Cluster
) -> None:
    launcher.launch(training())
    cluster.exits(NAME, 78, "set trainer.experiment")
    found = ended(launcher)
    assert (found.state, found.exit_code, len(cluster.pods)) == ("failed", 78, 1)
    assert "PodFailurePolicy" in found.reason and "exit code 78" in found.reason
    launcher.launch(training("train-docs-2"))
    for attempt in range(3):
        assert status(launcher, "train-docs-2").state == "running"
        cluster.exits("train-docs-2", 1, f"attempt {attempt}")
    found = ended(launcher, "train-docs-2")
    assert (found.exit_code, len(cluster.pods_of("train-docs-2"))) == (1, 3) and "BackoffLimit" in found.reason
    assert launcher.tail("train-docs-2") == ["attempt 2"], "the last pod's"


def test_a_node_that_is_taken_away_is_no_attempt(launcher: KubernetesLauncher, cluster: Cluster) -> None:
    launcher.launch(training())
    for _ in range(5):
        cluster.runs(NAME)
        cluster.disrupted(NAME)
    assert status(launcher).state == "running"
    cluster.exits(NAME, 0)
    assert ended(launcher).state == "succeeded"


def test_out_of_memory_is_said(server: ApiServer, tmp_path: Path) -> None:
    with closing(connected(server, tmp_path, backoff_limit=0)) as launcher:
        launcher.launch(training())
        server.cluster.exits(NAME, 137, "epoch 1", reason="OOMKilled")
        found = ended(launcher)
        assert found.exit_code == 137 and "exit code 137 (OOMKilled)" in found.reason


def test_a_container_that_never_started_gives_its_reason_instead_of_a_log(
    launcher: KubernetesLauncher, cluster: Cluster
) -> None:
    launcher.launch(training())
    cluster.cannot_schedule(NAME, "0/3 nodes are available: 3 Insufficient nvidia.com/gpu")
    assert "Unschedulable: 0/3 nodes are available" in launcher.tail(NAME)[0]
    cluster.exits(NAME, 1, "attempt 1")
    cluster.cannot_pull(NAME, 'Back-off pulling image "trainer"')
    first, second = launcher.tail(NAME)
    assert first == "attempt 1" and "ImagePullBackOff: Back-off pulling" in second
    cluster.deadline(NAME)
    found = ended(launcher)
    assert found.exit_code is None
    assert "DeadlineExceeded" in found.reason and "ImagePullBackOff" in found.reason


def test_a_job_whose_pods_were_deleted_says_so(launcher: KubernetesLauncher, cluster: Cluster) -> None:
    launcher.launch(training())
    cluster.runs(NAME, "epoch 1")
    cluster.deadline(NAME, keep_pods=False)
    found = ended(launcher)
    assert (found.state, found.exit_code) == ("failed", None)
    assert "DeadlineExceeded" in found.reason and "its pods are gone" in found.reason and launcher.tail(NAME) == []


def test_where_the_log_is_gone_the_containers_last_words_remain(
    launcher: KubernetesLauncher, server: ApiServer, cluster: Cluster
) -> None:
    launcher.launch(training())
    cluster.exits(NAME, 78, "all of it", message="the end\nof it")
    server.misbehave("get", "pods/log", 500)
    found = launcher.tail(NAME)
    assert found[:2] == ["the end", "of it"] and "cannot be read" in found[2]
    assert launcher.tail(NAME) == ["all of it"]


def test_lines_of_a_log_are_text_and_of_bounded_length(launcher: KubernetesLauncher, cluster: Cluster) -> None:
    launcher.launch(training())
    cluster.exits(NAME, 0, '{"a": 1}\n' + "x" * 2000 + "\nnul\0 \x1b[31m")
    assert [len(line) for line in launcher.tail(NAME)] == [8, 500, 10]
    assert "\0" not in "".join(launcher.tail(NAME)) and "\x1b" not in "".join(launcher.tail(NAME))


def test_a_look_at_a_job_is_one_request(launcher: KubernetesLauncher, server: ApiServer, cluster: Cluster) -> None:
    launcher.launch(training())
    asked = len(server.asked)
    assert status(launcher).state == "running" and launcher.status("train-docs-9") is None
    assert server.asked[asked:] == [("get", "jobs", NAME), ("get", "jobs", "train-docs-9")]
    cluster.delete(NAME)
    assert launcher.status(NAME) is None


@pytest.mark.parametrize("what", [403, 500, "lost", "garbage"])
def test_a_look_that_fails_says_so_and_the_next_sees_the_end(
    launcher: KubernetesLauncher, server: ApiServer, cluster: Cluster, what: int | str
) -> None:
    launcher.launch(training())
    server.misbehave("get", "jobs", what)
    with pytest.raises(BackendUnavailable, match="get jobs"):
        launcher.status(NAME)
    cluster.exits(NAME, 78)
    assert status(launcher).exit_code == 78


def test_a_closed_launcher_still_answers(server: ApiServer, tmp_path: Path) -> None:
    launcher = connected(server, tmp_path)
    launcher.launch(training())
    launcher.close()
    launcher.close()
    assert status(launcher).state == "running"

"""The Job's object, field by field, and the settings behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import ConfigError
from qrelay.exitcodes import EXIT_SETUP
from qrelay.jobs.dispatcher import LAUNCHERS
from qrelay.jobs.kubernetes_job import is_of, job_object, label_value
from qrelay.jobs.kubernetes_launcher import kubernetes_launcher
from qrelay.jobs.launcher import TrainingJob, job_name
from qrelay.labels.settings import SinkSettings
from qrelay.settings import load_settings
from qrelay.settings.kubernetes import KubernetesSettings
from qrelay.settings.training import TrainingSettings
from qrelay.training.job.job import read_job
from tests.jobs.kubernetes_validation import VERSIONS, problems

SECRET = "postgresql://sink:s3cret@db.internal/labels"
COMMAND = ("qrelay", "train", "--job", "{job}", "--name", "{name}", "--from", "{data_dir}")


def training(collection: str = "docs", **fields: Any) -> TrainingJob:
    name = job_name(collection, 7, COMMAND, 1)
    values = {"ledger": "postgresql://sink@db.internal/labels", "secret_ledger": SECRET, "command": COMMAND, **fields}
    return TrainingJob(name, collection, 7, "manual", data_dir=Path("/home/sink"), **values)


def made(collection: str = "docs", **settings: Any) -> dict[str, Any]:
    """The object, which every schema accepts."""
    found = job_object(training(collection), KubernetesSettings(image="trainer@sha256:1", **settings))
    assert problems(found) == []
    return found


def pod(found: dict[str, Any]) -> dict[str, Any]:
    spec: dict[str, Any] = found["spec"]["template"]["spec"]
    return spec


def container(found: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod(found)["containers"]
    return dict(only)


def variables(found: dict[str, Any]) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in container(found)["env"]}


def document(found: dict[str, Any]) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(found["spec"]["template"]["metadata"]["annotations"]["qrelay.dev/job"])
    return read


FULL: dict[str, Any] = {
    "service_account": "trainer", "queue": "gpus", "priority_class": "low", "gpus": 2, "cpu": "8", "memory": "64Gi",
    "node_selector": {"gpu": "h200"}, "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "volumes": {"state": "/srv/qrelay/state", "models": "/srv/qrelay/models"}, "config_map": "settings",
    "env": {"QRELAY_MODELS_DIR": "/srv/qrelay/models"}, "ledger_secret": "ledger",
}  # fmt: skip


def test_the_validation_of_these_tests_finds_what_kubernetes_would_refuse() -> None:
    for path, value in (
        (("spec", "backoffLimit"), "two"),
        (("spec", "template", "spec", "restartPolicyy"), "Never"),
        (("metadata", "labels", "a"), "no spaces"),
        (("metadata", "name"), "Upper_case"),
        (("spec", "podFailurePolicy", "rules"), [{"onExitCodes": {"operator": "In", "values": [78, 2]}}]),
    ):
        found = made()
        here = found
        for key in path[:-1]:
            here = here[key]
        here[path[-1]] = value
        assert problems(found), path
    assert len(VERSIONS) == 3


def test_the_object_is_valid_with_every_setting_and_with_none() -> None:
    assert made()["metadata"]["name"] == training().name
    found = made(**FULL)
    assert pod(found)["nodeSelector"] == {"gpu": "h200"} and pod(found)["priorityClassName"] == "low"
    assert pod(found)["tolerations"] == [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}]
    assert pod(found)["serviceAccountName"] == "trainer"


@pytest.mark.parametrize("collection", ["docs", "a_b" + "c" * 61, "x" * 64, "d_", "0" * 63 + "-"])
def test_names_and_labels_are_valid_for_every_collection(collection: str) -> None:
    found = made(collection)
    assert found["metadata"]["name"].startswith("train-")
    assert document(found)["collection"] == collection


def test_labels_of_two_collections_differ_also_where_they_are_cut() -> None:
    values = {label_value(text) for text in ("x" * 64, "x" * 65, "d_", "d-", "d")}
    assert len(values) == 5 and all(len(value) <= 63 for value in values)
    assert label_value("docs") == "docs"


def test_the_ledgers_address_is_nowhere_in_the_object_where_a_secret_has_it() -> None:
    text = json.dumps(made(**FULL))
    assert "s3cret" not in text and "postgresql" not in text and "db.internal" not in text
    assert variables(made(**FULL))["QRELAY_SINK__LEDGER"] == {"secretKeyRef": {"name": "ledger", "key": "url"}}


def test_without_a_secret_the_job_gets_the_address_that_has_no_password() -> None:
    found = made()
    assert variables(found)["QRELAY_SINK__LEDGER"] == "postgresql://sink@db.internal/labels"
    assert "s3cret" not in json.dumps(found)


def test_the_job_reads_its_description_from_a_file_that_the_pods_annotation_becomes() -> None:
    found = made()
    (volume,) = [each for each in pod(found)["volumes"] if each["name"] == "job"]
    (item,) = volume["downwardAPI"]["items"]
    assert item["fieldRef"]["fieldPath"] == "metadata.annotations['qrelay.dev/job']"
    (mount,) = [each for each in container(found)["volumeMounts"] if each["name"] == "job"]
    file = f"{mount['mountPath']}/{item['path']}"
    assert variables(found)["QRELAY_JOB"] == file
    words = ["qrelay", "train", "--job", file, "--name", training().name, "--from", "/srv/qrelay/state"]
    assert container(found)["command"] == document(found)["command"] == words
    assert document(found)["data_dir"] == variables(found)["QRELAY_DATA_DIR"] == "/srv/qrelay/state"


def test_the_trainer_understands_the_description(tmp_path: Path) -> None:
    (tmp_path / "job.json").write_text(json.dumps(document(made(ledger_secret="ledger"))), "utf8")
    read = read_job(tmp_path / "job.json")
    assert (read.name, read.collection, read.change_no) == (training().name, "docs", 7)
    assert read.data_dir == Path("/srv/qrelay/state") and not read.ledger, "QRELAY_SINK__LEDGER brings it"


def test_a_word_of_the_command_reaches_the_container_as_it_is() -> None:
    found = job_object(training(command=("sh", "-c", "echo $(date)")), KubernetesSettings(image="i"))
    assert container(found)["command"] == ["sh", "-c", "echo $$(date)"], "the kubelet makes $( of $$("


def test_exit_codes_that_mean_the_same_again_end_the_job_and_a_lost_node_is_no_attempt() -> None:
    fail, ignore = made()["spec"]["podFailurePolicy"]["rules"]
    assert fail["action"] == "FailJob" and EXIT_SETUP in fail["onExitCodes"]["values"]
    assert ignore == {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    assert [rule["action"] for rule in made(final_exit_codes=[])["spec"]["podFailurePolicy"]["rules"]] == ["Ignore"]


def test_a_queue_suspends_the_job_until_kueue_admits_it() -> None:
    found = made(queue="gpus")
    assert found["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus" and found["spec"]["suspend"] is True
    assert "suspend" not in made()["spec"] and "kueue" not in json.dumps(made())


def test_gpus_are_requested_and_limited_alike() -> None:
    resources = container(made(gpus=2, gpu_resource="amd.com/gpu"))["resources"]
    assert resources["requests"]["amd.com/gpu"] == resources["limits"]["amd.com/gpu"] == "2"
    assert "gpu" not in json.dumps(container(made())["resources"])


def test_several_gpus_get_shared_memory_to_talk_through() -> None:
    def mounted(gpus: int) -> bool:
        return "/dev/shm" in [each["mountPath"] for each in container(made(gpus=gpus))["volumeMounts"]]

    assert [mounted(gpus) for gpus in (0, 1, 2)] == [False, False, True]


def test_the_pod_satisfies_the_restricted_pod_security_standard() -> None:
    found = made(**FULL)
    inner, outer = container(found)["securityContext"], pod(found)["securityContext"]
    assert (
        outer["runAsNonRoot"] and outer["runAsUser"] == 10001 and outer["seccompProfile"]["type"] == "RuntimeDefault"
    )
    assert inner["capabilities"] == {"drop": ["ALL"]} and inner["allowPrivilegeEscalation"] is False
    assert inner["readOnlyRootFilesystem"] and pod(found)["automountServiceAccountToken"] is False
    kinds = {key for volume in pod(found)["volumes"] for key in volume if key != "name"}
    assert kinds == {"emptyDir", "downwardAPI", "configMap", "persistentVolumeClaim"}


def test_the_state_is_on_a_claim_that_is_mounted_there_or_above_and_else_scratch() -> None:
    def state(**settings: Any) -> list[str]:
        found = made(**settings)
        return [each["name"] for each in pod(found)["volumes"] if each["name"] == "state"]

    assert state() == ["state"] == state(volumes={"models": "/srv/qrelay/models"})
    assert state(volumes={"all": "/srv/qrelay"}) == [] == state(volumes={"s": "/srv/qrelay/state"})


def test_a_job_is_of_its_training_whatever_its_command_was() -> None:
    found = made()
    assert is_of(found, training()) and is_of(found, training(command=("other",)))
    assert not is_of(found, training("other"))
    torn: list[dict[str, Any]] = [{}, {"metadata": {}}, {"metadata": {"annotations": {"qrelay.dev/job": "{"}}}]
    assert not any(is_of(each, training()) for each in torn)


def test_every_problem_of_the_settings_is_reported_at_once_and_by_name(tmp_path: Path) -> None:
    file = tmp_path / "qrelay.yaml"
    wrong = {
        "gpus": -1, "memory": "lots", "namespace": "Not Valid", "final_exit_codes": [0], "env": {"QRELAY_JOB": "x"},
        "volumes": {"a": "/tmp"}, "node_selector": {"a b": "c"}, "data_dir": "relative", "ttl_s": 1,
    }  # fmt: skip
    policy = {"launcher": "kubernetes", "command": ["train"], "kubernetes": wrong}
    file.write_text(json.dumps({"sink": {"busy_timeout_s": -1, "training": policy}}))
    with pytest.raises(ConfigError) as raised:
        load_settings(SinkSettings, "sink", file=file, environ={})
    assert str(raised.value).startswith("10 problem(s)")
    assert all(f"sink.training.kubernetes.{name}:" in str(raised.value) for name in wrong)


def test_the_launcher_kubernetes_needs_an_image() -> None:
    with pytest.raises(ValueError, match=r"set sink\.training\.kubernetes\.image"):
        TrainingSettings(launcher="kubernetes")


def kubernetes(**fields: Any) -> SinkSettings:
    """Settings of a sink; `ledger` is the sink's, the others the section's."""
    ledger = fields.pop("ledger", "")
    cluster = KubernetesSettings(image="i", **fields)
    return SinkSettings(
        ledger=ledger, insecure=True, training=TrainingSettings(launcher="kubernetes", kubernetes=cluster)
    )


def test_a_password_that_would_have_to_be_in_the_object_is_refused_at_start() -> None:
    for url in (SECRET, "postgresql://h/db?password=s3cret"):
        with pytest.raises(ConfigError, match=r"sink\.training\.kubernetes\.ledger_secret") as raised:
            kubernetes_launcher(kubernetes(ledger=url))
        assert "s3cret" not in str(raised.value)


def test_without_its_client_library_the_error_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "kubernetes", None)  # as where it is not installed
    with pytest.raises(ConfigError, match=r"qrelay\[sink-kubernetes\]"):
        LAUNCHERS["kubernetes"](kubernetes(kubeconfig=tmp_path / "any"))


def test_the_client_library_is_loaded_only_by_a_sink_that_uses_it() -> None:
    code = "import sys, qrelay.services.sink.service as s; sys.exit('kubernetes' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_without_a_cluster_the_error_names_the_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    torn = tmp_path / "torn"
    torn.write_text("{")
    for file in (None, tmp_path / "absent", torn):
        with pytest.raises(ConfigError, match=r"set sink\.training\.kubernetes\.kubeconfig"):
            LAUNCHERS["kubernetes"](kubernetes(kubeconfig=file))

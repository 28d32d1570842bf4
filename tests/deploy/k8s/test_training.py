"""A training Job of the sink in `prod` finds everything that it names, and Kueue admits it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qrelay.jobs.kubernetes_job import CONFIG_FILE, QUEUE_LABEL, job_object
from qrelay.jobs.launcher import TrainingJob
from qrelay.labels.settings import SinkSettings
from qrelay.settings import load_settings
from qrelay.training.settings import TrainerSettings
from tests.deploy.k8s.effective import settings_of
from tests.deploy.k8s.rendering import Object, of_kind, one, overlay, template


@pytest.fixture
def training(tmp_path: Path) -> tuple[list[Object], SinkSettings, Object]:
    """The objects of prod, its sink's settings, and the Job that its launcher would create."""
    objects = overlay("prod")
    settings = settings_of(objects, "sink", tmp_path)
    assert isinstance(settings, SinkSettings)
    own = settings.training
    assert (own.enabled, own.launcher) == (True, "kubernetes")
    job = TrainingJob("qrelay-train-x", "docs", 7, "min_judged", "postgresql://x/y", tmp_path, own.command)
    return objects, settings, job_object(job, own.kubernetes)


def test_a_training_job_finds_its_namespace_volumes_settings_and_account(
    training: tuple[list[Object], SinkSettings, Object],
) -> None:
    objects, _, job = training
    namespace = job["metadata"]["namespace"]
    one(objects, "Namespace", namespace)
    there = {(each["kind"], each["metadata"]["name"]) for each in objects
             if each["metadata"].get("namespace") == namespace}  # fmt: skip
    spec = template(job)["spec"]
    assert ("ServiceAccount", spec["serviceAccountName"]) in there
    for volume in spec["volumes"]:
        if "persistentVolumeClaim" in volume:
            assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in there
        if "configMap" in volume:
            assert ("ConfigMap", volume["configMap"]["name"]) in there
    assert spec["containers"][0]["image"].partition("@")[0].endswith("/qrelay-trainer")
    secrets = [e["valueFrom"]["secretKeyRef"] for e in spec["containers"][0]["env"] if "valueFrom" in e]
    assert secrets == [{"name": "qrelay-ledger", "key": "url"}]


def test_the_trainers_settings_are_those_of_the_trainer_and_its_folders_are_mounted(
    training: tuple[list[Object], SinkSettings, Object], tmp_path: Path
) -> None:
    objects, _, job = training
    container = template(job)["spec"]["containers"][0]
    environ = {each["name"]: each["value"] for each in container["env"] if "value" in each}
    mounted = {each["mountPath"] for each in container["volumeMounts"]}
    assert environ.pop("QRELAY_CONFIG") == str(CONFIG_FILE) and str(CONFIG_FILE.parent) in mounted
    file = tmp_path / "trainer.yaml"
    file.write_text(one(objects, "ConfigMap", "trainer-config")["data"][CONFIG_FILE.name], "utf8")
    settings = load_settings(TrainerSettings, "trainer", file=file, environ=environ)
    assert {str(settings.data_dir), str(settings.registry_folder), environ["QRELAY_MODELS_DIR"]} <= mounted


def test_kueue_admits_the_training_jobs_within_its_quota(
    training: tuple[list[Object], SinkSettings, Object],
) -> None:
    objects, _, job = training
    namespace = job["metadata"]["namespace"]
    queue = one(objects, "LocalQueue", job["metadata"]["labels"][QUEUE_LABEL])
    assert queue["metadata"]["namespace"] == namespace
    cluster = one(objects, "ClusterQueue", queue["spec"]["clusterQueue"])
    assert cluster["spec"]["namespaceSelector"]["matchLabels"] == {"kubernetes.io/metadata.name": namespace}
    (group,) = cluster["spec"]["resourceGroups"]
    one(objects, "ResourceFlavor", group["flavors"][0]["name"])
    requests = template(job)["spec"]["containers"][0]["resources"]["requests"]
    assert set(requests) <= set(group["coveredResources"])
    quota = {each["name"]: amount(each["nominalQuota"]) for each in group["flavors"][0]["resources"]}
    total = {key.removeprefix("requests."): amount(value)
             for key, value in one(objects, "ResourceQuota", "training")["spec"]["hard"].items()}  # fmt: skip
    for name, wanted in requests.items():
        assert amount(wanted) <= quota[name] <= total[name], name


def amount(quantity: str) -> float:
    """A quantity of cores, GPUs or GiB."""
    return float(str(quantity).removesuffix("Gi"))


def test_both_namespaces_see_one_registry() -> None:
    objects = overlay("prod")
    shares = {}
    for claim in of_kind(objects, "PersistentVolumeClaim"):
        if claim["metadata"]["name"] == "qrelay-registry":
            volume = one(objects, "PersistentVolume", claim["spec"]["volumeName"])
            bound = {"namespace": claim["metadata"]["namespace"], "name": "qrelay-registry"}
            assert volume["spec"]["claimRef"] == bound
            shares[claim["metadata"]["namespace"]] = json.dumps(volume["spec"]["nfs"], sort_keys=True)
    assert set(shares) == {"qrelay", "qrelay-training"} and len(set(shares.values())) == 1

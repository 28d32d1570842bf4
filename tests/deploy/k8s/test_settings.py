"""What the manifests set is what the services read, and the numbers of both sides fit together."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from qrelay.index.settings import RetrieverSettings
from qrelay.judging.settings import JudgeSettings
from qrelay.runtime.topology import DEAD_LETTER_MARGIN, Queue
from qrelay.services.reranker.settings import RerankerSettings
from tests.deploy.k8s.effective import settings_of
from tests.deploy.k8s.rendering import (
    BESIDE,
    INSTALLATIONS,
    RENDERED,
    SERVICES,
    combined,
    containers,
    generated,
    of_kind,
    one,
    overlay,
    template,
)

MARGIN_S = 20
"""Between drain_s and the grace period: the connection is closed, logs are written, the process ends."""
CPU_SET_S = 60
"""A set of 25 passages on a CPU: what judge.backend's description says ("a minute's work")."""
GPU_SET_S = 1
SEARCH_S, RERANK_S, COMMIT_S = 0.2, 1.5, 0.2
"""A query's search, a query's reranking on a CPU (100 pairs), a set's commit: several times what docs/log.md has."""


def longest_batch_s(service: str, settings: Any, sample: int) -> float:
    """Seconds that everything in a replica's hands may take, by backend; the settings' own limits where there are."""
    sets: int = settings.worker.max_items * settings.worker.batches_in_flight
    if service != "judge":
        return float(sets) * {"retriever": SEARCH_S, "reranker": RERANK_S, "sink": COMMIT_S}[service]
    if settings.backend == "openai":
        waves: int = math.ceil(sets * sample / settings.endpoint.concurrency)
        return waves * float(settings.endpoint.request_timeout_s)
    each_s = GPU_SET_S if settings.backend == "vllm" else CPU_SET_S
    return float(sets * each_s)


def test_installations_are_what_has_a_deployment() -> None:
    assert {name for name, objects in RENDERED.items() if of_kind(objects, "Deployment")} == set(INSTALLATIONS)
    assert set(BESIDE) < set(RENDERED)


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_every_setting_is_one_that_the_service_knows_and_paths_and_ports_are_the_pods(
    name: str, tmp_path: Path
) -> None:
    for service in SERVICES:
        settings: Any = settings_of(INSTALLATIONS[name], service, tmp_path)
        container = containers(one(INSTALLATIONS[name], "Deployment", service))[-1]
        mounted = {each["mountPath"] for each in container["volumeMounts"]}
        ports = {each["name"]: each["containerPort"] for each in container["ports"]}
        assert settings.grpc.bind == f"0.0.0.0:{ports['grpc']}"
        assert settings.telemetry.metrics_bind == f"0.0.0.0:{ports['metrics']}"
        assert str(settings.data_dir) in mounted
        if service != "judge":
            assert str(settings.registry_folder) in mounted
        if service == "retriever":
            assert str(settings.index_folder) in mounted and settings.reembed is False


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_a_pod_has_time_to_drain_and_drains_longer_than_its_longest_batch(name: str, tmp_path: Path) -> None:
    reranker = settings_of(INSTALLATIONS[name], "reranker", tmp_path)
    assert isinstance(reranker, RerankerSettings)
    for service in SERVICES:
        settings = settings_of(INSTALLATIONS[name], service, tmp_path)
        grace = template(one(INSTALLATIONS[name], "Deployment", service))["spec"]["terminationGracePeriodSeconds"]
        drain = settings.worker.drain_s
        assert drain >= longest_batch_s(service, settings, reranker.sample), (service, drain)
        assert grace >= drain + MARGIN_S, (service, grace)


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_nats_is_where_and_as_the_services_expect_it(name: str, tmp_path: Path) -> None:
    objects = INSTALLATIONS[name]
    nats = settings_of(objects, "sink", tmp_path).nats
    servers = one(objects, "StatefulSet", "nats")
    scheme = "tls" if "verify: true" in generated(objects, "nats-config")["tls.conf"] else "nats"
    pods = [f"{scheme}://nats-{n}.{servers['spec']['serviceName']}:4222" for n in range(servers["spec"]["replicas"])]
    assert nats.url.split(",") == pods
    assert nats.replicas == len(pods)
    conf = generated(objects, "nats-config")["nats.conf"]
    assert size(conf, "max_payload") >= nats.max_message_bytes + DEAD_LETTER_MARGIN
    disk = servers["spec"]["volumeClaimTemplates"][0]["spec"]["resources"]["requests"]["storage"]
    room = size(conf, "max_file_store")
    assert len(Queue) * nats.max_stream_bytes <= room < int(disk.removesuffix("Gi")) * 2**30
    mounts = {each["mountPath"] for each in containers(servers)[0]["volumeMounts"]}
    assert text(conf, "store_dir") in mounts
    assert re.findall(r"nats-route://([\w.-]+):6222", conf) == ([] if len(pods) == 1 else [
        each.removeprefix(f"{scheme}://").partition(":")[0] for each in pods])  # fmt: skip


def test_retriever_and_jobs_have_one_milvus(tmp_path: Path) -> None:
    objects = combined(["index-build", "reembed", "milvus"])
    settings = settings_of(objects, "retriever", tmp_path)
    assert isinstance(settings, RetrieverSettings)
    assert (settings.engine, settings.milvus.token_env) == ("milvus", "MILVUS_TOKEN")
    assert settings.milvus.uri == "http://milvus.milvus.svc.cluster.local:19530"
    assert (settings.milvus.shards, settings.milvus.replicas, settings.milvus.consistency) == (2, 2, "Bounded")
    environs = []
    for kind, name in (("Deployment", "retriever"), ("Job", "index-build"), ("CronJob", "index-reembed")):
        container = containers(one(objects, kind, name))[-1]
        token = next(each for each in container["env"] if each["name"] == "MILVUS_TOKEN")
        assert token["valueFrom"]["secretKeyRef"] == {"name": "qrelay-milvus", "key": "token"}
        environs.append({each["configMapRef"]["name"] for each in container["envFrom"]})
    assert all(any(name.startswith("milvus-env-") for name in each) for each in environs)


def test_nats_ends_within_its_grace_period() -> None:
    servers = one(overlay("prod"), "StatefulSet", "nats")
    conf = generated(overlay("prod"), "nats-config")["nats.conf"]
    duration = int(text(conf, "lame_duck_duration").removesuffix("s"))
    hook = containers(servers)[0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook[-1] == f"ldm={text(conf, 'pid_file')}"
    assert template(servers)["spec"]["terminationGracePeriodSeconds"] >= duration + MARGIN_S


def text(conf: str, key: str) -> str:
    """The quoted value of a key in nats.conf."""
    found = re.search(rf'^\s*{key}: "([^"]+)"', conf, re.MULTILINE)
    assert found, key
    return found[1]


def size(conf: str, key: str) -> int:
    """The bytes of a size in nats.conf, whose units are powers of 1024."""
    found = re.search(rf"^\s*{key}: (\d+)([MG])B", conf, re.MULTILINE)
    assert found, key
    return int(found[1]) * {"M": 2**20, "G": 2**30}[found[2]]


@pytest.mark.parametrize("name", ["prod", "base+keda"])
def test_keda_scales_each_service_by_the_lag_of_its_own_stream(name: str) -> None:
    objects = INSTALLATIONS[name]
    scaled = {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "ScaledObject")}
    assert set(scaled) == {*SERVICES}
    monitored = one(objects, "Service", "nats")["spec"]["ports"][-1]["port"]
    for queue in (Queue.QUERIES, Queue.RETRIEVED, Queue.RERANKED, Queue.JUDGED):
        spec = scaled[queue.consumer]
        assert spec["scaleTargetRef"] == {"name": queue.consumer}
        assert {each["type"] for each in spec["triggers"]} == {"nats-jetstream"}
        read = [each["metadata"] for each in spec["triggers"]]
        lanes = [(lane.stream, lane.consumer) for lane in queue.lanes]
        assert [(each["stream"], each["consumer"]) for each in read] == lanes
        named = [each["name"] for each in spec["triggers"]]
        assert spec["advanced"]["scalingModifiers"]["formula"] == " + ".join(named)
        assert not [name for name in named for each in named if each != name and each.startswith(name)]
        asked = {each["natsServerMonitoringEndpoint"] for each in read}
        assert asked == {f"nats.qrelay.svc.cluster.local:{monitored}"}
        assert {each["account"] for each in read} == {"$G"}  # of a server without accounts
        assert "replicas" not in one(objects, "Deployment", queue.consumer)["spec"]


@pytest.mark.parametrize("name", ["prod", "base+keda"])
def test_replicas_by_lag_have_enough_in_hand_and_stay_below_what_jetstream_hands_out(
    name: str, tmp_path: Path
) -> None:
    for each in of_kind(INSTALLATIONS[name], "ScaledObject"):
        settings = settings_of(INSTALLATIONS[name], each["metadata"]["name"], tmp_path)
        held = settings.worker.max_items * settings.worker.batches_in_flight
        spec = each["spec"]
        assert int(spec["advanced"]["scalingModifiers"]["target"]) >= 2 * held
        assert spec["maxReplicaCount"] * held * 2 <= settings.nats.max_ack_pending
        assert spec["minReplicaCount"] <= spec["fallback"]["replicas"] <= spec["maxReplicaCount"]


def test_the_judge_alone_scales_to_zero_and_waits_longer_than_its_model_takes_to_load() -> None:
    scaled = {each["metadata"]["name"]: each["spec"] for each in of_kind(overlay("prod"), "ScaledObject")}
    assert {name: spec["minReplicaCount"] for name, spec in scaled.items()} == {
        "retriever": 1, "reranker": 1, "judge": 0, "sink": 1}  # fmt: skip
    assert scaled["judge"]["advanced"]["scalingModifiers"]["activationTarget"] == "0"
    assert scaled["judge"]["cooldownPeriod"] >= 900


def test_what_pods_pull_is_what_their_settings_name(tmp_path: Path) -> None:
    for objects in INSTALLATIONS.values():
        judge = settings_of(objects, "judge", tmp_path)
        assert isinstance(judge, JudgeSettings)
        pulling = template(one(objects, "Deployment", "judge"))["spec"].get("initContainers", [])
        pulled = [word for each in pulling for word in each["args"][2:]]
        assert pulled == ([] if judge.backend == "openai" else [judge.model])
        for service, field in (("retriever", "embedder"), ("reranker", "bi_encoder")):
            settings = settings_of(objects, service, tmp_path)
            (pull,) = template(one(objects, "Deployment", service))["spec"]["initContainers"]
            assert pull["args"][2:] == [getattr(settings, field)]


def test_a_change_of_settings_rolls_the_pods() -> None:
    named = [each["metadata"]["name"] for each in of_kind(overlay("prod"), "ConfigMap")]
    hashed = [name for name in named if re.fullmatch(r"[\w-]+-[a-z0-9]{10}", name)]
    assert sorted({*named} - {*hashed}) == ["qrelay-dashboard", "trainer-config"]
    for service in SERVICES:
        used = yaml.safe_dump(template(one(overlay("prod"), "Deployment", service)))
        config = {name for name in hashed if name.startswith(("qrelay-config", "qrelay-env", f"{service}-env"))}
        assert len(config) == 3 and all(name in used for name in config)


def test_the_cache_of_the_judges_is_shared_where_there_is_a_database(tmp_path: Path) -> None:
    for name, shared in (("dev", True), ("prod", True), ("local", False)):
        settings = settings_of(overlay(name), "judge", tmp_path)
        assert isinstance(settings, JudgeSettings)
        assert settings.cache_path.startswith("postgresql://") is shared


def test_with_a_ledger_in_a_file_there_is_one_sink_and_the_old_one_goes_first() -> None:
    sink = one(combined(["sqlite"]), "Deployment", "sink")["spec"]
    assert sink["replicas"] == 1 and sink["strategy"] == {"type": "Recreate"}
    volumes = {each["name"]: each for each in sink["template"]["spec"]["volumes"]}
    assert volumes["state"] == {"name": "state", "persistentVolumeClaim": {"claimName": "sink-state"}}

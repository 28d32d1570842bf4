"""Pods reach what they need and nothing else; the sink may do in the cluster what its launcher calls, and no more."""

from __future__ import annotations

import os
import shutil
from itertools import product
from pathlib import Path

import pytest

from qrelay.jobs.kubernetes_api import VERBS
from tests.deploy.k8s.reach import Peer, admits, outside_ports, reaches
from tests.deploy.k8s.rendering import (
    K8S,
    RENDERED,
    SERVICES,
    WORKLOADS,
    Object,
    combined,
    containers,
    identity,
    of_kind,
    one,
    overlay,
    parsed,
    render,
    template,
)

GRPC = dict(zip(SERVICES, (7401, 7402, 7403, 7404), strict=True))
METRICS = dict(zip(SERVICES, (7411, 7412, 7413, 7414), strict=True))
PROBES = (7421, 7422, 7423, 7424)
PORTS = (4222, 5432, 6222, 7405, 7415, 8222, *GRPC.values(), *METRICS.values())
POSTGRES_CLIENTS = {("judge", "postgres", 5432), ("sink", "postgres", 5432)}
QUEUE = {(each, "nats", 4222) for each in SERVICES}
CLUSTER = {("nats", "nats", 6222)}
TRAINER = Peer.of("qrelay-training", name="qrelay-trainer")


def peer(workload: Object) -> Peer:
    """A workload's pods."""
    labels = template(workload)["metadata"]["labels"]
    return Peer(workload["metadata"]["namespace"], frozenset(labels.items()))


def allowed(objects: list[Object]) -> set[tuple[str, str, int]]:
    """(from, to, port) of every connection between pods that the policies let through, in the namespace qrelay."""
    pods = {each["metadata"]["name"]: peer(each) for each in of_kind(objects, *WORKLOADS)
            if each["metadata"]["namespace"] == "qrelay"}  # fmt: skip
    return {
        (source, target, port)
        for (source, a), (target, b), port in product(pods.items(), pods.items(), PORTS)
        if reaches(objects, a, b, port)
    }


@pytest.mark.parametrize("name", RENDERED)
def test_every_namespace_with_pods_denies_everything_first(name: str) -> None:
    objects = RENDERED[name]
    if not of_kind(objects, "Namespace"):
        return  # an overlay of one Job, in a namespace that another overlay makes
    for namespace in {each["metadata"]["namespace"] for each in of_kind(objects, *WORKLOADS)}:
        denials = [
            each
            for each in of_kind(objects, "NetworkPolicy")
            if each["metadata"]["namespace"] == namespace and each["spec"]["podSelector"] == {}
            and set(each["spec"]["policyTypes"]) == {"Ingress", "Egress"}
            and not each["spec"].get("ingress") and not each["spec"].get("egress")
        ]  # fmt: skip
        assert denials, namespace


def test_in_dev_services_reach_nats_and_the_ledger_and_not_each_other() -> None:
    assert allowed(overlay("dev")) == QUEUE | CLUSTER | POSTGRES_CLIENTS


def test_in_local_the_console_reaches_nats_and_the_services_and_nobody_reaches_it() -> None:
    calls = {("console", name, port) for name, port in GRPC.items()} | {("console", "nats", 4222)}
    assert allowed(overlay("local")) == QUEUE | CLUSTER | calls


def test_in_prod_no_pod_reaches_more_than_nats_inside_the_cluster() -> None:
    assert allowed(overlay("prod")) == QUEUE | CLUSTER


def test_in_prod_the_console_is_a_line_to_uncomment_and_then_nobody_reaches_it(tmp_path: Path) -> None:
    folder = shutil.copytree(K8S / "overlays" / "prod", tmp_path / "prod")
    file = folder / "kustomization.yaml"
    told, left_out = file.read_text(), "  # - ../../components/console\n"
    assert told.count(left_out) == 1
    told = told.replace(left_out, left_out.replace("# ", ""))
    file.write_text(told.replace("../../", f"{os.path.relpath(K8S, folder.resolve())}/"))
    objects = list(parsed(render(folder)))
    calls = {("console", name, port) for name, port in GRPC.items()} | {("console", "nats", 4222)}
    assert allowed(objects) == QUEUE | CLUSTER | calls
    (container,) = containers(one(objects, "Deployment", "console"))
    assert container["image"].startswith("registry.example/qrelay-console@sha256:")


def test_only_a_labelled_pod_may_call_a_service() -> None:
    objects = overlay("prod")
    client, other = Peer.of("qrelay", name="x", client="true"), Peer.of("qrelay", name="x")
    foreign = Peer.of("default", name="x", client="true")
    services = {each["metadata"]["name"]: peer(each) for each in of_kind(objects, "Deployment")}
    for name, port in GRPC.items():
        assert reaches(objects, client, services[name], port)
        assert not reaches(objects, client, services[name], METRICS[name])
        assert not admits(objects, other, services[name], port)
        assert not admits(objects, foreign, services[name], port)
    nats = peer(one(objects, "StatefulSet", "nats"))
    assert not any(admits(objects, each, nats, port) for each in (other, foreign) for port in PORTS)


def test_no_pod_reaches_the_ports_for_probes() -> None:
    objects = combined(["console", "feed", "telemetry", "tls"])
    pods = {each["metadata"]["name"]: peer(each) for each in of_kind(objects, *WORKLOADS)}
    others = [Peer.of("qrelay", name="x", client="true", nats="true"), Peer.of("monitoring", name="prometheus")]
    for source, name, port in product([*pods.values(), *others], SERVICES, PROBES):
        assert not reaches(objects, source, pods[name], port), (source, name, port)


def test_only_what_searches_or_loads_reaches_milvus() -> None:
    objects = combined(["index-build", "reembed", "milvus"])
    milvus = Peer.of("milvus", name="milvus")
    clients = {
        each["metadata"]["name"]
        for each in of_kind(objects, *WORKLOADS)
        if reaches(objects, peer(each), milvus, 19530)
    }
    assert clients == {"retriever", "index-build", "index-reembed"}
    assert not reaches(objects, Peer.of("qrelay", name="retriever"), Peer.of("milvus", name="etcd"), 19530)
    assert not reaches(combined(["index-build"]), Peer.of("qrelay", name="retriever"), milvus, 19530)


def test_the_feeder_reaches_nats_and_the_sink() -> None:
    objects = combined(["feed"])
    from_feed = {(target, port) for source, target, port in allowed(objects) if source == "feed"}
    assert from_feed == {("nats", 4222), ("sink", GRPC["sink"])}


def test_monitoring_reaches_metrics_and_keda_reaches_nats_only_where_their_component_is() -> None:
    prometheus, keda = Peer.of("monitoring", name="prometheus"), Peer.of("keda", name="keda-operator")
    for name, there in (("prod", True), ("local", False)):
        objects = overlay(name)
        pods = {each["metadata"]["name"]: peer(each) for each in of_kind(objects, "Deployment", "StatefulSet")}
        assert [reaches(objects, prometheus, pods[each], METRICS[each]) for each in SERVICES] == [there] * 4
        assert reaches(objects, keda, pods["nats"], 8222) is there
        assert not reaches(objects, keda, pods["nats"], 4222)


def test_a_trainer_reaches_the_ledger_and_no_service() -> None:
    objects = combined(["training", "postgres"])
    pods = {each["metadata"]["name"]: peer(each) for each in of_kind(objects, *WORKLOADS)}
    found = {(name, port) for name, pod in pods.items() for port in PORTS if reaches(objects, TRAINER, pod, port)}
    assert found == {("postgres", 5432)}
    assert outside_ports(objects, TRAINER) == set()


@pytest.mark.parametrize("name", RENDERED)
def test_only_what_needs_the_outside_reaches_it(name: str) -> None:
    objects = RENDERED[name]
    training = any(each["metadata"]["name"] == "sink-launcher" for each in of_kind(objects, "NetworkPolicy"))
    for each in of_kind(objects, "Deployment", "StatefulSet"):
        expected = {443} if template(each)["spec"].get("initContainers") else set()  # it pulls models
        own = each["metadata"]["name"]
        expected |= {443} if (name, own) == ("base+openai-judge", "judge") else set()
        expected |= {5432} if name == "prod" and own in ("judge", "sink") else set()
        expected |= {443, 6443} if training and own == "sink" else set()
        assert outside_ports(objects, peer(each)) == expected, identity(each)


@pytest.mark.parametrize("name", RENDERED)
def test_the_only_right_in_the_cluster_is_what_the_launcher_calls(name: str) -> None:
    roles = of_kind(RENDERED[name], "Role", "ClusterRole")
    bindings = of_kind(RENDERED[name], "RoleBinding", "ClusterRoleBinding")
    if name not in ("prod", "base+training", "base+kueue", "base+external-secrets-training"):
        assert not roles and not bindings
        return
    (role,), (binding,) = roles, bindings
    granted = {
        (group, resource): tuple(rule["verbs"])
        for rule in role["rules"] for group in rule["apiGroups"] for resource in rule["resources"]
    }  # fmt: skip
    assert granted == {key: tuple(sorted(verbs)) for key, verbs in VERBS.items()}
    assert role["kind"] == "Role" and role["metadata"]["namespace"] == "qrelay-training"
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    assert binding["subjects"] == [{"kind": "ServiceAccount", "name": "sink", "namespace": "qrelay"}]

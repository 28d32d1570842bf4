"""Every rendered workload is hardened, probed, budgeted, and refers only to what exists."""

from __future__ import annotations

import re

import click
import pytest

from qrelay.cli.main import qrelay
from qrelay.runtime.natsaccounts import User
from qrelay.runtime.server import LIVENESS
from tests.deploy.k8s.rendering import (
    BESIDE,
    RENDERED,
    ROOT,
    SERVICES,
    WORKLOADS,
    Object,
    containers,
    identity,
    of_kind,
    one,
    overlay,
    template,
)

SERVING = ("Deployment", "StatefulSet")
OUTSIDE = {
    ("Secret", "qrelay-ledger"),
    ("Secret", "qrelay-milvus"),
    ("PersistentVolumeClaim", "qrelay-corpus"),
    ("Secret", "nats-accounts"),
    *(("Secret", f"nats-seed-{user}") for user in User),
}
"""What people make (docs/kubernetes.md), or an overlay beside this one."""
SLOWEST_START_S = {
    "nats": 300,
    "postgres": 120,
    "retriever": 300,
    "reranker": 300,
    "judge": 300,
    "sink": 120,
    "console": 60,
}
"""Seconds that a start may take: models fetched and loaded, a large store recovered, a GGUF converted."""
VLLM_START_S = 1500
"""As a judge that runs vLLM may: its own limit of 900 s (qrelay/llm/vllm.py), after fetching weights."""

pytestmark = pytest.mark.parametrize("name", RENDERED)


def workloads(name: str, *kinds: str) -> list[Object]:
    """The workloads of a rendering."""
    return of_kind(RENDERED[name], *(kinds or WORKLOADS))


def memory(quantity: str) -> float:
    """Bytes of a quantity such as 512Mi."""
    number, unit = re.fullmatch(r"([\d.]+)([KMG]i)?", quantity).groups()  # type: ignore[union-attr]
    return float(number) * {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, None: 1}[unit]


def test_every_pod_obeys_the_restricted_standard(name: str) -> None:
    for each in workloads(name):
        pod = template(each)["spec"]["securityContext"]
        assert pod["runAsNonRoot"] is True and pod["runAsUser"] > 0, identity(each)
        assert pod["seccompProfile"] == {"type": "RuntimeDefault"}, identity(each)
        assert pod["fsGroup"] == pod["runAsUser"], identity(each)
        for container in containers(each):
            own = container["securityContext"]
            assert own["allowPrivilegeEscalation"] is False, identity(each)
            assert own["readOnlyRootFilesystem"] is True, identity(each)
            assert own["capabilities"] == {"drop": ["ALL"]}, identity(each)
    for each in of_kind(RENDERED[name], "Namespace"):
        assert each["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_container_asks_for_what_it_needs_and_is_limited_in_memory(name: str) -> None:
    for each in workloads(name):
        for container in containers(each):
            resources = container["resources"]
            assert {"cpu", "memory"} <= set(resources["requests"]), identity(each)
            assert memory(resources["requests"]["memory"]) <= memory(resources["limits"]["memory"]), identity(each)


def test_every_server_has_three_probes_on_ports_that_it_opens(name: str) -> None:
    for each in workloads(name, *SERVING):
        (container,) = template(each)["spec"]["containers"]
        ports = {port["containerPort"] for port in container["ports"]}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container[kind]
            given = [probe[how]["port"] for how in ("grpc", "httpGet", "tcpSocket") if how in probe]
            assert set(given) <= ports and (given or "exec" in probe), (identity(each), kind)


def test_grpc_probes_ask_for_the_model_at_the_start_and_for_the_process_alone_later(name: str) -> None:
    for each in workloads(name, "Deployment"):
        (container,) = template(each)["spec"]["containers"]
        if each["metadata"]["name"] == "console":
            continue  # it answers HTTP, on its loopback alone
        asked = [container[kind]["grpc"]["service"] for kind in ("startupProbe", "readinessProbe", "livenessProbe")]
        assert asked == ["", "", LIVENESS], identity(each)


def test_the_startup_probe_waits_for_the_slowest_start(name: str) -> None:
    for each in workloads(name, *SERVING):
        (container,) = template(each)["spec"]["containers"]
        probe = container["startupProbe"]
        slowest = VLLM_START_S if "vllm" in container["image"] else SLOWEST_START_S[each["metadata"]["name"]]
        assert probe["failureThreshold"] * probe["periodSeconds"] >= slowest, identity(each)


def test_every_server_has_a_disruption_budget_of_its_own(name: str) -> None:
    for each in workloads(name, *SERVING):
        labels = template(each)["metadata"]["labels"]
        budgets = [
            budget
            for budget in of_kind(RENDERED[name], "PodDisruptionBudget")
            if budget["spec"]["selector"]["matchLabels"].items() <= labels.items()
        ]
        assert len(budgets) == 1, identity(each)
        assert budgets[0]["spec"]["maxUnavailable"] in (1, "100%")


def test_every_workload_has_a_service_account_of_its_own_without_a_token(name: str) -> None:
    bound = {
        (subject["namespace"], subject["name"])
        for binding in of_kind(RENDERED[name], "RoleBinding", "ClusterRoleBinding")
        for subject in binding["subjects"]
    }
    used = []
    for each in workloads(name):
        spec, namespace = template(each)["spec"], each["metadata"]["namespace"]
        account = one(RENDERED[name], "ServiceAccount", spec["serviceAccountName"])
        assert account["automountServiceAccountToken"] is False
        assert spec["automountServiceAccountToken"] is ((namespace, spec["serviceAccountName"]) in bound)
        used.append((namespace, spec["serviceAccountName"]))
    assert len(used) == len(set(used))


def test_selectors_and_services_find_their_pods_and_ports(name: str) -> None:
    servers = workloads(name, *SERVING)
    for each in servers:
        assert each["spec"]["selector"]["matchLabels"].items() <= template(each)["metadata"]["labels"].items()
    for service in of_kind(RENDERED[name], "Service"):
        assert service["spec"]["clusterIP"] == "None"  # gRPC balances its calls itself, over every address
        (pods,) = [
            template(each)
            for each in servers
            if service["spec"]["selector"].items() <= template(each)["metadata"]["labels"].items()
        ]
        (container,) = pods["spec"]["containers"]
        opened = {(port["name"], port["containerPort"]) for port in container["ports"]}
        probes = {each for each in opened if each[0] == "probe"}  # the kubelet's alone
        assert {(port["name"], port["targetPort"]) for port in service["spec"]["ports"]} == opened - probes


def test_whatever_a_pod_refers_to_exists(name: str) -> None:
    for each in workloads(name):
        wanted = {*references(each)}
        there = {(found["kind"], found["metadata"]["name"]) for found in RENDERED[name]
                 if found["metadata"].get("namespace") == each["metadata"]["namespace"]}  # fmt: skip
        there |= made_secrets(RENDERED[name], each["metadata"]["namespace"])
        if name in BESIDE:
            there |= {(found["kind"], found["metadata"]["name"]) for found in overlay("prod")}
        assert wanted - there - OUTSIDE == set(), identity(each)


def made_secrets(objects: list[Object], namespace: str) -> set[tuple[str, str]]:
    """The Secrets that operators make of what is here."""
    found = [each["spec"] for each in of_kind(objects, "Certificate", "ExternalSecret")
             if each["metadata"]["namespace"] == namespace]  # fmt: skip
    return {("Secret", spec["secretName"] if "secretName" in spec else spec["target"]["name"]) for spec in found}


def references(workload: Object) -> list[tuple[str, str]]:
    """(kind, name) of what a workload's pods name."""
    spec = template(workload)["spec"]
    found = []
    for volume in spec.get("volumes", []):
        for kind, key, name in (("ConfigMap", "configMap", "name"), ("Secret", "secret", "secretName"),
                                ("PersistentVolumeClaim", "persistentVolumeClaim", "claimName")):  # fmt: skip
            found += [(kind, volume[key][name])] if key in volume else []
    for container in containers(workload):
        found += [("ConfigMap", each["configMapRef"]["name"]) for each in container.get("envFrom", [])]
        for each in container.get("env", []):
            if "secretKeyRef" in each.get("valueFrom", {}):
                found.append(("Secret", each["valueFrom"]["secretKeyRef"]["name"]))
    return found


def test_every_mounted_volume_is_there_and_every_volume_is_mounted(name: str) -> None:
    for each in workloads(name):
        volumes = [volume["name"] for volume in template(each)["spec"].get("volumes", [])]
        volumes += [claim["metadata"]["name"] for claim in each["spec"].get("volumeClaimTemplates", [])]
        mounted = {mount["name"] for container in containers(each) for mount in container["volumeMounts"]}
        assert sorted(volumes) == sorted(mounted), identity(each)
        for container in containers(each):
            assert "/tmp" in [mount["mountPath"] for mount in container["volumeMounts"]], identity(each)


def test_only_what_writes_a_shared_volume_may_write_to_it(name: str) -> None:
    writers = {"index": {"index-build", "index-reembed"}, "registry": {"sink"}, "config": set(), "corpus": set()}
    for each in workloads(name):
        for container in containers(each):
            for mount in container["volumeMounts"]:
                allowed = writers.get(mount["name"])
                if allowed is not None and container["name"] not in allowed:
                    assert mount.get("readOnly") is True, (identity(each), mount)


def test_images_are_those_that_deploy_docker_builds_and_others_are_pinned(name: str) -> None:
    recipes = {path.name.removesuffix(".Dockerfile") for path in (ROOT / "deploy" / "docker").glob("*.Dockerfile")}
    assert {*SERVICES, "trainer", "console"} <= recipes
    ours = {f"qrelay-{recipe}" for recipe in recipes} | {"qrelay-judge-vllm"}
    compose = "".join(path.read_text("utf8") for path in (ROOT / "deploy" / "docker").glob("compose*.yaml"))
    for each in workloads(name):
        for container in containers(each):
            image = container["image"]
            short = image.partition("@")[0].rpartition("/")[2].partition(":")[0]
            if short.startswith("qrelay"):
                assert short in ours, image
                assert container["command"] == ["qrelay"]
            else:
                assert re.fullmatch(r"[a-z]+:[\w.-]+@sha256:[0-9a-f]{64}", image) and image in compose, image


def test_commands_are_commands_of_qrelay_with_their_options(name: str) -> None:
    for each in workloads(name):
        for container in containers(each):
            if container.get("command") == ["qrelay"]:
                parse(container["args"])


def parse(arguments: list[str]) -> None:
    """Find the command and check its options; arguments that name files of the container are not looked at."""
    command: click.Command = qrelay
    words = list(arguments)
    context = click.Context(command)
    while isinstance(command, click.Group):
        found = command.get_command(context, words.pop(0))
        assert found is not None, arguments
        command = found
    known = {option for parameter in command.params for option in parameter.opts}
    used = {word.partition("=")[0] for word in words if word.startswith("-")}
    assert used <= known, (arguments, used - known)
    if command.name == "serve":
        assert words[0] in SERVICES


def test_servers_are_spread_over_nodes_where_there_are_several(name: str) -> None:
    if name.startswith("local") or name == "base+nats-single":
        return  # one node, or one server
    for each in workloads(name, "Deployment"):
        keys = [spread["topologyKey"] for spread in template(each)["spec"]["topologySpreadConstraints"]]
        assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"], identity(each)
    for each in workloads(name, "StatefulSet"):
        if each["spec"]["replicas"] > 1:
            affinity = template(each)["spec"]["affinity"]["podAntiAffinity"]
            assert affinity["requiredDuringSchedulingIgnoredDuringExecution"], identity(each)

"""Every object has the labels that Kubernetes recommends, and nothing that cannot be changed has a new one."""

from __future__ import annotations

import pytest

from qrelay import __version__
from tests.deploy.k8s.rendering import INSTALLATIONS, RENDERED, containers, identity, of_kind, one, overlay

RECOMMENDED = ("name", "instance", "version", "component", "part-of", "managed-by")
EVERYWHERE = {"instance": "qrelay", "part-of": "qrelay", "managed-by": "kustomize"}
CLAIMS = {"nats": [{"app.kubernetes.io/part-of": "qrelay"}, {}], "postgres": [{}]}
"""Labels of a StatefulSet's claims, as they were from the start: with three servers and with one."""


def own(labels: dict[str, str]) -> dict[str, str]:
    """The recommended labels among these, by their last part."""
    prefix = "app.kubernetes.io/"
    return {key.removeprefix(prefix): value for key, value in labels.items() if key.startswith(prefix)}


@pytest.mark.parametrize("name", RENDERED)
def test_every_object_has_every_recommended_label(name: str) -> None:
    for each in RENDERED[name]:
        labels = own(each["metadata"].get("labels", {}))
        assert set(labels) == {*RECOMMENDED}, identity(each)
        assert labels.items() >= EVERYWHERE.items(), identity(each)


@pytest.mark.parametrize("name", INSTALLATIONS)
def test_a_selector_asks_for_the_name_alone_and_pods_have_what_does_not_change_with_a_release(name: str) -> None:
    for each in of_kind(RENDERED[name], "Deployment", "StatefulSet"):
        mine = each["metadata"]["name"]
        assert each["spec"]["selector"] == {"matchLabels": {"app.kubernetes.io/name": mine}}
        assert set(own(each["spec"]["template"]["metadata"]["labels"])) == {*RECOMMENDED} - {"version"}
    for each in of_kind(RENDERED[name], "Job"):
        assert set(own(each["spec"]["template"]["metadata"]["labels"])) <= {"name", "part-of"}, identity(each)
    for each in of_kind(RENDERED[name], "StatefulSet"):
        for claim in each["spec"]["volumeClaimTemplates"]:
            assert claim["metadata"].get("labels", {}) in CLAIMS[each["metadata"]["name"]]


def test_versions_are_those_of_the_package_and_of_the_images() -> None:
    for each in (one(overlay("prod"), "Deployment", "judge"), one(overlay("prod"), "ConfigMap", "qrelay-dashboard")):
        assert own(each["metadata"]["labels"])["version"] == __version__
    for objects, name in ((overlay("prod"), "nats"), (overlay("dev"), "postgres")):
        server = one(objects, "StatefulSet", name)
        tag = containers(server)[-1]["image"].partition("@")[0].rpartition(":")[2]
        assert own(server["metadata"]["labels"])["version"] == tag.removesuffix("-alpine")


def test_kube_prometheus_stack_selects_monitors_and_rules() -> None:
    found = of_kind(overlay("prod"), "ServiceMonitor", "PrometheusRule")
    assert {each["metadata"]["labels"]["release"] for each in found} == {"kube-prometheus-stack"}

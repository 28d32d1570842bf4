"""Where the component `tls` is, every process shows a certificate of its own and nothing is reached in plain text."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.k8s.effective import settings_of
from tests.deploy.k8s.rendering import SERVICES, Object, combined, containers, generated, of_kind, one, template

FULL = ("console", "postgres", "index-build", "telemetry", "feed", "tls", "feed-tls",
        "../overlays/prod/settings")  # fmt: skip
PEOPLE = ("feed", "nats-declare")
"""Jobs that ask as a person would."""
PROCESSES = (*SERVICES, "console", "nats", "postgres", *PEOPLE)


@pytest.fixture(scope="module")
def objects() -> list[Object]:
    return combined(FULL)


def certificates(objects: list[Object]) -> dict[str, Object]:
    """Those of processes, by name."""
    return {each["metadata"]["name"]: each["spec"] for each in of_kind(objects, "Certificate")
            if not each["spec"].get("isCA")}  # fmt: skip


def test_every_process_has_a_certificate_in_its_own_name_and_mounts_no_other(objects: list[Object]) -> None:
    found = certificates(objects)
    assert set(found) == {*PROCESSES, "metrics"}
    for workload in of_kind(objects, "Deployment", "StatefulSet", "Job"):
        name = workload["metadata"]["name"]
        mounted = [each["secret"]["secretName"] for each in template(workload)["spec"]["volumes"] if "secret" in each]
        assert mounted == ([found[name]["secretName"]] if name in found else []), name
    for name, spec in found.items():
        kind = "person" if name in PEOPLE else "service"
        assert spec["uris"] == [f"spiffe://qrelay/{kind}/{name}"]
        assert spec["issuerRef"] == {"kind": "Issuer", "name": "qrelay"}
        assert ("server auth" in spec["usages"]) is bool(spec.get("dnsNames")), name


def test_a_certificate_holds_for_every_name_that_clients_use(objects: list[Object]) -> None:
    found = certificates(objects)
    env = generated(objects, "console-env") | generated(objects, "qrelay-env")
    for name in SERVICES:
        assert (
            env[f"QRELAY_CONSOLE__{name.upper()}"].removeprefix("dns:///").partition(":")[0]
            in found[name]["dnsNames"]
        )
    for address in env["QRELAY_ALL__NATS__URL"].split(","):
        assert address.removeprefix("tls://").partition(":")[0] in found["nats"]["dnsNames"]
    (job,) = [each for each in of_kind(objects, "Job") if each["metadata"]["name"] == "feed"]
    (feed,) = containers(job)
    assert "--nats=tls://nats:4222" in feed["args"] and "nats" in found["nats"]["dnsNames"]
    for monitor in of_kind(objects, "ServiceMonitor"):
        (endpoint,) = monitor["spec"]["endpoints"]
        name = monitor["metadata"]["name"]
        assert endpoint["scheme"] == "https" and endpoint["tlsConfig"]["serverName"] in found[name]["dnsNames"]


@pytest.mark.parametrize("service", [*SERVICES])
def test_a_service_lets_no_plain_text_out(service: str, objects: list[Object], tmp_path: Path) -> None:
    settings = settings_of(objects, service, tmp_path)
    assert settings.tls.enabled and not settings.insecure
    assert settings.telemetry.otlp_endpoint.startswith("https://")
    (container,) = template(one(objects, "Deployment", service))["spec"]["containers"]
    assert settings.tls.certificate is not None
    assert str(settings.tls.certificate.parent) in [each["mountPath"] for each in container["volumeMounts"]]
    assert settings.tls.probe_bind == f"0.0.0.0:{container['readinessProbe']['grpc']['port']}"


def test_nats_takes_nobody_without_a_certificate(objects: list[Object]) -> None:
    config = generated(objects, "nats-config")
    assert config["nats.conf"].count('include "tls.conf"') == 2  # of clients, and between servers
    assert "verify: true" in config["tls.conf"]

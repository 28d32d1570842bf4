"""The settings that a rendered service would load."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

from qrelay.cli.serve import load_definition
from qrelay.config import ServiceSettings
from qrelay.settings import load_settings
from tests.deploy.k8s.kubelet import Node, pods_of
from tests.deploy.k8s.rendering import Object, generated, one

SECRETS = {
    "qrelay-ledger": {"url": "postgresql://qrelay@postgres/qrelay", "password": "x"},
    "qrelay-judge-key": {"api-key": "k"},
    "qrelay-milvus": {"token": "t"},
}
"""What people make, where the overlay does not."""


def settings_of(objects: list[Object], service: str, folder: Path) -> ServiceSettings:
    """The settings that the service would load from its ConfigMap and environment."""
    made = [{"kind": "Secret", "metadata": {"name": name}, "stringData": data} for name, data in SECRETS.items()]
    (pod, *_) = pods_of(Node(folder, [*objects, *made]), one(objects, "Deployment", service))
    (container,) = pod.spec["containers"]
    environ = pod.environment(container)
    file = folder / "qrelay.yaml"
    file.write_text(generated(objects, "qrelay-config")["qrelay.yaml"], "utf8")
    mounted = [each["mountPath"] for each in container["volumeMounts"]]
    assert str(Path(environ.pop("QRELAY_CONFIG")).parent) in mounted
    ours = {name for name in environ if name.startswith("QRELAY_")}
    read = {name for name in ours if name.startswith(("QRELAY_ALL__", f"QRELAY_{service.upper()}__"))}
    assert ours - read <= {"QRELAY_DATA_DIR", "QRELAY_MODELS_DIR"}
    of_libpq = {name: value for name, value in environ.items() if name.startswith("PG")}
    with mock.patch.dict(os.environ, of_libpq):  # which settings of a database's address depend on
        loaded: ServiceSettings = load_settings(
            load_definition(service).settings, service, file=file, environ=environ
        )
    return loaded

"""The three NATS servers of `prod`, run as rendered, are a cluster that outlives the orderly end of one."""

from __future__ import annotations

from pathlib import Path

from tests.deploy.k8s.cluster_run import BATCH
from tests.deploy.k8s.namespaces import run_inside
from tests.deploy.k8s.rendering import K8S, render


def test_a_server_is_replaced_and_every_message_is_there_once(tmp_path: Path) -> None:
    (tmp_path / "installation.yaml").write_text(render(K8S / "overlays" / "prod"), "utf8")
    found = run_inside("tests.deploy.k8s.cluster_run", tmp_path, "ip", "link", "add", "pods", "type", "bridge")
    assert set(found["ready_s"]) == {"nats-0", "nats-1", "nats-2"}
    assert found["exits"] == {"nats": 0}
    assert found["held"] == 4 * BATCH

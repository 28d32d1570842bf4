"""The rendered overlay `local`, run: every container's exact command, probed as the manifest says, from the corpus to
labels, and down again within the grace periods."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qrelay.models.home import models_dir
from tests.deploy.k8s.namespaces import run_inside
from tests.deploy.k8s.rendering import K8S, render


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("how", ["", "-tls"])
def test_the_local_overlay_runs_as_rendered_and_gives_labels(how: str, tmp_path: Path) -> None:
    (tmp_path / "installation.yaml").write_text(render(K8S / "overlays" / f"local{how}"), "utf8")
    (tmp_path / "feeder.yaml").write_text(render(K8S / "overlays" / f"local-feed{how}"), "utf8")
    (tmp_path / "claims.json").write_text(json.dumps({"qrelay-models": str(models_dir())}), "utf8")
    found = run_inside("tests.deploy.k8s.local_run", tmp_path, "mount", "-t", "tmpfs", "tmpfs", "/srv")
    assert found["fed"] == {"accepted": 4, "known": 0, "rejected": {}, "committed": 4, "dead": 0}
    judged = {line.split()[0] for line in found["qrels"]}
    assert judged == {"q1", "q2", "q3", "q4"}
    assert len(found["qrels"]) > len(judged)
    assert found["counted"] == [["docs", 4]]  # by the console, over HTTP, in the sink's file
    assert set(found["ready_s"]) == {"nats-0", "retriever-0", "reranker-0", "judge-0", "sink-0", "console-0"}
    assert found["outside"] == []  # no packet left for another machine
    assert found["heard"] == ["udp 192.0.2.1:9"]  # and one would have been noticed
    codes = {(pod, name): code for pod, each in found["exits"].items() for name, code in each.items()}
    assert codes == {(pod, pod.rpartition("-")[0]): 0 for pod in found["ready_s"]}

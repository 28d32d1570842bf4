"""The rendered overlay `local`, run: every container's exact command, probed as the manifest says, from the corpus to
labels, and down again within the grace periods."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from qrelay.models.home import models_dir
from tests.deploy.k8s.local_run import NAMESPACES
from tests.deploy.k8s.rendering import K8S, ROOT, render

_UNSHARE = ["unshare", *NAMESPACES]


def _needs_namespaces() -> None:
    """Skip where the machine's kernel forbids unprivileged user namespaces: there is no other way to give each
    container its own file system."""
    if not shutil.which("unshare"):
        pytest.skip("no unshare(1) on this machine: install util-linux")
    trial = subprocess.run([*_UNSHARE, "mount", "-t", "tmpfs", "tmpfs", "/srv"], capture_output=True, text=True)
    if trial.returncode:
        pytest.skip(f"no user namespaces on this machine: {trial.stderr.strip()}")


@pytest.mark.timeout(600)
def test_the_local_overlay_runs_as_rendered_and_gives_labels(tmp_path: Path) -> None:
    _needs_namespaces()
    (tmp_path / "installation.yaml").write_text(render(K8S / "overlays" / "local"), "utf8")
    (tmp_path / "feeder.yaml").write_text(render(K8S / "overlays" / "local-feed"), "utf8")
    (tmp_path / "claims.json").write_text(json.dumps({"qrelay-models": str(models_dir())}), "utf8")
    done = subprocess.run(
        [*_UNSHARE, sys.executable, "-m", "tests.deploy.k8s.local_run", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert "broken" not in found, found.get("broken")
    assert found["fed"] == {"accepted": 4, "known": 0, "rejected": {}, "committed": 4, "dead": 0}
    judged = {line.split()[0] for line in found["qrels"]}
    assert judged == {"q1", "q2", "q3", "q4"}
    assert len(found["qrels"]) > len(judged)
    assert set(found["ready_s"]) == {"nats-0", "retriever-0", "reranker-0", "judge-0", "sink-0"}
    codes = {(pod, name): code for pod, each in found["exits"].items() for name, code in each.items()}
    assert codes == {(pod, pod.rpartition("-")[0]): 0 for pod in found["ready_s"]}

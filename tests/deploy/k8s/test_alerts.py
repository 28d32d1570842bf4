"""Alerts fire on made-up series as they should, where Prometheus' own tool is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.k8s.rendering import one, overlay


@pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool: install Prometheus to try the alerts")
def test_alerts_fire_on_what_they_are_for_and_on_nothing_else(tmp_path: Path) -> None:
    groups = one(overlay("prod"), "PrometheusRule", "qrelay")["spec"]["groups"]
    bare = [{**group, "rules": [{**rule, "annotations": {}} for rule in group["rules"]]} for group in groups]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": bare}), "utf8")
    shutil.copy(Path(__file__).with_name("alerts.yaml"), tmp_path / "tests.yml")
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "tests.yml"]):
        done = subprocess.run(["promtool", *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

"""Alerts fire, and panels show, what they should on made-up series, where Prometheus' own tool is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.deploy.k8s.rendering import one, overlay
from tests.deploy.k8s.test_telemetry import PANELS, filled

pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="no promtool: install Prometheus to try these")

SERIES = {
    'qrelay_grades_total{collection="docs",strategy="graded",grade="0",namespace="qrelay",pod="j0"}': "0+30x40",
    'qrelay_grades_total{collection="docs",strategy="graded",grade="3",namespace="qrelay",pod="j0"}': "0+30x40",
    'qrelay_grades_total{collection="docs",strategy="graded",grade="missing",namespace="qrelay",pod="j0"}': "0+60x40",
    'qrelay_grades_total{collection="docs",strategy="graded",grade="3",namespace="elsewhere",pod="j0"}': "0+600x40",
    'qrelay_grades_total{collection="other",strategy="graded",grade="3",namespace="qrelay",pod="j0"}': "0+600x40",
    'qrelay_p_relevant_sum{collection="docs",strategy="graded",namespace="qrelay",pod="j0"}': "0+15x40",
    'qrelay_p_relevant_count{collection="docs",strategy="graded",namespace="qrelay",pod="j0"}': "0+60x40",
    'qrelay_prompt_tokens_total{namespace="qrelay",pod="j0"}': "0+6000x40",
    'qrelay_budget_price{namespace="qrelay",pod="j0"}': "2x40",
}
SHOWN = {
    "Grades": {'{grade="0"}': 0.5, '{grade="3"}': 0.5},
    "Share of missing judgments": {'{collection="docs"}': 0.5},
    "P(relevant), mean": {'{strategy="graded"}': 0.25},
    "Price an hour": {"{}": 0.72},
}
"""What each panel shows of these series after half an hour."""


def test_panels_of_labels_and_cost_show_what_the_series_say(tmp_path: Path) -> None:
    exprs = {panel["title"]: filled(panel["targets"][0]["expr"]) for panel in PANELS}
    cases = [
        {
            "expr": exprs[title],
            "eval_time": "30m",
            "exp_samples": [{"labels": labels, "value": value} for labels, value in samples.items()],
        }
        for title, samples in SHOWN.items()
    ]
    series = [{"series": name, "values": values} for name, values in SERIES.items()]
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": cases}]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"evaluation_interval": "1m", "tests": tests}), "utf8")
    done = subprocess.run(["promtool", "test", "rules", "tests.yml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_fire_on_what_they_are_for_and_on_nothing_else(tmp_path: Path) -> None:
    groups = one(overlay("prod"), "PrometheusRule", "qrelay")["spec"]["groups"]
    bare = [{**group, "rules": [{**rule, "annotations": {}} for rule in group["rules"]]} for group in groups]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": bare}), "utf8")
    shutil.copy(Path(__file__).with_name("alerts.yaml"), tmp_path / "tests.yml")
    for command in (["check", "rules", "rules.yml"], ["test", "rules", "tests.yml"]):
        done = subprocess.run(["promtool", *command], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

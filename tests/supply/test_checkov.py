"""Findings of checkov are explained one by one: a new one fails, and so does an explanation that meets nothing."""

from __future__ import annotations

import pytest

from scripts.checkov import K8S, Finding, findings, problems, skips
from tests.deploy.k8s.rendering import OVERLAYS

FOUND = Finding("CKV_K8S_11", "CPU limits should be set", "prod Deployment qrelay.judge")
REPORT = {"results": {"failed_checks": [
    {"check_id": FOUND.check, "check_name": FOUND.name, "file_path": "/prod.yaml",
     "resource": "Deployment.qrelay.judge"}]}}  # fmt: skip


def skip(where: str, check: str = FOUND.check) -> str:
    return f"- {{check: {check}, where: '{where}', why: because}}\n"


def test_a_finding_is_read_with_its_place() -> None:
    assert findings(REPORT) == findings([REPORT, {"results": {}}]) == [FOUND]


def test_a_finding_that_is_explained_is_no_problem() -> None:
    assert problems([FOUND], skips(skip("prod .*"))) == []


@pytest.mark.parametrize("given", ["prod Deployment", "dev .*"])
def test_an_explanation_of_another_place_explains_nothing(given: str) -> None:
    assert len(problems([FOUND], skips(skip(given)))) == 2


def test_every_explanation_that_is_shipped_has_a_reason() -> None:
    for each in skips((K8S / "checkov.yaml").read_text("utf8")):
        assert each.where == ".*" or any(each.where.startswith((name, "(")) for name in OVERLAYS)
    with pytest.raises(ValueError, match="no reason"):
        skips("- {check: X, where: x, why: ''}")

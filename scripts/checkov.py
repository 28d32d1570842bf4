"""Asks checkov about every rendered overlay, and compares its findings with deploy/k8s/checkov.yaml.

    .venv/bin/python -m scripts.checkov .venv-checkov/bin/checkov      # `make checkov`

Exit 1 where a finding is not explained there, or where an explanation explains nothing.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from scripts.recipes import ROOT

K8S: Final = ROOT / "deploy" / "k8s"


@dataclass(frozen=True, slots=True)
class Skip:
    """A check that is skipped where the pattern matches a whole place, and why."""

    check: str
    where: str
    why: str

    def covers(self, finding: Finding) -> bool:
        """Whether it explains the finding."""
        return self.check == finding.check and re.fullmatch(self.where, finding.where) is not None


@dataclass(frozen=True, slots=True)
class Finding:
    """A failed check. where: "OVERLAY KIND NAMESPACE.NAME"."""

    check: str
    name: str
    where: str


def skips(text: str) -> list[Skip]:
    """Raises ValueError: one has no reason."""
    found = [Skip(**each) for each in yaml.safe_load(text)]
    if bare := [each.check for each in found if not each.why.strip()]:
        raise ValueError(f"checkov.yaml: no reason is given for {', '.join(bare)}")
    return found


def findings(report: Any) -> list[Finding]:
    """Those of checkov's JSON; it is a list where several frameworks were asked."""
    reports = report if isinstance(report, list) else [report]
    return [
        Finding(failed["check_id"], failed["check_name"],
                f"{Path(failed['file_path']).stem} {failed['resource'].replace('.', ' ', 1)}")
        for each in reports
        for failed in each.get("results", {}).get("failed_checks", [])
    ]  # fmt: skip


def problems(found: Iterable[Finding], skipped: Sequence[Skip]) -> list[str]:
    """Findings that nothing explains, and explanations of nothing."""
    found = list(found)
    open_ones = [each for each in found if not any(skip.covers(each) for skip in skipped)]
    idle = [skip for skip in skipped if not any(skip.covers(each) for each in found)]
    return [
        *(f"{each.check} ({each.name}) in {each.where}: mend it, or explain it in deploy/k8s/checkov.yaml"
          for each in open_ones),
        *(f"{skip.check} in {skip.where} is found no more: remove it from deploy/k8s/checkov.yaml" for skip in idle),
    ]  # fmt: skip


def main(checkov: Path) -> int:
    """See the module."""
    kubectl = Path(sys.executable).parent / "kubectl"
    with tempfile.TemporaryDirectory() as made:
        for overlay in sorted(path.parent for path in (K8S / "overlays").glob("*/kustomization.yaml")):
            with (Path(made) / f"{overlay.name}.yaml").open("wb") as out:
                subprocess.run([kubectl, "kustomize", str(overlay)], stdout=out, check=True)
        asked = ["-d", made, "--framework", "kubernetes", "--compact", "--quiet", "--skip-download", "-o", "json"]
        done = subprocess.run([checkov, *asked], stdout=subprocess.PIPE, check=False)  # it ends with 1 on any finding
    report = json.loads(done.stdout)
    found = findings(report)
    told = problems(found, skips((K8S / "checkov.yaml").read_text("utf8")))
    for each in told:
        print(each, file=sys.stderr)
    checked = sum(each["summary"]["passed"] for each in (report if isinstance(report, list) else [report]))
    print(f"checkov: {checked} checks passed, {len(found)} findings, {len(told)} of them or of their reasons to mend")
    return 1 if told else 0


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))

"""What a console shows besides its ledger: a report on judges, and a registry of fifty versions."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qrelay.files import write_atomic
from qrelay.judging.report.read import Confusion, MeasuredReport, Reliability, System, Use, Verdicts
from qrelay.models.registry import BI_ENCODER, DataSource, Registry

VERSIONS: Final = 50
DATA: Final = "train.jsonl"
_POINTS: Final = tuple((i / 10 + 0.05, i / 10, 40.0) for i in range(10))


def prepare(folder: Path) -> str:
    """Writes them into a data folder; answers a version whose data is all that the ledger holds of `bench`."""
    report = folder / "reports" / "qualification.json"
    report.parent.mkdir(parents=True)
    write_atomic(report, _report().model_dump_json().encode())
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    registry, parent = Registry(folder / "registry"), ""
    for number in range(VERSIONS):
        (model / "weights").write_text(str(number))
        source = DataSource(DATA, "c" * 64, 1000, {"collection": "bench", "format": "triples", "sha256": "c" * 64})
        version = registry.publish(model, slot=BI_ENCODER, base="base@1", parent=parent, data=[source])
        registry.record_gate(version, {"passed": True, "against": parent, "why": "it rose"})
        registry.promote(version, by="bench")
        parent = version
    return parent


def _report() -> MeasuredReport:
    use = Use(verdict="qualified", reason="kappa with people holds for its labels as they come")
    curve, grades = Reliability(before=_POINTS, after=_POINTS), (0, 1, 2, 3)
    system = System(auc=0.9, auc_ci=(0.85, 0.95), reliability=curve,
                    confusion=Confusion(grades=grades, counts=((40, 5, 3, 1),) * 4))  # fmt: skip
    names = [f"judge {number}" for number in range(8)]
    verdicts = {name: Verdicts(positives=use, negatives=use, gate=use) for name in names}
    return MeasuredReport(n=400, queries=40, relevant=150, systems=dict.fromkeys(names, system), verdicts=verdicts)

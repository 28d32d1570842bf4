"""Small published versions in a line or two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qrelay.models.registry import BI_ENCODER, DataSource, JudgeRef, Registry


def a_model(folder: Path, weights: str) -> Path:
    """A folder that the registry takes for a model's."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "sub").mkdir()
    (folder / "sub" / "weights").write_text(weights)
    return folder


def published(
    registry: Registry,
    weights: str,
    slot: str = BI_ENCODER,
    parent: str = "",
    judge: str = "j1",
    data: Sequence[DataSource] = (),
    **fields: Any,
) -> str:
    """The version of a model that differs by its weights."""
    model = registry.folder.parent / f"trained-{weights}"
    model = model if model.exists() else a_model(model, weights)
    judges = (JudgeRef(judge, "qwen", "1", "graded", 7),)
    sources = data or (DataSource("d", weights, 1),)
    return registry.publish(model, slot=slot, base="base@1", parent=parent, data=sources, judges=judges, **fields)


def passed(registry: Registry, version: str, against: str = "", **detail: Any) -> str:
    """The version, with the gate's pass."""
    registry.record_gate(version, {"passed": True, "against": against, **detail})
    return version


def row(metric: str, set_: str, baseline: float, candidate: float, ok: bool = True) -> Mapping[str, Any]:
    """A row of the gate's report."""
    return {"rule": "better", "passed": ok, "why": "it rose", "set": set_, "metric": metric, "queries": 40,
            "baseline": baseline, "candidate": candidate, "difference": candidate - baseline, "interval": None,
            "p": 0.01, "threshold": "p <= 0.05"}  # fmt: skip

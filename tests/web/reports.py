"""A small report, as `qrelay judge qualify` writes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HOSTILE = "<script>window.ran = 1</script>\"'><img src=x onerror=alert(2)>"


def use(verdict: str, reason: str = "kappa with people falls short") -> dict[str, Any]:
    return {"verdict": verdict, "reason": reason, "numbers": {"kappa_needed": 0.4, "raw": None}}


def report(name: str = "sharp", reason: str = "kappa with people holds") -> dict[str, Any]:
    """Two judges: `name`, good for positives alone, and "shy" that nothing but an AUC is known of."""
    points = [[0.05, 0.1, 40], [0.45, 0.3, 10], [0.95, 0.9, 20]]
    system = {
        "auc": 0.91, "auc_ci": [0.85, 0.95], "auc_within_query": None, "kappa_binary": 0.61, "ece_before": 0.2,
        "ece_after": 0.04, "reliability": {"before": points[1:], "after": points}, "missing": 1, "tokens": 1234,
        "confusion": {"grades": [0, 1, 2], "counts": [[30, 5, 0], [4, 10, 1], [0, 3, 17]]}, "inputs": [name],
    }  # fmt: skip
    verdicts = {"judge": "a" * 64, "positives": use("qualified", reason), "negatives": use("calibrated_only"),
                "gate": use("not_qualified")}  # fmt: skip
    return {"n": 70, "queries": 12, "relevant": 35, "relevant_from": 2, "sha256": "b" * 64, "comparisons": [],
            "systems": {name: system, "shy": {"auc": 0.5}}, "verdicts": {name: verdicts}}  # fmt: skip


def written(folder: Path, file: str = "first.json", **fields: Any) -> Path:
    """Where the console looks for it."""
    path = folder / "data" / "reports" / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**report(), **fields}))
    return path

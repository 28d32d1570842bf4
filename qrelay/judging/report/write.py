"""A report's files, all in place or none."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qrelay.errors import InputError
from qrelay.files import AtomicFiles
from qrelay.judging.report.warn import plain_warnings
from qrelay.reports.page import render


def write_report(report: Mapping[str, Any], folder: Path, *, focus: str) -> list[Path]:
    """Write report.html, report.json, reliability.png and confusion.png, and return their paths.

    report: see the package; focus: the system whose diagrams are drawn. The folder is made; what an earlier report
    left under these names is replaced, all four together.

    Raises:
        InputError: no such system in the report.
        OSError: the folder cannot be made or written.
    """
    from qrelay.judging.report.diagrams import confusion_png, reliability_png

    if focus not in report.get("systems", {}):
        raise InputError(f"no system {focus!r} to draw: there are {', '.join(report.get('systems', {})) or 'none'}")
    system = report["systems"][focus]
    reliability, confusion = reliability_png(focus, system), confusion_png(focus, system)
    page = _page(report, focus, {"Reliability": reliability, "Confusion matrix": confusion})
    found = {
        "report.html": page.encode(),
        "report.json": json.dumps(without_nan(report), indent=2, ensure_ascii=False, allow_nan=False).encode()
        + b"\n",
        "reliability.png": reliability,
        "confusion.png": confusion,
    }
    with AtomicFiles() as files:
        for name, data in found.items():
            files.open(folder / name).write(data)
        files.commit()
    return [folder / name for name in found]


def _page(report: Mapping[str, Any], focus: str, images: Mapping[str, bytes]) -> str:
    """images: title -> PNG."""
    return render(
        "judges.html",
        title=report.get("title") or "Report",
        data=report.get("data", {}),
        focus=focus,
        warnings=plain_warnings(report, focus),
        images=images,
        verdicts=report.get("verdicts") or {},
        systems=report.get("systems") or {},
        comparisons=report.get("comparisons") or (),
        notes=report.get("notes") or (),
    )


def without_nan(value: Any) -> Any:
    """The same with null for nan and infinities, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

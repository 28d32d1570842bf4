"""The audit's files: JSON for machines, one page for people, each whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qrelay.errors import BackendUnavailable
from qrelay.files import AtomicFiles
from qrelay.labels.audit.breakdown import COLUMNS
from qrelay.labels.audit.figures import FIGURES, JUDGED_AT
from qrelay.reports.page import render, text


def write_report(report: Mapping[str, Any], *, as_json: Path | None, as_html: Path | None) -> None:
    """Writes those files that are asked for, together.

    Raises:
        BackendUnavailable: a folder cannot be written, or the disk is full.
    """
    from qrelay.labels.audit.plots import diagrams

    try:
        with AtomicFiles() as files:
            if as_json:
                files.open(as_json).write(to_json(report).encode())
            if as_html:
                files.open(as_html).write(page_of(report, diagrams(report)).encode("utf-8", "replace"))
            files.commit()
    except OSError as error:
        raise BackendUnavailable(f"cannot write the report: {error}; nothing was changed there") from error


def to_json(report: Mapping[str, Any]) -> str:
    """The report, indented, with a line feed at its end. Holds no number that JSON lacks."""
    return json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def page_of(report: Mapping[str, Any], images: Mapping[str, bytes]) -> str:
    """The page of a report of `audit.audit`; images: title -> PNG."""
    auditor = f"judge {report['auditor'][:12]}" if report["auditor"] else ""
    people = "people's overrides" if report["overrides"] else ""
    return render(
        "audit.html",
        r=report,
        counts=[value for name, value in report["checks"]["conflicts"].items() if name != "examples"],
        second=" and ".join(filter(None, (auditor, people))) or "none",
        meaning=FIGURES,
        images=images,
        ks=[f"judged@{k}" for k in JUDGED_AT],
        columns=list(COLUMNS),
    )


def interval(figure: Mapping[str, Any]) -> str:
    """The bounds of a figure, empty where it has none."""
    if figure["low"] is None or figure["high"] is None:
        return ""
    return f"{text(figure['low'])} to {text(figure['high'])}"

"""The folder of a run: its report as JSON, as a table, as diagrams, and as a page with both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from qrelay.bench.environment import summary
from qrelay.bench.report import Report, as_json
from qrelay.bench.table import grids, markdown, warnings
from qrelay.files import AtomicFiles
from qrelay.reports.page import render


def write(report: Report, folder: Path) -> list[Path]:
    """report.json, table.md, report.html and the diagrams into `folder`, all or none; returns their paths. Needs the
    extra `bench`.

    Raises:
        OSError: the folder cannot be written.
    """
    from qrelay.bench.plots import diagrams

    drawn = diagrams(report)
    contents = {"report.json": as_json(report).encode(), "table.md": markdown(report).encode(),
                "report.html": page(report, drawn).encode(), **drawn}  # fmt: skip
    with AtomicFiles() as files:
        for name, data in contents.items():
            files.open(folder / name).write(data)
        files.commit()
    return [folder / name for name in contents]


def page(report: Report, drawn: Mapping[str, bytes]) -> str:
    """The report as one HTML file. drawn: `diagrams` of it."""
    return render("bench.html", report=report, machine=summary(report.environment), grids=list(grids(report)),
                  remarks=[*report.notes, *warnings(report)], diagrams=drawn)  # fmt: skip

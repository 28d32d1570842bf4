"""The folder of a run: its report as JSON, as a table, and as diagrams."""

from __future__ import annotations

from pathlib import Path

from qrelay.bench.report import Report, as_json
from qrelay.bench.table import markdown
from qrelay.files import AtomicFiles


def write(report: Report, folder: Path) -> list[Path]:
    """report.json, table.md and the diagrams into `folder`, all or none; returns their paths. Needs the extra
    `bench` for the diagrams.

    Raises:
        OSError: the folder cannot be written.
    """
    from qrelay.bench.plots import diagrams

    contents = {"report.json": as_json(report).encode(), "table.md": markdown(report).encode(), **diagrams(report)}
    with AtomicFiles() as files:
        for name, data in contents.items():
            files.open(folder / name).write(data)
        files.commit()
    return [folder / name for name in contents]

"""Reports on judges: the one in force (`sink.qualification`), and those in the folder `reports` of data_dir."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from qrelay.errors import InputError, QrelayError
from qrelay.judging.calibration import CalibrationMap, load_maps
from qrelay.judging.report.read import MAX_BYTES, USES, MeasuredReport, read_measured
from qrelay.judging.report.warn import plain_warnings
from qrelay.reports.page import fixed, interval, value
from qrelay.web.console.judge.diagrams import reliability
from qrelay.web.pages import filters, render
from qrelay.web.routes import route
from qrelay.web.site import Site, site_of

FOLDER: Final = "reports"
MOST: Final = 100
WORDS: Final = {
    "qualified": "qualified",
    "calibrated_only": "calibrated only",
    "not_qualified": "not qualified",
    "unknown": "unknown",
}
filters().update(fixed=fixed, interval=interval, number=value)


def judge(request: Request) -> Response:
    """A report, one of its systems in diagrams."""
    site, given = site_of(request), request.query_params
    files, maps = _files(site)
    name, found, unreadable = _report(files, given.get("report", ""))
    return render(
        request, "judge/page.html", files=files, in_force=site.sink.qualification, name=name, report=found, uses=USES,
        words=WORDS, folder=site.settings.data_dir / FOLDER, maps=maps, unreadable=unreadable,
        **_system(found, given.get("system", "")),
    )  # fmt: skip


def _report(files: dict[str, Path], wanted: str) -> tuple[str, MeasuredReport | None, list[str]]:
    """The name and the report: the wanted one, else the first that can be read; and why others before it cannot.
    Raises InputError: there is no file of the wanted name."""
    if wanted and wanted not in files:
        raise InputError(f"there is no report {wanted[:80]!r}: choose one on the page of the judge")
    problems: list[str] = []
    for name in [wanted] if wanted else files:
        try:
            return name, read_measured(files[name]), problems
        except InputError as error:
            problems.append(str(error))
    return wanted, None, problems


def _system(report: MeasuredReport | None, wanted: str) -> dict[str, Any]:
    """The system that is shown in diagrams: the wanted one, else the first with a verdict."""
    if report is None or not report.systems:
        return {"system": "", "shown": None, "warnings": [], "curve": None}
    first = next((each for each in report.verdicts if each in report.systems), next(iter(report.systems)))
    name = wanted if wanted in report.systems else first
    shown, dumped = report.systems[name], report.model_dump()
    warnings = plain_warnings({**dumped, "data": dumped}, name)
    return {"system": name, "shown": shown, "warnings": warnings, "curve": reliability(shown.reliability)}


def _files(site: Site) -> tuple[dict[str, Path], list[tuple[str, dict[str, CalibrationMap], str]]]:
    """Reports by the name that addresses give them, the one in force first; and files of calibration maps, each with
    its maps or why it cannot be read."""
    reports = {site.sink.qualification: Path(site.sink.qualification)} if site.sink.qualification else {}
    maps = []
    for path in _candidates(site.settings.data_dir / FOLDER):
        name = str(path.relative_to(site.settings.data_dir / FOLDER))
        if _begins_as_maps(path):
            maps.append((name, *_maps(path)))
        elif path.resolve() not in [each.resolve() for each in reports.values()]:
            reports[name] = path
    return reports, maps


def _candidates(folder: Path) -> Iterator[Path]:
    if folder.is_dir():
        found = sorted([*folder.glob("*.json"), *folder.glob("*/report.json")])
        yield from [each for each in found if each.is_file() and each.stat().st_size <= MAX_BYTES][:MOST]


def _begins_as_maps(path: Path) -> bool:
    """Whether `qrelay judge calibrate --out` wrote it, by what it writes first."""
    try:
        with path.open("rb") as file:
            return b'"maps"' in file.read(400)
    except OSError:
        return False


def _maps(path: Path) -> tuple[dict[str, CalibrationMap], str]:
    try:
        return load_maps(path), ""
    except QrelayError as error:
        return {}, str(error)


ROUTES = [route("/judge", judge)]

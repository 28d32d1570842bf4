"""Reports: JSON that comes back as it was, tables, curves, the environment."""

from __future__ import annotations

import io
import itertools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qrelay.bench import environment
from qrelay.bench.folder import page, write
from qrelay.bench.load import closed_loop, open_loop
from qrelay.bench.plots import diagrams
from qrelay.bench.report import Estimate, Report, as_json, from_json, read
from qrelay.bench.table import markdown, show
from qrelay.bench.usage import NoProbe
from qrelay.bench.windows import WindowPolicy
from qrelay.errors import InputError, MalformedInput
from tests.bench.made import level, report
from tests.bench.simulated import FakeService, simulate


def full() -> Report:
    closed = [level(count, throughput=100.0 * count) for count in (1, 2, 4)]
    opened = [level(rate=rate, throughput=rate, stable=rate < 300) for rate in (100.0, 300.0)]
    return report(*closed, *opened, level(rate=500.0, throughput=400, saturated=True, unanswered=7, capped=3))


def measured() -> Report:
    policy = WindowPolicy(window_s=1, warm_up_s=1)
    closed = simulate(closed_loop(FakeService(0.02), 2, policy, NoProbe(), itertools.count()))
    opened = simulate(open_loop(FakeService(0.02), 60, policy, NoProbe(), itertools.count()))
    return report(closed, opened, environment=environment.end(environment.begin()))


@pytest.mark.parametrize("make", [full, measured, report])
def test_a_report_comes_back_from_json_as_it_was(make: Any) -> None:
    assert from_json(as_json(made := make())) == made


def test_a_report_of_a_newer_format_is_refused_with_what_to_do() -> None:
    newer = {**json.loads(as_json(full())), "version": 99}
    with pytest.raises(InputError, match="format 99, this qrelay reads up to 1: use a newer qrelay"):
        from_json(json.dumps(newer))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"format": "coco", "version": 1}'])
def test_what_is_no_report_is_refused(text: str) -> None:
    with pytest.raises(MalformedInput, match=r"give the report\.json"):
        from_json(text)


def test_a_damaged_report_is_refused_by_the_place_of_the_damage(tmp_path: Path) -> None:
    body = json.loads(as_json(full()))
    body["levels"][1]["windows"][0]["seconds"] = "soon"
    (tmp_path / "report.json").write_text(json.dumps(body), "utf8")
    with pytest.raises(MalformedInput, match=r"report\.json: a damaged report: levels\.1\.windows\.0\.seconds"):
        read(tmp_path)
    with pytest.raises(InputError, match="No such file"):
        read(tmp_path / "absent.json")


def test_a_run_is_written_whole_and_read_from_its_folder(tmp_path: Path) -> None:
    written = write(full(), tmp_path / "out")
    names = {path.name for path in written}
    curves = {"throughput.png", "latency-closed.png", "latency-open.png"}
    assert names == {"report.json", "table.md", "report.html", *curves}
    assert names == {path.name for path in (tmp_path / "out").iterdir()}
    assert read(tmp_path / "out") == full()


def test_the_table_has_every_level_with_units_and_says_which_did_not_hold() -> None:
    text = markdown(full())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(row.count("|") > 2 for row in rows)
    assert "| outstanding | items/s | 95% interval | p50 ms |" in text
    assert "| CPU-s/1,000 items | peak MiB |" in text
    assert "2 malformed" in text and "not stable" in text and "saturated" in text
    assert "300 requests/s: not stable" in text and "500 requests/s: saturated" in text
    assert "most requests that may be outstanding" in text and "quick: windows of 1 s" in text
    assert "| efficiency" not in text and "## efficiency" in text and "| judges | ratio |" in text


def test_every_row_of_a_table_has_as_many_cells_as_its_header() -> None:
    blocks = re.findall(r"(?:^\|.*\n)+", markdown(full()), re.MULTILINE)
    assert len(blocks) >= 5
    for block in blocks:
        assert len({line.count("|") for line in block.splitlines()}) == 1, block


def test_the_terminal_shows_what_the_file_has() -> None:
    out = io.StringIO()
    show(full(), Console(file=out, width=120))
    for word in ("outstanding", "offered/s", "peak MiB", "efficiency", "quick: windows"):
        assert word in out.getvalue()
    assert "─┼─" not in out.getvalue() and "┃" in out.getvalue()


def test_every_table_fits_120_columns_and_loses_no_column() -> None:
    wide = {f"figure {number}": 10.0**number for number in range(20)}
    made = replace(full(), extra={"disturbances": [{"action": "kill", **wide}] * 2})
    limited = [level(limit_s=0.5, goodput=Estimate(0.5)), level(rate=9.0, limit_s=0.5, unanswered=3, capped=1)]
    for text in (markdown(made), markdown(replace(made, levels=(*made.levels, *limited)))):
        tables = [line for line in text.splitlines() if line.startswith("|")]
        assert max(map(len, tables)) <= 120
        assert all(f"| {name} " in text for name in wide) and text.count("| action |") > 1
    assert "within 500 ms" in text and "50.0%" in text


def test_a_column_in_which_nothing_happened_is_left_out() -> None:
    clean = report(level(failed={}, refused=0), level(failed={}, refused=0))
    assert "failed" not in markdown(clean) and "refused" not in markdown(clean)


def test_the_page_has_every_table_and_curve_and_needs_no_network() -> None:
    text = page(full(), drawn := diagrams(full()))
    assert text.count("data:image/png;base64,") == len(drawn) == 3 and text.count("<table") >= 5
    assert "500 requests/s: saturated" in text and "http" not in text.partition("</head>")[2]


def test_curves_are_pngs_with_something_drawn_in_several_colours() -> None:
    from matplotlib.image import imread

    drawn = diagrams(full())
    assert len(drawn) == 3
    for name, data in drawn.items():
        pixels = imread(io.BytesIO(data), format="png")[..., :3]
        assert pixels.shape[0] > 400 and pixels.shape[1] > 700, name
        inside = pixels[100:-100, 150:-100]
        coloured = (inside.max(2) - inside.min(2) > 0.4).any(0)
        assert coloured.mean() > 0.5, f"{name}: no curve across the diagram"


def test_curves_of_levels_without_answers_are_drawn_without_them() -> None:
    nothing = simulate(closed_loop(FakeService(1e9), 1, WindowPolicy(), NoProbe(), itertools.count()))
    assert set(diagrams(report(nothing))) == {"throughput.png", "latency-closed.png"}
    assert "| 1 | 0 |" in markdown(report(nothing))


def test_the_environment_names_machine_and_versions_and_neither_host_nor_folders() -> None:
    import platform

    found = environment.end(environment.begin())
    assert {"cores", "memory_gib", "kernel", "python", "qrelay", "packages", "started", "ended"} <= found.keys()
    assert found["cores_usable"] <= found["cores"] and found["packages"]["grpcio"]
    text = json.dumps(found)
    assert str(Path.home()) not in text and str(Path(__file__).parents[2]) not in text
    assert platform.node() not in text.split('"')


def test_the_summary_fits_into_a_title() -> None:
    summary = environment.summary({"cpu": "X", "cores_usable": 1, "qrelay": "0.1.0", "revision": "abc+"})
    assert summary == "X, 1 core, qrelay 0.1.0 (abc+)"

"""`qrelay audit`, as the command line runs it: report, page, exit codes."""

from __future__ import annotations

import html
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.labels.audit import audit
from qrelay.errors import BackendUnavailable, InputError, MalformedInput, UnknownCollection
from qrelay.exitcodes import EXIT_FAILED, EXIT_GATE, EXIT_USAGE
from qrelay.identity import judge_digest
from qrelay.labels.ledger.ledger import Ledger
from qrelay.reports.page import text
from qrelay.types import Missing
from tests.labels.audit.sets import Row, commit, graded_rows, override, record
from tests.labels.builders import OTHER_JUDGE, graded, judgment, later, relabelled
from tests.pipeline.harness import called


@pytest.fixture
def filled(ledger_url: str) -> str:
    """A ledger with a conflict, two periods of labels, a second judge on one query and text that HTML must escape."""
    ledger = Ledger.open(ledger_url)
    sets = [record(f"q{i}", *graded_rows(3, 0, 0), at=later(i)) for i in range(30)]
    twins = (Row("x", graded(0), "<b>same</b> $x$"), Row("y", graded(3), "<B>same</b> $x$"))
    commit(ledger, *sets, record("<q>", *twins, Row("z", Missing("timeout")), text="<script>alert(1)</script>"))
    ledger.rejudge([relabelled(sets[0], judgment("d1#0", graded(3), OTHER_JUDGE))])
    override(ledger, 2, "d1#0", 0)
    ledger.close()
    return ledger_url


def run(url: str, *arguments: str) -> Result:
    clean = {name: None for name in os.environ if name.startswith("QRELAY_")}
    return CliRunner().invoke(audit, [*arguments, "--ledger", url], catch_exceptions=False, env=clean)


def test_the_report_and_the_page_hold_the_same_figures(filled: str, tmp_path: Path) -> None:
    out, page = tmp_path / "deep" / "audit.json", tmp_path / "audit.html"
    second = ("--auditor", judge_digest(OTHER_JUDGE), "--overrides", "--drift-periods", "2")
    result = run(filled, "--collection", "docs", "--json-file", str(out), "--html", str(page), *second)
    assert result.exit_code == 0, result.output
    report, shown = json.loads(out.read_text()), page.read_text()
    cells = dict(re.findall(r"<tr><td><code>([a-z_@0-9]+)</code></td>\n?\s*<td[^>]*>([^<]*)</td>", shown))
    assert cells.keys() == report["figures"].keys()
    for name, figure in report["figures"].items():
        expected = f"not measured: {figure['why']}" if figure["value"] is None else text(figure["value"])
        assert html.unescape(cells[name]) == expected, name
        assert re.search(rf"^{re.escape(name)} +{re.escape(expected)}", result.output, re.MULTILINE)
    assert report["figures"]["false_negative_rate"]["value"] == 0.5
    assert report["figures"]["conflicts"]["value"] == 2


def test_the_page_stands_alone_and_escapes_texts(filled: str, tmp_path: Path) -> None:
    page = tmp_path / "audit.html"
    run(
        filled,
        "--collection",
        "docs",
        "--html",
        str(page),
        "--drift-periods",
        "2",
        "--auditor",
        judge_digest(OTHER_JUDGE),
    )
    shown = page.read_text()
    assert "<script" not in shown
    assert "&lt;q&gt;" in shown
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", shown)
    assert shown.count("data:image/png;base64,") == 5


def test_json_to_standard_output_is_json_alone(filled: str) -> None:
    report: dict[str, Any] = json.loads(run(filled, "--collection", "docs", "--json").stdout)
    assert report["format"] == "qrelay-audit/1"
    keys = "format collection ledger judges auditor overrides rules figures checks gate"
    assert list(report) == keys.split()


def test_a_gate_that_holds_passes_and_one_that_does_not_exits_with_4_and_its_figures(filled: str) -> None:
    passed = run(filled, "--collection", "docs", "--fail-on", "missing_share>0.5, conflicts>9")
    assert passed.exit_code == 0
    failed = run(filled, "--collection", "docs", "--fail-on", "conflicts>0,missing_share>0.001,negatives<1")
    assert failed.exit_code == EXIT_GATE == 4
    assert "failed: conflicts>0: conflicts is 2" in failed.stderr
    assert "failed: missing_share>0.001: missing_share is 0.01" in failed.stderr
    assert "negatives<1" not in failed.stderr


def test_scripts_can_tell_a_violation_from_a_failure(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    commit(ledger, record("q1", *graded_rows(3, 0)))
    ledger.close()

    def code(*arguments: str) -> tuple[int, str]:
        done = called("audit", *arguments, "--data-dir", str(tmp_path))
        return done.returncode, done.stderr

    assert code("--collection", "docs", "--fail-on", "queries<2")[0] == EXIT_GATE
    assert code("--collection", "docs", "--fail-on", "queries<1") == (0, "auditing\n")
    failed, words = code("--collection", "wiki", "--fail-on", "queries<2")
    assert (failed, "Traceback" in words, "wiki" in words) == (EXIT_FAILED, False, True)


def test_a_gate_on_what_was_not_measured_fails_and_says_so(filled: str) -> None:
    failed = run(filled, "--collection", "docs", "--fail-on", "false_negative_rate>0.9,leakage>9")
    assert failed.exit_code == EXIT_GATE
    assert "false_negative_rate was not measured: " in failed.stderr
    assert "leakage was not measured: " in failed.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--collection", "docs", "--fail-on", "conflict>0"),
        ("--collection", "docs", "--drift-periods", "month"),
        ("--collection", "docs", "--eval-qrels", __file__),
        ("sample", "--collection", "docs"),
    ],
)
def test_wrong_usage_exits_with_2_before_a_ledger_is_opened(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    assert run(str(tmp_path / "absent.sqlite"), *arguments).exit_code == EXIT_USAGE


def test_errors_come_in_words(filled: str, tmp_path: Path) -> None:
    with pytest.raises(UnknownCollection, match="it holds docs"):
        run(filled, "--collection", "wiki")
    with pytest.raises(InputError, match="names 0 judges"):
        run(filled, "--collection", "docs", "--auditor", "nobody")
    (tmp_path / "file").write_text("no sample")
    with pytest.raises(MalformedInput, match="no query_id, passage_id: give a TSV under a header"):
        run(filled, "--collection", "docs", "--sample", str(tmp_path / "file"))
    with pytest.raises(BackendUnavailable, match="cannot write the report"):
        run(filled, "--collection", "docs", "--html", str(tmp_path / "file" / "below"))


def test_an_empty_ledger_fails_in_words(ledger_url: str) -> None:
    Ledger.open(ledger_url).close()
    with pytest.raises(UnknownCollection, match="feed queries first"):
        run(ledger_url, "--collection", "docs")


def test_a_sample_is_a_slice_without_the_first_judges_opinion(filled: str, tmp_path: Path) -> None:
    out = tmp_path / "sample.tsv"
    result = run(filled, "sample", "--collection", "docs", "--n", "7", "--out", str(out))
    assert result.exit_code == 0, result.output
    header, *rows = [line.split("\t") for line in out.read_text().splitlines()]
    assert header == ["query_id", "passage_id", "grade", "query", "title", "text", "reason"]
    assert len(rows) == 7
    assert {row[2] for row in rows} == {""}
    assert "7 of 59 negatives" in result.output or "7 of 60 negatives" in result.output
    assert "--sample" in result.output
    before = out.read_bytes()
    run(filled, "sample", "--collection", "docs", "--n", "7", "--out", str(out))
    assert out.read_bytes() == before


def test_a_sample_for_scripts_names_its_command(filled: str, tmp_path: Path) -> None:
    arguments = ("sample", "--collection", "docs", "--n", "2", "--out", str(tmp_path / "s"), "--json")
    found = json.loads(run(filled, *arguments).stdout)
    assert found["sampled"] == 2
    assert found["rejudge"].startswith("qrelay judge rejudge ")

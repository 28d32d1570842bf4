"""`qrelay export`, as the command line runs it, and the sink's settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.labels.export import export
from qrelay.errors import ConfigError, InputError, UnknownCollection
from qrelay.labels.exports.catalogue import FORMATS
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.settings import SinkSettings
from qrelay.services.sink.sink import load_sink
from qrelay.settings import find, load_settings
from qrelay.settings.publish import PublishSettings
from qrelay.settings.record import difference, write_record
from qrelay.types import Missing
from tests.labels.builders import judged_set
from tests.labels.test_qualification import report_file, use
from tests.pipeline import harness


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    ledger.commit(
        [judged_set("q1"), judged_set("q2"), judged_set("m1", outcomes=[Missing("error")], collection="none")]
    )
    ledger.close()
    return tmp_path


def run(data_dir: Path, *arguments: str) -> str:
    result = called(data_dir, *arguments)
    return result.stdout if "--json" in arguments else result.output


def called(data_dir: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(
        export, [*arguments, "--data-dir", str(data_dir)], catch_exceptions=False, env=_clean()
    )
    assert result.exit_code == 0, result.output
    return result


def _clean() -> Mapping[str, str | None]:
    return {name: None for name in os.environ if name.startswith("QRELAY_")}


@pytest.mark.parametrize(("kind", "rows"), [("qrels", 4), ("triples", 2)])
def test_export_writes_the_file_and_its_manifest(data_dir: Path, kind: str, rows: int) -> None:
    out = data_dir / "out" / kind
    printed = json.loads(run(data_dir, kind, "--collection", "docs", "--out", str(out), "--unmeasured", "--json"))
    assert printed["rows"] == rows == len(out.read_text().splitlines())
    assert printed["file"] == str(out)
    assert json.loads((data_dir / "out" / f"{kind}.manifest.json").read_text())["sha256"] == printed["sha256"]


def test_export_says_what_it_wrote_and_what_is_missing(data_dir: Path) -> None:
    out = run(data_dir, "qrels", "--collection", "docs", "--out", str(data_dir / "q"))
    assert "4 rows of 2 queries" in out
    assert "2 timeout" in out


def test_export_says_when_nothing_is_known_of_the_judges(data_dir: Path) -> None:
    for kind in ("qrels", "triples"):
        out = run(data_dir, kind, "--collection", "docs", "--out", str(data_dir / "q"), "--unmeasured")
        assert "qualification: unknown" in out
        assert "was measured by nobody: no report is in force" in out


def test_unqualified_is_asked_for_by_a_flag_and_said(data_dir: Path) -> None:
    report = report_file(data_dir, positives=use("not_qualified", "precision below 0.8", {"precision": 0.6}))
    config = data_dir / "qrelay.yaml"
    config.write_text(f"sink: {{qualification: {report}}}")
    arguments = ("triples", "--collection", "docs", "--out", str(data_dir / "t"), "--config", str(config))
    with pytest.raises(InputError, match=r"precision below 0\.8 .*--unqualified"):
        run(data_dir, *arguments)
    assert "qualification: not_qualified, exported all the same (--unqualified)" in run(
        data_dir, *arguments, "--unqualified"
    )


@pytest.fixture
def measured(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the ledger and a qrelay.yaml that names a report by which the judge is not qualified."""
    report_file(data_dir, positives=use("not_qualified", "precision below 0.8", {"precision": 0.6}))
    (data_dir / "qrelay.yaml").write_text("sink: {qualification: qualification.json}")
    monkeypatch.chdir(data_dir)
    return data_dir


TRIPLES = ("triples", "--collection", "docs", "--out", "t")


def test_no_flag_is_needed_for_a_qualification_in_the_folders_file(measured: Path) -> None:
    with pytest.raises(InputError, match=r"precision below 0\.8 .*--unqualified"):
        run(measured, *TRIPLES)


def test_a_recorded_qualification_holds_without_the_file_in_any_folder_and_beside_any_other_file(
    measured: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    classes = {"sink": SinkSettings}
    write_record(find(None, measured, {}), classes)
    (measured / "qrelay.yaml").unlink()
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.chdir(elsewhere)
    (elsewhere / "other.yaml").write_text("sink: {max_negatives: 3}")
    for more in ((), ("--config", "other.yaml")):
        with pytest.raises(InputError, match=r"precision below 0\.8 .*--unqualified"):
            run(measured, *TRIPLES, *more)
    (elsewhere / "qrelay.yaml").write_text("sink: {qualification: ''}")  # found, not asked for
    with pytest.raises(InputError, match=r"precision below 0\.8 .*--unqualified"):
        run(measured, *TRIPLES)


def test_a_qualification_that_was_named_after_up_guards_commands_at_once_and_is_told(measured: Path) -> None:
    """The way of the README: label, then measure, then name the report."""
    file = measured / "qrelay.yaml"
    report = file.read_text()
    file.write_text("sink: {max_negatives: 3}")
    write_record(find(None, measured, {}), {"sink": SinkSettings})
    file.write_text(report)
    with pytest.raises(InputError, match=r"precision below 0\.8 .*--unqualified"):
        run(measured, *TRIPLES)
    told = difference(find(None, measured, {}), SinkSettings, "sink") or ""
    assert "and holds for commands, but is unset in the services" in told
    assert "sink.max_negatives is 10 there, 3 in force" in told


def test_a_file_that_differs_from_what_the_services_run_with_is_told_on_standard_error(measured: Path) -> None:
    write_record(find(None, measured, {}), {"sink": SinkSettings})
    (measured / "qrelay.yaml").write_text("sink: {max_negatives: 3}")
    qrels = ["qrels", "--collection", "docs", "--out", "q", "--data-dir", str(measured), "--json"]
    done = CliRunner().invoke(export, qrels, catch_exceptions=False, env=_clean())
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("note:")]
    assert "sink.max_negatives is 3 there, 10 in force" in line
    assert f'sink.qualification is unset there, "{measured}/qualification.json" in force' in line
    assert "take the file's" in line
    assert json.loads(done.stdout)


def test_a_judge_may_be_named_by_its_strategy(data_dir: Path) -> None:
    assert "4 rows" in run(
        data_dir, "qrels", "--collection", "docs", "--out", str(data_dir / "q"), "--judge", "graded"
    )


def test_a_ledger_may_be_named(data_dir: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    url = f"sqlite:///{data_dir / 'ledger.sqlite'}"
    assert "4 rows" in run(elsewhere, "qrels", "--collection", "docs", "--out", str(elsewhere / "q"), "--ledger", url)


def test_an_unknown_collection_fails_in_words(data_dir: Path) -> None:
    with pytest.raises(UnknownCollection, match="docs, none"):
        run(data_dir, "qrels", "--collection", "wiki", "--out", str(data_dir / "q"))


def test_a_collection_that_holds_nothing_to_export_fails_in_words(data_dir: Path) -> None:
    with pytest.raises(InputError, match="no judgment has a grade among 1 queries"):
        run(data_dir, "qrels", "--collection", "none", "--out", str(data_dir / "q"))
    assert not (data_dir / "q").exists()


def test_an_absent_ledger_fails_in_words(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="feed queries first"):
        run(tmp_path, "qrels", "--collection", "docs", "--out", str(tmp_path / "q"))


def test_exit_codes_are_0_1_and_2(data_dir: Path) -> None:
    def code(*arguments: str) -> tuple[int, str]:
        done = harness.called("export", *arguments, "--data-dir", str(data_dir))
        return done.returncode, done.stderr

    out = ("--out", str(data_dir / "q"))
    assert code("qrels", "--collection", "docs", *out)[0] == 0
    status, words = code("qrels", "--collection", "wiki", *out)
    assert (status, "Traceback" in words) == (1, False)
    assert "wiki" in words
    assert code("parquet", "--collection", "docs", *out)[0] == 2


def test_settings_report_every_problem_at_once() -> None:
    bad = {"QRELAY_SINK__NEGATIVE_THRESHOLD": "2", "QRELAY_SINK__MAX_NEGATIVES": "0"}
    with pytest.raises(ConfigError, match=r"(?s)negative_threshold.*max_negatives"):
        load_settings(SinkSettings, "sink", environ=bad)


def test_relevant_grades_add_to_the_known_scales() -> None:
    with pytest.raises(ConfigError, match="built-in"):
        load_settings(SinkSettings, "sink", environ={"QRELAY_SINK__RELEVANT_GRADES": "{stars: 3}"})


def test_every_setting_says_what_it_is() -> None:
    assert all(field.description for name, field in SinkSettings.model_fields.items() if name not in _NESTED)
    assert all(field.description for field in PublishSettings.model_fields.values())


_NESTED = {"nats", "grpc", "worker", "telemetry", "tls", "access", "publish", "training"}


def test_the_sink_exports_with_its_own_settings(tmp_path: Path) -> None:
    sink = load_sink(SinkSettings(data_dir=tmp_path, negative_threshold=0.01))
    sink.ledger.commit([judged_set()])
    assert b"".join(sink.export("docs", "triples", unmeasured=True).chunks()) == b""
    assert b"".join(sink.export("docs", "qrels").chunks()) != b""
    assert sink.info().details["ledger"].endswith("ledger.sqlite")
    assert (tmp_path / "ledger.sqlite").exists()
    sink.close()


def test_since_last_goes_on_where_the_last_export_ended(data_dir: Path) -> None:
    arguments = ("qrels", "--collection", "docs", "--since-last", "--json")
    first = json.loads(run(data_dir, *arguments, "--out", str(data_dir / "base")))
    assert (first["queries"], first["changes"]["from"]) == (2, 0)
    ledger = Ledger.open(data_dir / "ledger.sqlite")
    ledger.commit([judged_set("q3")])
    ledger.close()
    second = json.loads(run(data_dir, *arguments, "--out", str(data_dir / "more")))
    assert (second["queries"], second["changes"]["from"]) == (1, first["changes"]["to"])
    third = called(data_dir, *arguments[:-1], "--out", str(data_dir / "none"))
    assert f"continues {data_dir / 'more'}" in third.stderr
    since = ("--since", str(first["changes"]["to"]), "--out", str(data_dir / "again"))
    assert "2 rows of 1 queries" in run(data_dir, *arguments[:3], *since)


def test_splits_where_and_a_licence_are_options(data_dir: Path) -> None:
    options = ("--split", "train=0.5,test=0.5", "--group-by", "query", "--license", "mit", "--where", "grade>=0",
               "--unmeasured")  # fmt: skip
    out = run(data_dir, "hf", "--collection", "docs", "--out", str(data_dir / "hf"), *options)
    assert "train: " in out
    assert "license: mit" in (data_dir / "hf" / "README.md").read_text()


def test_help_lists_every_format_and_loads_none() -> None:
    code = (
        "import sys; from click.testing import CliRunner, Result; from qrelay.cli.labels.export import export;"
        "out = CliRunner().invoke(export, ['--help']).output; print(out);"
        "sys.exit(any(name in sys.modules for name in ('sqlalchemy', 'pyarrow', 'huggingface_hub')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(f"  {name} " in done.stdout for name in FORMATS)

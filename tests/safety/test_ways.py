"""Who may reach training data, over every way there; and that the list of ways is complete."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import click
import pytest

from qrelay.cli.main import qrelay
from qrelay.cli.train import train_command
from qrelay.errors import NotQualified
from qrelay.jobs.dispatcher import LAUNCHERS
from qrelay.labels.exports.catalogue import FORMATS
from qrelay.labels.ledger.ledger import Ledger
from qrelay.services.sink.service import _FORMATS
from qrelay.v1 import sink_pb2 as pb
from tests.labels.builders import FUSED, JUDGE, OTHER_JUDGE, graded, judged_set, judgment, with_labels
from tests.labels.test_qualification import report_file, use
from tests.safety.ways import COLLECTION, JUDGMENT_KINDS, SPLIT, WAYS, Place, called, exported, overrule

ROOT = Path(__file__).resolve().parents[2]
QUERIES = ("q1", "q2", "q3", "q4")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    ledger.commit([judged_set(name, outcomes=[graded(3), graded(0)], prefix="d") for name in QUERIES])
    ledger.close()
    return tmp_path


def fell_short(folder: Path) -> Path:
    bad = use("not_qualified", "too many of them are relevant", {"high": 0.4})
    return report_file(folder, positives=bad, negatives=bad)


@pytest.mark.parametrize("name", WAYS)
def test_labels_of_a_judge_that_nobody_measured_need_unmeasured(folder: Path, name: str) -> None:
    report_file(folder)  # it lies there; no setting names it
    words = r"was measured by nobody: no report is in force.*`qrelay judge slice --n 50`.*--unmeasured"
    for flags in ((), ("unqualified",)):
        with pytest.raises(NotQualified, match=words):
            WAYS[name](Place(fresh(folder, f"refused-{len(flags)}")), flags)
    WAYS[name](Place(fresh(folder, "allowed")), ("unmeasured",))


@pytest.mark.parametrize("name", WAYS)
def test_labels_of_a_judge_that_fell_short_need_unqualified(folder: Path, name: str) -> None:
    report = fell_short(folder)
    for flags in ((), ("unmeasured",)):
        with pytest.raises(NotQualified, match=r"is not qualified for .*: too many of them.*--unqualified"):
            WAYS[name](Place(fresh(folder, f"refused-{len(flags)}"), report), flags)
    WAYS[name](Place(fresh(folder, "allowed"), report), ("unqualified",))


@pytest.mark.parametrize("name", WAYS)
def test_labels_of_a_qualified_judge_and_of_people_alone_need_nothing(folder: Path, name: str) -> None:
    WAYS[name](Place(fresh(folder, "qualified"), report_file(folder)), ())
    people = Place(fresh(folder, "people"), overrides=True)
    ledger = Ledger.open(people.folder / "ledger.sqlite")
    overrule(ledger, *QUERIES)
    ledger.close()
    WAYS[name](people, ())


@pytest.mark.parametrize("name", WAYS)
def test_a_report_on_another_judge_measures_nobody(folder: Path, name: str) -> None:
    with pytest.raises(NotQualified, match="the report in force has no verdict on it"):
        WAYS[name](Place(fresh(folder, "other"), report_file(folder, OTHER_JUDGE)), ())


def fresh(folder: Path, name: str) -> Path:
    """A copy of the ledger in a folder of its own: what one way did, the next does not meet."""
    place = folder / name
    place.mkdir()
    (place / "ledger.sqlite").write_bytes((folder / "ledger.sqlite").read_bytes())
    return place


@pytest.mark.parametrize("kind", JUDGMENT_KINDS)
def test_judgments_for_evaluation_are_written_with_a_warning(folder: Path, kind: str) -> None:
    for report, words in ((None, "measured by nobody"), (fell_short(folder), "is not qualified for positives")):
        exported(kind, Place(folder, report), ())
        found = manifest(folder, kind)["qualification"]
        assert any(words in line for line in found["warnings"]), found["warnings"]
        (judge,) = found["judges"].values()
        assert judge["verdict"] == ("not_qualified" if report else "unmeasured")
        assert judge["let_through_by"] == []
    exported(kind, Place(folder, report_file(folder)), ())
    assert manifest(folder, kind)["qualification"]["warnings"] == []


def test_the_warning_is_on_standard_error_and_the_manifest_names_the_flag(folder: Path) -> None:
    from click.testing import CliRunner

    from qrelay.cli.labels.export import export

    words = ["--collection", COLLECTION, "--data-dir", str(folder), "--out"]
    done = CliRunner().invoke(export, ["qrels", *words, str(folder / "q"), "--json"])
    assert "warning: judge" in done.stderr and "measured by nobody" in done.stderr
    assert json.loads(done.stdout)["rows"] == 2 * len(QUERIES)
    done = CliRunner().invoke(export, ["triples", *words, str(folder / "t"), "--unmeasured"])
    assert "exported all the same (--unmeasured)" in done.stdout
    (judge,) = json.loads((folder / "t.manifest.json").read_text())["qualification"]["judges"].values()
    assert (judge["verdict"], judge["let_through_by"]) == ("unmeasured", ["--unmeasured"])


def test_judgments_through_the_door_pass_with_their_warning_in_the_manifest(folder: Path) -> None:
    called(pb.EXPORT_FORMAT_QRELS, Place(folder), ())


def test_a_fusion_is_measured_by_its_maps_verdict_and_not_by_its_parts(tmp_path: Path) -> None:
    """`qrelay judge qualify --calibration` gives its verdict to the map's hash, the fusion's in the ledger."""
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    record = judged_set("q1", outcomes=[graded(3), graded(0)])
    fused = [judgment("d0#0", graded(3), FUSED), judgment("d1#0", graded(0), FUSED)]
    ledger.commit([with_labels(record, *fused)])
    ledger.close()
    exported("triples", Place(tmp_path, report_file(tmp_path, FUSED)), ())
    with pytest.raises(NotQualified, match=r"fused.* was measured by nobody"):
        exported("triples", Place(tmp_path, report_file(tmp_path, JUDGE)), ())


def manifest(folder: Path, kind: str) -> dict[str, Any]:
    out = folder / f"out-{kind}"
    file = out / "manifest.json" if out.is_dir() else out.with_name(f"{out.name}.manifest.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


# the list of ways is complete


def test_every_format_with_labels_is_a_way() -> None:
    for name, kind in FORMATS.items():
        if kind.use == "none":
            continue
        assert (f"qrelay export {name}" in WAYS) is kind.trains("")
        assert (f"qrelay export {name} --split train" in WAYS) is not kind.trains("")
    assert SPLIT[1].startswith("train=")


def test_the_page_on_labels_says_of_every_format_whether_it_trains() -> None:
    text = (ROOT / "qrelay/labels/README.md").read_text("utf8")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line.startswith("| `")]
    told = {name.strip().strip("`"): said.strip() for names, said in rows for name in names.split(",")}
    for name, kind in FORMATS.items():
        expected = "no labels" if kind.use == "none" else "training" if kind.trains("") else "judgments"
        assert told[name] == expected, name


def test_every_call_of_the_sink_is_a_way_or_gives_no_training_data() -> None:
    """ListJudgedSets gives labels to judge again, to whoever may ingest; PromoteModel and the others, no labels."""
    harmless = {
        "Ingest", "StreamIngest", "ListJudgedSets", "GetQueryStates", "GetStats", "ListDeadLetters",
        "ReplayDeadLetters", "ListModels", "PromoteModel", "RollbackModel", "GetInfo",
    }  # fmt: skip
    methods = {method.name for method in pb.DESCRIPTOR.services_by_name["SinkService"].methods}
    assert methods - harmless == {"Export", "StartTraining"}
    for number, name in _FORMATS.items():
        assert (f"Export {pb.ExportFormat.Name(number)}" in WAYS) is FORMATS[name].trains("")
    assert set(_FORMATS) == set(pb.ExportFormat.values()) - {pb.EXPORT_FORMAT_UNSPECIFIED}


def test_every_launcher_is_a_way() -> None:
    assert {name.removeprefix("trigger by ") for name in WAYS if name.startswith("trigger by ")} == set(LAUNCHERS)


def test_every_command_that_reaches_training_data_has_the_two_flags_and_is_a_way() -> None:
    """Found among all commands by the modules that they lie in: those that import the exports or a job's maker."""
    flagged = {name for name, command in commands() if {"unmeasured", "unqualified"} <= parameters(command)}
    assert flagged == {"export", "push", "training run", "train", "rounds", "relabel"}
    for name in flagged - {"relabel"}:  # whose labels come from its own judge, not from the ledger: test_relabel.py
        assert any(way.startswith(f"qrelay {name}") for way in WAYS), name
    assert "job_file" in parameters(train_command)


def commands() -> list[tuple[str, click.Command]]:
    """Every command of `qrelay`, with its group's name."""
    found = []
    context = click.Context(qrelay)
    for top in qrelay.list_commands(context):
        command = qrelay.get_command(context, top)
        group = command if isinstance(command, click.Group) else click.Group()
        subs = [(each, group.get_command(context, each)) for each in group.list_commands(context)]
        found += [(top, command), *((f"{top} {name}", sub) for name, sub in subs)]
    return found


def parameters(command: click.Command) -> set[str]:
    return {str(each.name) for each in command.params}


def test_nothing_else_makes_exports_or_jobs() -> None:
    """Whoever writes an export or starts a job is known, and each of them is gone above."""
    assert importers("qrelay.labels.exports.export") == {
        "qrelay/cli/labels/export.py",  # qrelay export, and the request of push and of jobs
        "qrelay/cli/labels/push.py",
        "qrelay/labels/exports/publishing.py",  # no flag lets it: tests/jobs/test_publisher.py
        "services/sink/sink.py",  # the endpoint's Export
        "qrelay/jobs/permission.py",  # asks, and writes nothing
        "qrelay/training/job/data.py",  # jobs
    }
    assert {Path(each).parent.name for each in importers("qrelay.labels.exports.formats")} == {"formats"}
    assert importers("qrelay.jobs.launcher.TrainingJob") <= {
        "qrelay/jobs/dispatcher.py", "qrelay/jobs/kubernetes_job.py",
        "qrelay/jobs/kubernetes_launcher.py",
        "qrelay/jobs/subprocess_launcher.py",
    }  # fmt: skip
    assert importers("qrelay.jobs.decisions.trigger_manually") == {"qrelay/jobs/permission.py"}
    assert importers("qrelay.labels.examples.examples") == {
        "qrelay/labels/exports/source.py",
        "qrelay/labels/audit/audit.py", "qrelay/labels/audit/sample.py", "qrelay/labels/lineage/labelled.py",
        "qrelay/cli/labels/mine.py",  # counts and explains
    }  # fmt: skip
    assert importers("qrelay.labels.examples.example_of") == {
        "qrelay/jobs/counting.py",  # counts
        "qrelay/labels/browse/one.py",  # shows what mining makes of a query, on a page
    }


def importers(name: str) -> set[str]:
    """The modules that import `name`, a module or what is in one, at their top or in a function."""
    found = set()
    for folder in ("qrelay", "services", "trainer"):
        for path in (ROOT / folder).rglob("*.py"):
            if name.rpartition(".")[2] not in (text := path.read_text("utf8")):
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and any(
                    f"{node.module}.{each.name}".startswith(name) or node.module == name for each in node.names
                ):
                    found.add(str(path.relative_to(ROOT)))
    return found

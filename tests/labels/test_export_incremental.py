"""Increments merge to the whole, what is recorded is in place, folders are whole or absent, `where` and mining."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import BackendUnavailable, InputError
from qrelay.labels.exports.request import Request
from qrelay.labels.ledger.export_records import last_export
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, add
from qrelay.labels.mining.rounds import RoundLimits
from qrelay.types import Missing
from tests.labels.builders import JUDGE, OTHER_JUDGE, graded, judged_set, judgment, relabelled
from tests.labels.exporting import export_bytes, export_file


def export(ledger: Ledger, path: Path, kind: str = "qrels", **choices: Any) -> dict[str, Any]:
    return export_file(ledger, "docs", kind, path, unmeasured=True, **choices)


def since_last(ledger: Ledger, path: Path, kind: str = "qrels", **choices: Any) -> dict[str, Any]:
    """As `--since-last` does it."""
    request = Request("docs", kind, unmeasured=True, **choices)
    last = last_export(ledger, "docs", kind, request.selection(), request.describe_rules())
    return export(ledger, path, kind, since=last.to_change if last else 0, **choices)


def by_query(data: str, kind: str) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for line in data.splitlines():
        query_id = line.split(" ")[0] if kind == "qrels" else json.loads(line)["query_id"]
        found.setdefault(query_id, []).append(line)
    return found


def merged(base: Path, increments: list[Path], kind: str) -> str:
    """The base with each increment merged into it, as the documentation says."""
    rows = by_query(base.read_text(), kind)
    for path in increments:
        manifest = json.loads(path.with_name(path.name + ".manifest.json").read_text())
        rows = {key: lines for key, lines in rows.items() if key not in manifest["emptied"]}
        rows.update(by_query(path.read_text(), kind))
    return "".join(f"{line}\n" for _, lines in sorted(rows.items()) for line in lines)


@pytest.mark.parametrize("kind", ["qrels", "triples"])
def test_the_base_and_its_increments_merge_to_the_full_export(ledger: Ledger, tmp_path: Path, kind: str) -> None:
    ledger.commit([judged_set(f"q{n}") for n in range(6)])
    since_last(ledger, tmp_path / "base", kind)
    ledger.commit([judged_set("q3x"), judged_set("q9", outcomes=[Missing("timeout")])])
    first = since_last(ledger, tmp_path / "one", kind)
    # q1 loses its positive, and with it its triple; q2 keeps its grades from another judge.
    better = dataclasses.replace(JUDGE, strategy="cascade", decoding="stage-scores=no")
    ledger.rejudge([relabelled(judged_set("q1"), judgment("d0#0", graded(0), better))])
    ledger.rejudge([relabelled(judged_set("q2"), judgment("d2#0", graded(2), OTHER_JUDGE))])
    second = since_last(ledger, tmp_path / "two", kind)
    export(ledger, tmp_path / "full", kind)
    assert merged(tmp_path / "base", [tmp_path / "one", tmp_path / "two"], kind) == (tmp_path / "full").read_text()
    assert (first["queries"], second["ledger"]["queries"]) == (1, 2)
    assert second["emptied"] == (["q1"] if kind == "triples" else [])
    assert first["changes"]["to"] == second["changes"]["from"]


def test_an_increment_without_changes_is_empty_and_names_its_range(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set()])
    last = since_last(ledger, tmp_path / "base")["changes"]["to"]
    manifest = since_last(ledger, tmp_path / "more")
    assert (manifest["rows"], manifest["changes"]) == (0, {"from": last, "to": last})
    assert (tmp_path / "more").read_bytes() == b""


def test_an_increment_goes_on_only_from_an_export_of_the_same_selection(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set("q1")])
    since_last(ledger, tmp_path / "all")
    ledger.commit([judged_set("q2")])
    assert since_last(ledger, tmp_path / "relevant", where="relevant")["queries"] == 2
    assert since_last(ledger, tmp_path / "triples", "triples")["queries"] == 2
    assert since_last(ledger, tmp_path / "more")["queries"] == 1


def test_the_ledger_records_what_is_in_place(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set()])
    manifest = export(ledger, tmp_path / "qrels")
    request = Request("docs", "qrels")
    last = last_export(ledger, "docs", "qrels", request.selection(), request.describe_rules())
    assert last is not None
    assert (last.location, last.from_change, last.sha256) == (str(tmp_path / "qrels"), 0, manifest["sha256"])
    assert last.manifest == manifest
    with ledger.snapshot() as snapshot:
        assert last.to_change == snapshot.change_no("docs")


def test_a_plain_exports_manifest_names_no_change_for_those_depend_on_batches(
    sqlite_ledger: Ledger, tmp_path: Path
) -> None:
    sqlite_ledger.commit([judged_set()])
    manifest = export(sqlite_ledger, tmp_path / "qrels")
    assert "changes" not in manifest
    assert "change_no" not in manifest["ledger"]


def test_a_change_that_the_ledger_never_had_is_refused(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set()])
    with pytest.raises(InputError, match="is this the ledger"):
        export(ledger, tmp_path / "qrels", since=99)


_KILLED = """
import sys
from pathlib import Path
from tests.labels.exporting import export_file
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, add
folder, kind = Path(sys.argv[1]), sys.argv[2]
export_file(Ledger.open(folder / "ledger.sqlite"), "docs", kind, folder / "out" / kind, unmeasured=True)
"""


@pytest.mark.parametrize("point", ["sink.export.middle", "sink.export.rename"])
@pytest.mark.parametrize("kind", ["qrels", "beir"])
def test_a_killed_export_is_whole_or_absent_is_not_recorded_and_is_made_again(
    sqlite_ledger: Ledger, tmp_path: Path, point: str, kind: str
) -> None:
    sqlite_ledger.commit([judged_set(f"q{n}") for n in range(5)])
    armed = tmp_path / "faults"
    armed.mkdir()
    (armed / point).write_text("1")
    command = [sys.executable, "-c", _KILLED, str(tmp_path), kind]
    done = subprocess.run(command, env={**os.environ, "QRELAY_FAULTS": str(armed)}, check=False)
    assert done.returncode == -signal.SIGKILL
    request = Request("docs", kind, unmeasured=True)
    assert last_export(sqlite_ledger, "docs", kind, request.selection(), None) is None
    place = tmp_path / "out" / kind
    data = export_file(sqlite_ledger, "docs", kind, tmp_path / "reference" / kind, unmeasured=True)
    if place.is_file():
        assert place.read_bytes() == (tmp_path / "reference" / kind).read_bytes()
    else:
        assert not place.exists()
    assert export(sqlite_ledger, place, kind) == data
    left = {path.name for path in (tmp_path / "out").iterdir()}
    assert left == ({kind} if kind == "beir" else {kind, f"{kind}.manifest.json"})


def test_a_folder_is_replaced_only_if_it_is_an_export_of_ours(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    sqlite_ledger.commit([judged_set()])
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter1.txt").write_text("all of it")
    with pytest.raises(InputError, match="no export of qrelay: it stays"):
        export(sqlite_ledger, tmp_path / "thesis", "beir")
    assert (tmp_path / "thesis" / "chapter1.txt").read_text() == "all of it"
    export(sqlite_ledger, tmp_path / "out", "beir")
    export(sqlite_ledger, tmp_path / "out", "hf")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["README.md", "data", "manifest.json"]
    with pytest.raises(InputError, match="is a folder"):
        export(sqlite_ledger, tmp_path / "out", "qrels")


def test_a_failed_folder_leaves_the_former_one_and_no_litter(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    sqlite_ledger.commit([judged_set()])
    export(sqlite_ledger, tmp_path / "out" / "hf", "hf")
    before = (tmp_path / "out" / "hf" / "manifest.json").read_bytes()
    sqlite_ledger.commit([judged_set("q2", judge=dataclasses.replace(JUDGE, scale="stars"))])
    with pytest.raises(InputError, match="relevant_grades"):
        export(sqlite_ledger, tmp_path / "out" / "hf", "hf")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["hf"]
    assert (tmp_path / "out" / "hf" / "manifest.json").read_bytes() == before


def test_a_folder_in_a_place_that_cannot_be_is_named(sqlite_ledger: Ledger, tmp_path: Path) -> None:
    sqlite_ledger.commit([judged_set()])
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendUnavailable, match="cannot write"):
        export(sqlite_ledger, tmp_path / "file" / "beir", "beir")


@pytest.mark.parametrize(
    ("where", "passages"),
    [
        ("grade>=2", ["d0#0"]),
        ("p_relevant<0.1", ["d1#0"]),
        ("relevant", ["d0#0"]),
        ("judge=", None),
        ("strategy=graded", ["d0#0", "d1#0"]),
        ("query_id=q1 and grade=0", ["d1#0"]),
        ("query_id=q7", []),
    ],
)
def test_where_chooses_among_the_labels_that_count(ledger: Ledger, where: str, passages: list[str] | None) -> None:
    ledger.commit([judged_set("q1")])
    if passages is None:
        with pytest.raises(InputError, match="allowed are"):
            export_bytes(ledger, "docs", "qrels", where=where)
        return
    lines = b"".join(export_bytes(ledger, "docs", "qrels", where=where)).decode().splitlines()
    assert [line.split(" ")[2] for line in lines] == passages


def test_a_judge_that_where_names_and_nobody_knows_is_refused(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    with pytest.raises(InputError, match="no judge of the ledger fits"):
        b"".join(export_bytes(ledger, "docs", "qrels", where="strategy=binary"))


def test_a_positive_that_where_leaves_out_still_guards_its_document(sqlite_ledger: Ledger) -> None:
    record = judged_set("q1", outcomes=[graded(3), graded(3, 0.7), graded(0)])
    candidates = list(record.candidate_set.candidates)
    sibling = dataclasses.replace(candidates[2].passage, doc_id="d1")
    candidates[2] = dataclasses.replace(candidates[2], passage=sibling)
    sets = dataclasses.replace(record.candidate_set, candidates=tuple(candidates))
    sqlite_ledger.commit([dataclasses.replace(record, candidate_set=sets)])
    assert b"".join(export_bytes(sqlite_ledger, "docs", "triples", unmeasured=True)) == b""
    assert b"".join(export_bytes(sqlite_ledger, "docs", "triples", unmeasured=True, where="p_relevant>0.9")) == b""


def test_where_narrows_an_example_to_the_labels_that_are_meant(sqlite_ledger: Ledger) -> None:
    sqlite_ledger.commit([judged_set("q1", outcomes=[graded(3), graded(2), graded(0)])])
    where = "entropy>0.1"
    whole = json.loads(b"".join(export_bytes(sqlite_ledger, "docs", "triples", unmeasured=True, where=where)))
    assert len(whole["positives"]) == 2
    assert b"".join(export_bytes(sqlite_ledger, "docs", "triples", unmeasured=True, where="relevant")) == b""


def decide(ledger: Ledger, passage_id: str, grade: int | None) -> None:
    """A person's decision about a passage of q1."""
    with ledger.writing("record overrides") as connection:
        add(connection, "docs", [NewOverride("q1", passage_id, grade, "0-3", "ana")], ledger.now_us())


def test_peoples_decisions_win_only_where_they_are_asked_for(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set("q1")])
    decide(ledger, "d0#0", 1)
    decide(ledger, "d2#0", 2)
    plain = export(ledger, tmp_path / "plain")
    assert (plain["overrides"], plain["selection"]["overrides"]) == (0, False)
    assert (tmp_path / "plain").read_text() == "q1 0 d0#0 3\nq1 0 d1#0 0\n"
    asked = export(ledger, tmp_path / "asked", overrides=True)
    assert (asked["overrides"], asked["selection"]["overrides"]) == (2, True)
    assert (tmp_path / "asked").read_text() == "q1 0 d0#0 1\nq1 0 d1#0 0\nq1 0 d2#0 2\n"
    assert [judge["strategy"] for judge in asked["judges"]].count("human") == 1


def test_people_alone_may_be_asked_for(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1")])
    decide(ledger, "d0#0", 1)
    assert b"".join(export_bytes(ledger, "docs", "qrels", where="human")) == b"q1 0 d0#0 1\n"
    assert b"".join(export_bytes(ledger, "docs", "qrels", judge="human", overrides=True)) == b"q1 0 d0#0 1\n"
    with pytest.raises(InputError, match="--overrides"):
        b"".join(export_bytes(ledger, "docs", "qrels", judge="human"))


def test_a_decision_reaches_the_next_increment_and_so_does_its_withdrawal(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set("q1"), judged_set("q2")])
    since_last(ledger, tmp_path / "base", overrides=True)
    decide(ledger, "d0#0", 0)
    assert since_last(ledger, tmp_path / "one", overrides=True)["queries"] == 1
    decide(ledger, "d0#0", None)
    since_last(ledger, tmp_path / "two", overrides=True)
    export(ledger, tmp_path / "full", overrides=True)
    increments = [tmp_path / "one", tmp_path / "two"]
    assert merged(tmp_path / "base", increments, "qrels") == (tmp_path / "full").read_text()
    assert (tmp_path / "one").read_text() != (tmp_path / "two").read_text()


def test_a_rounds_limits_hold_for_each_increment_and_earlier_rounds_stay(ledger: Ledger, tmp_path: Path) -> None:
    limits = RoundLimits(examples=3)
    ledger.commit([judged_set(f"a{n}") for n in range(6)])
    since_last(ledger, tmp_path / "first", "triples", limits=limits)
    ledger.commit([judged_set(f"b{n}") for n in range(6)])
    since_last(ledger, tmp_path / "second", "triples", limits=limits)
    rows = by_query(merged(tmp_path / "first", [tmp_path / "second"], "triples"), "triples")
    assert len(rows) == 6
    assert sum(query_id.startswith("a") for query_id in rows) == 3
    whole = b"".join(export_bytes(ledger, "docs", "triples", unmeasured=True, limits=RoundLimits(negatives=2)))
    examples = [json.loads(line) for line in whole.splitlines()]
    assert sum(len(each["negatives"]) for each in examples) == 2

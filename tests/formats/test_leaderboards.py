"""Leaderboards and nuggets for TREC AutoJudge, read back by its own packages where they are installed."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.main import qrelay
from qrelay.errors import MalformedInput
from qrelay.formats.leaderboards import leaderboard_lines
from qrelay.judging.nuggets.records import (
    OKAY,
    VITAL,
    Assigned,
    Assignment,
    Nugget,
    NuggetList,
    assignment_line,
    list_line,
)

RUNS = {"good": ("d1", "d2", "d3"), "middling": ("d2", "d1", "d3"), "bad": ("d3", "d2", "d1")}


def board(folder: Path, name: str, grades: dict[str, int]) -> Path:
    """The leaderboard of RUNS under these grades of both queries."""
    qrels = folder / f"{name}.qrels"
    qrels.write_text("".join(f"{q} 0 {doc} {grade}\n" for q in ("q1", "q2") for doc, grade in grades.items()))
    files: list[Path] = []
    for system, ranking in RUNS.items():
        files.append(folder / f"{system}.run")
        files[-1].write_text(
            "".join(f"{q} Q0 {d} {n} {9 - n} {system}\n" for q in ("q1", "q2") for n, d in enumerate(ranking, 1))
        )
    words = [word for file in files for word in ("--run", str(file))]
    out = folder / f"{name}.eval.jsonl"
    command = ["eval", "leaderboard", "--qrels", str(qrels), *words, "--measure", "nDCG@10", "--measure", "RR@10"]
    done = CliRunner().invoke(qrelay, [*command, "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out


def test_the_leaderboard_has_every_topic_and_the_mean(tmp_path: Path) -> None:
    rows = [
        json.loads(line) for line in board(tmp_path, "people", {"d1": 2, "d2": 1, "d3": 0}).read_text().splitlines()
    ]
    assert len(rows) == 3 * 2 * 3
    values = {(row["run_id"], row["topic_id"], row["measure"]): row["value"] for row in rows}
    assert values["good", "q1", "nDCG@10"] == pytest.approx(1.0) and values["bad", "all", "RR@10"] == pytest.approx(
        0.5
    )


def test_what_is_missing_is_in_no_line_and_in_no_mean() -> None:
    lines = [json.loads(each) for each in leaderboard_lines([("a", "1", "m", 0.5), ("a", "2", "m", None)])]
    assert [(each["topic_id"], each["value"]) for each in lines] == [("1", 0.5), ("all", 0.5)]


def test_a_topic_of_the_name_that_means_all_is_refused() -> None:
    with pytest.raises(MalformedInput, match="rename"):
        list(leaderboard_lines([("a", "all", "m", 0.5)]))


def package(name: str) -> Any:
    """A module of AutoJudge's. Its packages load corpora of NLTK when they are imported, which may be absent too."""
    try:
        return importlib.import_module(name)
    except (ImportError, LookupError) as error:
        pytest.skip(f"autojudge-evaluate 1.1.0 cannot be imported: {str(error).strip()[:80]}")


def autojudge(*words: object) -> str:
    """What AutoJudge's own command prints."""
    done = CliRunner().invoke(package("autojudge_evaluate").main, [str(word) for word in words])
    assert done.exit_code == 0, f"{done.output}\n{done.exception!r}"
    return done.output


def test_autojudge_correlates_two_leaderboards(tmp_path: Path) -> None:
    people = board(tmp_path, "people", {"d1": 2, "d2": 1, "d3": 0})
    judge = board(tmp_path, "judge", {"d1": 1, "d2": 1, "d3": 0})
    out = tmp_path / "found.jsonl"
    autojudge("meta-evaluate", "--truth-leaderboard", people, "--truth-format", "jsonl", "--eval-format", "jsonl",
              "-i", judge, "--correlation", "kendall", "--output", out)  # fmt: skip
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    same = [row for row in rows if row["TruthMeasure"] == row["EvalMeasure"] == "nDCG@10"]
    assert same and same[0]["kendall"] == pytest.approx(0.8165, abs=1e-3)


def test_autojudge_takes_the_leaderboard_of_nugget_scores_and_its_own_means_are_ours(tmp_path: Path) -> None:
    assigned = tmp_path / "a.jsonl"
    assigned.write_text(
        "".join(assignment_line(found(run, q, said)) for q in ("q1", "q2") for run, said in
                (("good", "support"), ("bad", "not_support")))
    )  # fmt: skip
    out = tmp_path / "nuggets.eval.jsonl"
    done = CliRunner().invoke(qrelay, ["judge", "nuggets", "score", str(assigned), "--leaderboard", str(out)])
    assert done.exit_code == 0, done.output
    load = package("autojudge_evaluate.eval_results").load
    told = {"recompute_aggregates": False, "verify": True, "on_missing": "error"}
    kept = load(out, "jsonl", **told)
    fresh = load(out, "jsonl", drop_aggregates=True, **{**told, "recompute_aggregates": True})
    assert {str(each) for each in kept.entries} == {str(each) for each in fresh.entries}
    assert "nugget_vital" in autojudge("leaderboard", "--eval-format", "jsonl", "-i", out)


def found(run: str, query_id: str, said: str, text_id: str = "") -> Assignment:
    grade = float(said == "support")
    nugget = Assigned(Nugget("sorted sorts", VITAL, 0.9), said, (1 - grade, 0.0, grade))
    return Assignment(query_id, run, text_id or run, (nugget,), {"model": "m"})


def test_autojudge_compares_passages_that_support_nuggets_with_qrels(tmp_path: Path) -> None:
    assigned, folder, qrels = tmp_path / "a.jsonl", tmp_path / "docs", tmp_path / "people.qrels"
    assigned.write_text(
        assignment_line(found("", "q1", "support", "p1")) + assignment_line(found("", "q1", "not_support", "p2"))
    )
    done = CliRunner().invoke(qrelay, ["judge", "nuggets", "score", str(assigned), "--nugget-docs", str(folder)])
    assert done.exit_code == 0, done.output
    assert json.loads((folder / "nuggets_q1.json").read_text()) == {
        "sorted sorts": ["OR", {"OPEN_ENDED_ANSWER": ["p1"]}]
    }
    qrels.write_text("q1 0 p1 1\nq1 0 p2 0\n")
    out = tmp_path / "found.jsonl"
    autojudge("qrel-evaluate", "--truth-qrels", qrels, "--predict-nugget-docs", folder, "--output", out)
    first: dict[str, Any] = json.loads(out.read_text().splitlines()[0])
    assert first["Topic"] == "q1" and first["Precision"] == first["Recall"] == 1.0


def test_nugget_lists_are_nuggetizers_as_autojudge_reads_them(tmp_path: Path) -> None:
    banks = package("autojudge_base.nugget_data.nuggetizer.nuggetizer_data")
    path = tmp_path / "n.jsonl"
    whole = NuggetList("q1", "how?", (Nugget("a", VITAL, 0.9), Nugget("b", OKAY, 0.1), Nugget("c")), {"model": "m"})
    path.write_text(list_line(whole))
    read = banks.load_nuggetizer_banks_from_file(path).banks["q1"]
    assert [(each.text, each.importance) for each in read.nuggets] == [("a", VITAL), ("b", OKAY), ("c", None)]

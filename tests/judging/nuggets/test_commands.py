"""The commands of nuggets: from passages to scores; a kill costs nothing twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from qrelay.cli.main import qrelay
from qrelay.errors import BudgetExhausted
from qrelay.judging.nuggets.records import (
    list_line,
)
from tests.judging.nuggets.samples import QUERY, nuggets

ROOT = Path(__file__).resolve().parents[3]


def invoked(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(qrelay, ["judge", "nuggets", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.stdout


def slice_of(folder: Path) -> Path:
    rows = [
        ("p1", 2, "Use sorted to sort a list. It returns a new one."),
        ("p2", 1, "Lists hold items."),
        ("p3", 0, "Bananas."),
    ]
    lines = ["query_id\tpassage_id\tgrade\tquery\ttitle\ttext"]
    lines += [f"q1\t{name}\t{grade}\t{QUERY}?\t\t{text}" for name, grade, text in rows]
    (folder / "slice.tsv").write_text("\n".join(lines) + "\n")
    return folder / "slice.tsv"


def engine(folder: Path) -> list[object]:
    return ["--backend", "fake", "--data-dir", folder / "data", "--json"]


def test_the_commands_go_from_passages_to_the_scores_of_systems(tmp_path: Path) -> None:
    lists, texts, out = tmp_path / "n.jsonl", tmp_path / "t.jsonl", tmp_path / "a.jsonl"
    made = json.loads(
        invoked("create", "--slice", slice_of(tmp_path), "--relevant-from", 2, "--out", lists, *engine(tmp_path))
    )
    assert made["queries"] == 1 and made["nuggets"] == 1 and made["missing"] == {}
    texts.write_text('{"query_id": "q1", "run_id": "good", "text": "Use sorted to sort a list."}\n'
                     '{"query_id": "q1", "run_id": "bad", "text": "Bananas."}\n')  # fmt: skip
    told = json.loads(invoked("assign", "--nuggets", lists, "--texts", texts, "--out", out, *engine(tmp_path)))
    assert told["texts"] == 2 and told["missing"] == {}
    board = tmp_path / "board.jsonl"
    found = json.loads(invoked("score", out, "--leaderboard", board, "--json"))
    assert found["runs"]["good"]["all"] > found["runs"]["bad"]["all"] == 0.0
    rows = [json.loads(line) for line in board.read_text().splitlines()]
    assert {row["topic_id"] for row in rows} == {"q1", "all"} and {row["run_id"] for row in rows} == {"good", "bad"}


def test_passages_are_scored_as_a_run(tmp_path: Path) -> None:
    lists, out, run = tmp_path / "n.jsonl", tmp_path / "a.jsonl", tmp_path / "n.run"
    lists.write_text(list_line(nuggets("sorted sort list")))
    invoked("assign", "--nuggets", lists, "--slice", slice_of(tmp_path), "--out", out, *engine(tmp_path))
    invoked("score", out, "--run", run, "--measure", "expected")
    assert run.read_text().splitlines()[0].split()[:4] == ["q1", "Q0", "p1", "1"]
    invoked("score", out, "--leaderboard", tmp_path / "l", code=2)
    invoked("score", out, "--measure", "recall", code=2)


def test_texts_of_queries_without_nuggets_are_told_and_the_exit_code_says_so(tmp_path: Path) -> None:
    lists, texts = tmp_path / "n.jsonl", tmp_path / "t.jsonl"
    lists.write_text(list_line(nuggets("x")))
    texts.write_text('{"query_id": "q9", "run_id": "a", "text": "x"}\n')
    said = invoked("assign", "--nuggets", lists, "--texts", texts, "--out", tmp_path / "a", *engine(tmp_path), code=3)
    assert json.loads(said)["missing"] == {"skipped": 1}


def test_a_used_up_budget_ends_the_command_which_continues_when_there_is_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists = tmp_path / "n.jsonl"
    asked = ["create", "--slice", slice_of(tmp_path), "--relevant-from", 2, "--out", lists, *engine(tmp_path)]
    monkeypatch.setenv("QRELAY_JUDGE__BUDGET__TOKENS_PER_RUN", "1")
    done = CliRunner().invoke(qrelay, ["judge", "nuggets", *map(str, asked)])
    assert isinstance(done.exception, BudgetExhausted) and not lists.exists()
    monkeypatch.delenv("QRELAY_JUDGE__BUDGET__TOKENS_PER_RUN")
    assert json.loads(invoked(*asked))["nuggets"] == 1


def test_a_second_run_of_the_same_command_asks_nothing(tmp_path: Path) -> None:
    words = [
        "create",
        "--slice",
        slice_of(tmp_path),
        "--relevant-from",
        1,
        "--out",
        tmp_path / "n",
        *engine(tmp_path),
    ]
    first = invoked(*words)
    journal = tmp_path / "n.journal.jsonl"
    held = journal.read_bytes()
    assert invoked(*words) == first and journal.read_bytes() == held


def test_a_killed_command_pays_for_nothing_twice_and_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    lists, texts = tmp_path / "n.jsonl", tmp_path / "t.jsonl"
    lists.write_text(list_line(nuggets(*[f"fact {n}" for n in range(20)])))
    texts.write_text("".join(f'{{"query_id": "q1", "run_id": "r{n}", "text": "fact {n}"}}\n' for n in range(6)))
    words = ["assign", "--nuggets", lists, "--texts", texts, *engine(tmp_path)]
    whole = invoked(*words, "--out", tmp_path / "whole")
    command = [
        sys.executable,
        "-m",
        "qrelay.cli.main",
        "judge",
        "nuggets",
        *map(str, words),
        "--out",
        str(tmp_path / "cut"),
    ]
    process = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "QRELAY_JUDGE__FAKE__SERVICE_TIME_S": "0.2"}, stderr=subprocess.DEVNULL
    )
    journal = tmp_path / "cut.journal.jsonl"
    while not (journal.exists() and journal.stat().st_size):
        assert process.poll() is None, "it ended before it was killed"
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert not (tmp_path / "cut").exists()
    before = journal.read_bytes().count(b"\n")
    assert invoked(*words, "--out", tmp_path / "cut") == whole
    keys = [json.loads(line)["key"] for line in journal.read_text().splitlines()]
    assert 0 < before < 120 == len(keys) == len(set(keys))
    assert (tmp_path / "cut").read_bytes() == (tmp_path / "whole").read_bytes()


def test_the_benchmark_measures_both_and_continues(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    docs = {f"d{q}{n}": f"fact {n} of topic {q}." for q in range(3) for n in range(4)}
    rows = [json.dumps({"_id": name, "title": "", "text": text}) for name, text in docs.items()]
    (data / "corpus.jsonl").write_text("\n".join(rows) + "\n")
    queries = [json.dumps({"_id": f"q{q}", "text": f"what is topic {q}?"}) for q in range(3)]
    (data / "queries.dev.jsonl").write_text("\n".join(queries) + "\n")
    answers = [json.dumps({"_id": f"q{q}", "answers": [f"fact 3 of topic {q}."]}) for q in range(3)]
    (data / "answers.dev.jsonl").write_text("\n".join(answers) + "\n")
    qrels = [f"q{q}\td{q}{n}\t{n + 1}" for q in range(3) for n in range(4)]
    (data / "qrels.dev.tsv").write_text("query-id\tcorpus-id\tscore\n" + "\n".join(qrels) + "\n")
    command = [sys.executable, "-m", "benchmarks.nuggets", "--data", str(data), "--out", str(tmp_path / "out"),
               "--backend", "fake", "--model", "fake", "--questions", "3", "--texts", "4"]  # fmt: skip
    found = [subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True) for _ in range(2)]
    assert found[0].stdout == found[1].stdout
    told = json.loads(found[0].stdout)
    assert told["questions"] == 3 and told["by_measure"]["all"]["texts"] == 12 and told["preferences"]["pairs"] > 0

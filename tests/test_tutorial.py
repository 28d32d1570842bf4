"""The tutorial is typed as it stands, in order, with the shipped fakes in the places of the models."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "tutorial.md"
FAKES = {"QRELAY_JUDGE__BACKEND": "fake", "QRELAY_RETRIEVER__EMBEDDER": "hash"}
WITH_FILES_OF_YOURS = "held-out.jsonl"
"""A block that names it starts from files that the page does not make."""


def typed() -> Iterator[str]:
    """The page's blocks of commands that the reader can type, from the second step on: the first one installs."""
    text = PAGE.read_text("utf8")
    text = text[text.index("\n## 2.") :]
    for block in re.findall(r"(?:^ {4}.*\n|^\n(?= {4}))+", text, re.MULTILINE):
        commands = re.sub(r"^ {4}", "", block, flags=re.MULTILINE)
        if re.match(r"\s*(?:qrelay|cat|echo) ", commands) and WITH_FILES_OF_YOURS not in commands:
            yield commands


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    run("qrelay down", tmp_path)


def run(commands: str, folder: Path) -> str:
    """What a shell prints that stops at the first command that fails; services take free ports."""
    commands = commands.replace("up --detach", "up --detach --port-base 0")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environ = {**os.environ, **FAKES, "PATH": path}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands], cwd=folder, env=environ, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{commands}\n{done.stdout}"
    return done.stdout


def grade(path: Path) -> None:
    """What the reader does by hand: a grade for every pair. One of each question is relevant."""
    with path.open(encoding="utf8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    first = {row["query_id"]: row["passage_id"] for row in reversed(rows)}
    for row in rows:
        row["grade"] = "3" if row["passage_id"] == first[row["query_id"]] else "0"
    with path.open("w", encoding="utf8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_the_tutorial_can_be_typed_from_its_second_step_to_its_plan(folder: Path) -> None:
    said = ""
    for commands in typed():
        said += run(commands, folder)
        if "judge slice" in commands:
            grade(folder / "slice.tsv")
    assert "accepted 8, known before 0, rejected 0; committed 8, dead letters 0" in said
    assert "accepted 0, known before 8" in said, "fed again, after a stop"
    assert "committed 8, dead letters 0, in flight 0" in said
    made = ("mine.qrels", "bm25.run", "qualification.json", "report/report.html", "triples.jsonl", "beir")
    assert all((folder / name).exists() for name in made)

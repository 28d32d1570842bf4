"""The Python blocks of the README and of the client's page run, cell by cell, against real services."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.harness import DOUBLES, IMPATIENT, Installation

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "docs/client.md")
HASHED = {"QRELAY_RETRIEVER__ENGINE": "embedded", "QRELAY_RETRIEVER__EMBEDDER": "hash"}


def blocks(page: str) -> list[str]:
    found = re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text("utf8"), re.MULTILINE | re.DOTALL)
    assert found, page
    return found


def run(cell: str, names: dict[str, Any]) -> Any:
    """As a notebook runs a cell: the value of its last expression, shown both ways."""
    tree = ast.parse(cell)
    last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
    exec(compile(tree, "cell", "exec"), names)
    if not isinstance(last, ast.Expr):
        return None
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    assert repr(value)
    assert getattr(value, "_repr_html_", lambda: "<table>")().startswith(("<table>", "<div>"))
    return value


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A working folder with an installation in .qrelay, and a corpus."""
    folder = tmp_path_factory.mktemp("documents")
    rows = ({"_id": f"d{n}", "title": f"Page {n}", "text": f"How to parse JSON, part {n}."} for n in range(20))
    (folder / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Installation(folder / ".qrelay", {**DOUBLES, **IMPATIENT}):
        yield folder


@pytest.mark.parametrize("page", PAGES)
def test_every_python_block_runs_in_order(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(folder)
    monkeypatch.delenv("QRELAY_DATA_DIR", raising=False)
    for name, value in {**DOUBLES, **IMPATIENT, **HASHED}.items():
        monkeypatch.setenv(name, value)
    names: dict[str, Any] = {"__name__": "__main__"}
    shown = [run(cell, names) for cell in blocks(page)]
    assert any(each is not None for each in shown)
    names["client"].close()
    printed = capsys.readouterr().out
    if page == "docs/client.md":
        assert "refused: " in printed and "unknown_collection" in printed
        assert re.search(r"d\d+#0 +\d", printed), "the labels of the services of one's own"


def test_the_example_labels_queries_and_reads_the_labels_back(folder: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "client.py"), "example", "how does it work?", "why?"]
    environ = {**os.environ, "QRELAY_DATA_DIR": str(folder / ".qrelay")}
    for _ in range(2):  # again adds nothing
        done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
        rows = [line.split("\t") for line in done.stdout.splitlines()]
        assert {text for text, _, _ in rows} == {"how does it work?", "why?"}
        assert len(rows) == len({(text, passage) for text, passage, _ in rows})
        assert all(label.startswith("Graded(grade=") for _, _, label in rows)

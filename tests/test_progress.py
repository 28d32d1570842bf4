"""Long steps reach whoever listens, and plain lines say each of them once."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from qrelay.output import show
from qrelay.progress import Lines, Progress, listening, shown, step, tell, watching


def test_a_step_inside_another_ends_without_a_word_about_the_outer_one() -> None:
    said: list[str] = []
    with listening(Lines(said.append)), step("loading") as outer:
        with step("converting", total=3, unit="tensors") as inner:
            inner.advance(1)
            outer.advance(0)
        with step("compiling"):
            pass
    assert said == ["loading", "converting: 0 of 3 tensors", "compiling"]


def test_the_end_of_a_step_that_nobody_heard_of_is_no_line() -> None:
    said: list[str] = []
    with listening(Lines(said.append)):
        tell(Progress("judge: starting", finished=True))
    assert said == []


def test_without_a_listener_nothing_is_said() -> None:
    with step("loading") as loading:
        loading.advance(1)
    tell(Progress("loading"))


def test_a_pipe_gets_lines_also_where_colours_are_forced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    pipe = io.StringIO()
    with shown(Console(file=pipe)), step("reading", total=2, unit="files") as reading:
        reading.advance(2)
    assert pipe.getvalue().splitlines()[0] == "reading: 0 of 2 files" and "\x1b" not in pipe.getvalue()
    show("a line " * 40, file=pipe)
    assert "a line " * 40 in pipe.getvalue()


def test_a_folder_that_vanishes_while_it_is_looked_at_ends_no_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    (tmp_path / "file").write_bytes(b"seven b")
    listed = os.scandir

    def vanishing(path: Any) -> Any:
        if Path(path).name == "gone":
            raise FileNotFoundError(path)
        return listed(path)

    reports: list[int] = []
    twice = threading.Event()

    def report(size: int) -> None:
        reports.append(size)
        if len(reports) > 1:
            twice.set()

    with monkeypatch.context() as patched:  # undone before pytest removes tmp_path
        patched.setattr(os, "scandir", vanishing)
        with watching(tmp_path, report):
            assert twice.wait(60)
    assert set(reports) == {7}

"""Long steps reach whoever listens, and plain lines say each of them once."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from qrelay.output import show
from qrelay.progress import Lines, Progress, listening, shown, step, tell


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

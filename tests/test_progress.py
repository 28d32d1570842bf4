"""Long steps reach whoever listens, and plain lines say each of them once."""

from __future__ import annotations

from qrelay.progress import Lines, Progress, listening, step, tell


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

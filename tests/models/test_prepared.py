"""Copies of models: made once, whole or absent, and refused in one line where there is no room."""

from __future__ import annotations

import multiprocessing
import os
import signal
from multiprocessing.synchronize import Event
from pathlib import Path

import pytest

from qrelay.errors import ModelError
from qrelay.models.prepared import (
    Room,
    copies_dir,
    prepared,
    remove_leftovers,
    require_memory_for,
)
from qrelay.progress import Progress, listening

SPAWN = multiprocessing.get_context("spawn")
NO_ROOM_NEEDED = Room(0, 0)


def write(folder: Path) -> None:
    (folder / "weights").write_text("whole")


def write_and_hang(home: Path, begun: Event) -> None:
    def make(folder: Path) -> None:
        (folder / "weights").write_text("half")
        begun.set()
        signal.pause()

    prepared("copy", make, NO_ROOM_NEEDED, "a copy", home=home)


def write_and_count(home: Path, counts: Path) -> None:
    def make(folder: Path) -> None:
        (counts / str(os.getpid())).touch()
        write(folder)

    prepared("copy", make, NO_ROOM_NEEDED, "a copy", home=home)


def killed_while_writing(home: Path) -> None:
    begun = SPAWN.Event()
    process = SPAWN.Process(target=write_and_hang, args=(home, begun))
    process.start()
    assert begun.wait(120)
    process.kill()
    process.join()


def test_a_copy_is_made_once(tmp_path: Path) -> None:
    made = prepared("copy", write, NO_ROOM_NEEDED, "a copy", home=tmp_path)
    again = prepared("copy", lambda _: pytest.fail("made twice"), NO_ROOM_NEEDED, "a copy", home=tmp_path)
    assert made == again
    assert (again / "weights").read_text() == "whole"


def test_processes_that_want_the_same_copy_make_it_once(tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    counts.mkdir()
    processes = [SPAWN.Process(target=write_and_count, args=(tmp_path, counts)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert len(list(counts.iterdir())) == 1


def test_a_killed_try_leaves_no_copy_and_the_next_one_takes_its_place(tmp_path: Path) -> None:
    killed_while_writing(tmp_path)
    assert not (copies_dir(tmp_path) / "copy").exists()
    assert (prepared("copy", write, NO_ROOM_NEEDED, "a copy", home=tmp_path) / "weights").read_text() == "whole"
    assert not list(copies_dir(tmp_path).glob("*.unfinished"))


def test_what_killed_tries_left_is_removed(tmp_path: Path) -> None:
    killed_while_writing(tmp_path)
    (left,) = copies_dir(tmp_path).glob("*.unfinished")
    assert remove_leftovers(home=tmp_path) == [left]
    assert not left.exists()


def test_a_failure_leaves_nothing_and_is_told(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise ModelError("not convertible")

    with pytest.raises(ModelError, match="not convertible"):
        prepared("copy", fail, NO_ROOM_NEEDED, "a copy", home=tmp_path)
    assert [path.suffix for path in copies_dir(tmp_path).iterdir()] in ([], [".lock"])


@pytest.mark.parametrize(("room", "lacks"), [(Room(1e18, 0), "GB of disk"), (Room(0, 1e18), "GB of memory")])
def test_too_little_room_is_said_in_one_line_with_a_smaller_model_before_anything_is_done(
    room: Room, lacks: str, tmp_path: Path
) -> None:
    smaller = "set judge.model to small"
    with pytest.raises(ModelError, match=f"a copy needs .*{lacks}.*{smaller}") as caught:
        prepared("copy", lambda _: pytest.fail("begun"), room, "a copy", smaller=smaller, home=tmp_path)
    assert "\n" not in str(caught.value)


def test_whoever_waits_for_another_process_hears_of_it(tmp_path: Path) -> None:
    from filelock import FileLock

    copies_dir(tmp_path).mkdir(parents=True)
    lock = FileLock(copies_dir(tmp_path) / "copy.lock")
    lock.acquire()
    said: list[str] = []

    def listen(progress: Progress) -> None:
        said.append(progress.name)
        if lock.is_locked:
            lock.release()

    with listening(listen):
        prepared("copy", write, NO_ROOM_NEEDED, "a copy", home=tmp_path)
    assert said[0] == "waiting for another process that prepares a copy"


def test_a_copy_that_is_there_is_not_loaded_where_memory_is_too_small_for_it(tmp_path: Path) -> None:
    with (tmp_path / "model.bin").open("wb") as weights:
        weights.truncate(2**42)  # a hole: no byte of it is on the disk
    with pytest.raises(ModelError, match=r"the judge needs .* GB of memory, and .* available: .*, or choose another"):
        require_memory_for(tmp_path, "the judge", "choose another")
    (tmp_path / "model.bin").write_bytes(b"small")
    require_memory_for(tmp_path, "the judge")

"""`qrelay up` keeps its services running, and knows when one was meant to end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from qrelay.cli.up import Child, Supervisor, build
from qrelay.errors import SetupError


def ended(tmp_path: Path, code: int) -> tuple[Supervisor, Child, list[str]]:
    """A supervisor with one child that has exited with `code`, and what it says."""
    process = subprocess.Popen([sys.executable, "-c", f"raise SystemExit({code})"])
    process.wait(30)
    log = tmp_path / "judge.log"
    log.write_text("the last words\n")
    child = Child("judge", log, {}, process)
    said: list[str] = []
    return Supervisor([child], None, said.append), child, said


def test_a_service_that_ended_as_it_should_stays_down(tmp_path: Path) -> None:
    supervisor, child, said = ended(tmp_path, 0)
    for _ in range(3):
        supervisor.watch_once()
    assert (child.process, child.restart_at) == (None, 0.0)
    assert len(said) == 1
    assert "stays down" in said[0]


def test_a_service_that_failed_is_started_again(tmp_path: Path) -> None:
    supervisor, child, said = ended(tmp_path, 1)
    supervisor.watch_once()
    assert child.restart_at > 0
    assert "starting it again" in said[0]


def test_a_service_that_cannot_run_ends_everything_with_its_last_words(tmp_path: Path) -> None:
    supervisor, _, _ = ended(tmp_path, 78)
    with pytest.raises(SetupError, match="the last words"):
        supervisor.watch_once()


def qrelay(folder: Path, *arguments: str, code: int = 0, **environ: str) -> str:
    """A command in the folder without any other QRELAY_ variable; what it says on both outputs."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("QRELAY_")}
    root = str(Path(__file__).resolve().parents[1])
    done = subprocess.run(
        [sys.executable, "-m", "qrelay.cli.main", *arguments], cwd=folder, capture_output=True, text=True,
        env={**clean, "PYTHONPATH": root, **environ}, check=False,
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_wrong_settings_of_any_service_are_all_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "qrelay.yaml").write_text("judge: {backend: fak}\nsink: {max_negativs: 3}\n")
    said = qrelay(tmp_path, "up", "--only", "sink", code=78)
    assert "judge.backend" in said
    assert "did you mean max_negatives?" in said
    assert not (tmp_path / ".qrelay").exists()


def test_up_records_what_its_services_run_with_and_says_what_the_file_changes(tmp_path: Path) -> None:
    file, up = tmp_path / "qrelay.yaml", ("up", "--detach", "--only", "sink", "--port-base", "0")
    file.write_text("sink: {max_negatives: 4}\njudge: {backend: fake}\n")
    try:
        qrelay(tmp_path, *up, QRELAY_SINK__JUDGE_RANK="3")
        record = yaml.safe_load((tmp_path / ".qrelay" / "settings.yaml").read_text())
        assert record["settings"]["sink"] == {"max_negatives": 4, "judge_rank": "3"}
        assert record["from"]["sink.judge_rank"] == "QRELAY_SINK__JUDGE_RANK"
        file.write_text("sink: {max_negatives: 5}\n")
        told = qrelay(tmp_path, "config", "sink")
        assert "max_negatives: 4  # .qrelay/settings.yaml (from qrelay.yaml)" in told
        assert "sink.max_negatives is 5 there, 4 in force" in told
        qrelay(tmp_path, "down")
        said = qrelay(tmp_path, *up)
        assert "changed: sink: max_negatives was 4, is now 5 (qrelay.yaml)" in said
        assert "changed: sink: judge_rank was 3, is now 1 (default)" in said
    finally:
        qrelay(tmp_path, "down")


def test_a_service_of_up_is_started_with_the_record_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRELAY_SINK__MAX_NEGATIVES", "3")
    monkeypatch.setenv("QRELAY_CONFIG", "elsewhere.yaml")
    (child,) = build(tmp_path, "nats://127.0.0.1:1", None, 0, ("sink",), print).children
    assert "QRELAY_SINK__MAX_NEGATIVES" not in child.environ
    assert child.environ["QRELAY_CONFIG"] == str(tmp_path / "settings.yaml")
    assert child.environ["QRELAY_DATA_DIR"] == str(tmp_path)

"""What a tracker is told, without the library of any."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import pytest

from qrelay.errors import MalformedInput
from qrelay.integrations.tracking import records
from qrelay.models.registry import Registry
from qrelay.training.job.result import NOT_ENOUGH, PROMOTED, SlotResult
from qrelay.training.job.tracked import track
from tests.models.registry.models import published

RUN = {
    "state": "done",
    "experiment": {"losses": {"kl": 0.5}, "model": None},
    "stages": [{"stage": "train", "steps": 3, "losses": {"loss": 0.1}}],
    "dev": {"metric": "nDCG@10", "after": 0.5},
}
LOG = [{"loss": 0.5, "step": 1, "epoch": 0.1}, {"nDCG@10": 0.5, "step": 2}]


def run(folder: Path) -> Path:
    (folder / "checkpoints" / "train").mkdir(parents=True)
    (folder / "checkpoints" / "train" / "log.json").write_text(json.dumps(LOG))
    (folder / "run.json").write_text(json.dumps(RUN))
    return folder


def test_a_run_is_its_settings_its_figures_and_its_curve(tmp_path: Path) -> None:
    (found,) = records(run(tmp_path / "job"))
    assert (found.kind, found.name, found.documents) == ("training", "job", {"run.json": RUN})
    assert found.params == {"experiment.losses.kl": "0.5"}
    assert found.metrics == {"stages.train.steps": 3.0, "stages.train.losses.loss": 0.1, "dev.after": 0.5}
    assert [*found.curve] == [(1, {"train.loss": 0.5, "train.epoch": 0.1}), (2, {"train.nDCG@10": 0.5})]


@pytest.mark.parametrize(
    ("content", "words"),
    [('{"state": "running"}', "not ended"), ("[]", "no JSON object"), ("{", "cannot be read")],
)
def test_a_run_that_has_not_ended_or_is_none_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(MalformedInput, match=words):
        list(records(tmp_path))


def test_a_tracker_that_is_absent_fails_no_job_and_the_command_in_the_log_finds_all_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", None)
    monkeypatch.delitem(sys.modules, "qrelay.integrations.track_mlflow", raising=False)
    registry, job = Registry(tmp_path / "a registry"), tmp_path / "job 1"
    version = published(registry, "a")
    run(job / "bi_encoder")
    (job / "job.json").write_text("{}")
    slots = [SlotResult("bi_encoder", PROMOTED, "", version), SlotResult("cross_encoder", NOT_ENOUGH, "few")]
    track(["mlflow"], registry, job, slots)
    asked = shlex.split(caplog.text.split("`")[1])
    assert (asked[:2], asked[-2:]) == (["qrelay", "track"], ["--to", "mlflow"])
    assert [found.kind for path in asked[2:-2] for found in records(Path(path))] == ["training", "version"]

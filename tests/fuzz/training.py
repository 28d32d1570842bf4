"""Files of training: experiments, the gate's rules, jobs, rounds, and the runs that trackers are told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from qrelay.integrations.tracking import records
from qrelay.jobs.folder import JobFolder
from qrelay.jobs.kubernetes_job import JOB_ANNOTATION, is_of
from qrelay.jobs.launcher import TrainingJob
from qrelay.jobs.subprocess_launcher import SubprocessLauncher, _file_errors, _require_same
from qrelay.training.experiment import load_experiment, shipped
from qrelay.training.gate.facts import read_query_hashes
from qrelay.training.gate.rules import GateRules, read_rules
from qrelay.training.job.data import prepare
from qrelay.training.job.job import Job, read_job
from qrelay.training.job.result import JobResult, SlotResult, read_result, read_slot
from qrelay.training.record import begin
from qrelay.training.rounds.state import Round, Series, StateFile
from qrelay.training.settings import TrainerSettings
from tests.fuzz.parser import ROOT, Parser, beside, constant, each, file, written
from tests.fuzz.reports import EVALUATION

_RULES: Final = (
    "bi_encoder:\n  frozen: sets/a\n  guard: [{set: sets/b}]\n  minimum_effect: 0.01\ncross_encoder: {alpha: 0.05}\n"
)


def _experiments(_: Path) -> Sequence[bytes]:
    return [(ROOT / "qrelay" / "training" / "experiments" / f"{name}.yaml").read_bytes() for name in shipped()]


def _overrides(data: bytes, _: Path) -> None:
    load_experiment(shipped()[0], data.decode("utf8", "surrogateescape").splitlines())


_SLOT: Final = SlotResult("bi_encoder", "promoted", "better", "v1", 3, 4, 1.5, {"rows": []}, {"dev": 1})


def _result(folder: Path) -> None:
    _SLOT.write(folder / "slot.json")
    JobResult("j", "docs", (_SLOT,)).write(folder / "result.json")


def _series(folder: Path) -> None:
    StateFile(folder, "docs").write(Series("docs", "n", 1, [Round(1, slots=[_SLOT])], ""))


def _read_series(folder: Path) -> None:
    series = StateFile(folder, "docs").read()
    f"{series.done} {[each.passed for each in series.rounds]}".encode()
    series.current()
    StateFile(folder, "docs").write(series)


def _job_folder(data: bytes, folder: Path) -> None:
    """The three files of a job that its launcher reads."""
    launcher = SubprocessLauncher(folder)
    for broken in ("started", "exit"):
        home = folder / "training" / broken
        home.mkdir(parents=True)
        (home / "job.json").write_bytes(b"{}")
        (home / "started").write_bytes(b'{"runner": 1, "started_us": 2}')
        (home / broken).write_bytes(data)
    read = (partial(call, broken) for broken in ("started", "exit") for call in (launcher.status, launcher.tail))
    home = folder / "training" / "exit"
    each(*read, lambda: JobFolder(home).read(home / "job.json"))


def _another_launch(data: bytes, folder: Path) -> None:
    """A job whose folder somebody has made: of its own, or of another one."""
    job = TrainingJob("j", "docs", 1, "r", "", folder, ("true",))
    home = folder / "training" / "j"
    home.mkdir(parents=True)
    (home / "job.json").write_bytes(data)
    with _file_errors("launch j"):
        _require_same(job, JobFolder(home).create(b"{}"), JobFolder(home))
    is_of({"metadata": {"annotations": {JOB_ANNOTATION: data.decode("utf8", "replace")}}}, job)


def _job_document(folder: Path) -> Sequence[bytes]:
    return [TrainingJob("j", "docs", 1, "r", "", folder, ("true",)).document(folder / "job.json")]


def _prepared(data: bytes, folder: Path) -> None:
    """What an earlier run of a training job left."""
    job = Job("j", "docs", folder)
    (job.folder / "data" / "triples").mkdir(parents=True)
    (job.folder / "data" / "triples" / "summary.json").write_bytes(data)
    prepare(job, "triples", TrainerSettings(), GateRules(), None).sources()


_SUMMARY: Final = {
    "train": 3,
    "dev": 1,
    "held_back": 0,
    "sha256": "a" * 64,
    "manifest": {"grades": {"1": 3}, "judges": []},
    "judges": [{"hash": "h", "model": "m", "revision": "1", "strategy": "graded", "labels": 7}],
}


def _experiment_record(path: Path) -> None:
    begin(path.parent, {"a": 1}, {"x": "y"})


_RUN: Final = {
    "state": "done",
    "experiment": {"losses": {"kl": 0.5}},
    "stages": [{"stage": "train", "steps": 3, "losses": {"loss": 0.1}}],
    "dev": {"metric": "nDCG@10", "after": 0.5},
}


def _run_of_training(folder: Path) -> None:
    (folder / "run.json").write_text(json.dumps(_RUN))


def _tracked(path: Path) -> None:
    """As a report, and as a run's record."""
    each(lambda: records(path), lambda: records(path.parent))


PARSERS: Final = (
    Parser("experiment", "yaml", _experiments, file("e.yaml", lambda path: load_experiment(str(path)))),
    Parser(
        "experiment's overrides", "lines", constant("learning_rate=1e-5\nstages=[{name: a, data: [x]}]"), _overrides
    ),
    Parser("gate's rules", "yaml", constant(_RULES), file("rules.yaml", read_rules)),
    Parser(
        "training job",
        "json",
        written("training/j/job.json", lambda folder: Job("j", "docs", folder, 3, "r").write()),
        file("job.json", read_job),
    ),
    Parser("job of another launch", "json", _job_document, _another_launch),
    Parser("job's data", "json", constant(json.dumps(_SUMMARY)), _prepared),
    Parser("job's result", "json", written("result.json", _result), file("result.json", read_result)),
    Parser("slot's result", "json", written("slot.json", _result), file("slot.json", read_slot)),
    Parser(
        "job's folder",
        "json",
        constant('{"code": 0, "finished_us": 2}', '{"runner": 1, "started_us": 2}'),
        _job_folder,
    ),
    Parser(
        "rounds' state",
        "json",
        written("rounds/docs/rounds.json", _series),
        beside(lambda _: None, "rounds/docs/rounds.json", _read_series),
    ),
    Parser(
        "run's record",
        "json",
        constant('{"state": "running", "experiment": {"a": 1}, "data": {"x": "y"}, "versions": {}}'),
        file("run.json", _experiment_record),
    ),
    Parser(
        "what a tracker is told",
        "json",
        constant(json.dumps(_RUN), json.dumps(EVALUATION)),
        file("run.json", _tracked),
    ),
    Parser(
        "a trainer's log for a tracker",
        "json",
        constant('[{"loss": 0.5, "step": 1, "epoch": 0.1}, {"eval_nDCG@10": 0.5, "step": 2}]'),
        beside(_run_of_training, "checkpoints/train/log.json", records),
    ),
    Parser(
        "model's training queries",
        "lines",
        constant("0" * 32 + "\n" + "f" * 32),
        file("training-queries.txt", lambda path: read_query_hashes(path.parent)),
    ),
)

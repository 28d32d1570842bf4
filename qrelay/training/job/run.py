"""A whole job: every slot in turn."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from qrelay.errors import BackendUnavailable
from qrelay.files import held
from qrelay.models.registry import Registry
from qrelay.training.job.data import JobData, prepare
from qrelay.training.job.job import Job
from qrelay.training.job.result import JobResult, read_result
from qrelay.training.job.slots import Makings, Say, run_slot
from qrelay.training.job.tracked import track
from qrelay.training.settings import TrainerSettings, configured_models

RESULT: Final = "result.json"


def run_job(job: Job, settings: TrainerSettings, config: Path | None, *, say: Say = lambda _: None) -> JobResult:
    """Does what is left of the job and returns its result.

    Raises:
        BackendUnavailable: another process works on it, or the ledger or registry does not answer.
        InputError, SetupError: see the steps; the text says what to do, and the job may be run again.
    """
    job.folder.mkdir(parents=True, exist_ok=True)
    busy = BackendUnavailable(f"another process works on job {job.name}: wait for it to end")
    with held(job.folder / "working", busy):
        return _run(job, settings, config, say)


def _run(job: Job, settings: TrainerSettings, config: Path | None, say: Say) -> JobResult:
    if (known := read_result(job.folder / RESULT)) is not None:
        return known
    rules = settings.rules()
    registry = Registry(settings.registry or job.data_dir / "registry")
    makings = Makings(job, settings, rules, *configured_models(config, job.data_dir), registry, say)
    data: dict[str, JobData] = {}
    found = []
    for slot in settings.slots(job.collection):
        kind = settings.of(slot).export
        if kind not in data:
            say(f"exporting {kind} of {job.collection}")
            data[kind] = prepare(job, kind, settings, rules, config)
        found.append(run_slot(makings, slot, data[kind]))
    result = JobResult(job.name, job.collection, tuple(found))
    result.write(job.folder / RESULT)
    track(settings.track, registry, job.folder, result.slots)
    return read_result(job.folder / RESULT) or result  # as a later run reads it

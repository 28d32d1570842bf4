"""One slot's way: train, publish, gate, promote. Each step is safe to take again.

Publishing the same bytes and makings again is the same version; a verdict that this job recorded against what serves
is taken as it is; promoting what serves changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qrelay.errors import ConfigError, InputError
from qrelay.files import write_atomic
from qrelay.models.registry import Registry, State, kind_of
from qrelay.parsing import json_document
from qrelay.training.gate.decide import Decision, decision_of
from qrelay.training.gate.gate import gate
from qrelay.training.gate.rules import GateRules
from qrelay.training.job import result as outcomes
from qrelay.training.job.data import JobData
from qrelay.training.job.dev import dev_set
from qrelay.training.job.job import Job
from qrelay.training.job.result import SlotResult
from qrelay.training.settings import TrainerSettings

if TYPE_CHECKING:
    from qrelay.training.experiment import Experiment

Say = Callable[[str], None]
RECORD: Final = "run.json"
"""Training's own record of a run (qrelay.training.record)."""
_TRIES: Final = 3
"""How often a pass is decided again because another version was promoted meanwhile."""


@dataclass(frozen=True, slots=True)
class Makings:
    """What a slot's version is made by. configured, pair_tokens: as `gate` takes them."""

    job: Job
    settings: TrainerSettings
    rules: GateRules
    configured: Mapping[str, str]
    pair_tokens: int
    registry: Registry
    say: Say


@dataclass(frozen=True, slots=True)
class _Start:
    """The model that training begins from: its name for the experiment, its fingerprint, and the version it is."""

    experiment: Experiment
    base: str
    parent: str


def run_slot(makings: Makings, slot: str, data: JobData) -> SlotResult:
    """The slot's result; what an earlier run of the job recorded is returned as it is.

    Raises:
        ConfigError: the experiment cannot be run, or is of another slot.
        ModelError: a model is absent.
        BackendUnavailable: the registry cannot be written.
    """
    path = _folder(makings, slot) / "result.json"
    if (known := outcomes.read_slot(path)) is not None:
        return known
    started = time.monotonic()
    found = _run(makings, slot, data, started)
    found.write(path)
    return outcomes.read_slot(path) or found  # as a later run reads it


def _folder(makings: Makings, slot: str) -> Path:
    """Where the job makes the slot's version; a job has one slot of a kind."""
    return makings.job.folder / kind_of(slot)


def _run(makings: Makings, slot: str, data: JobData, started: float) -> SlotResult:
    least = makings.settings.min_queries
    if data.queries < least:
        why = (
            f"{data.queries} training queries in {data.kind} of {makings.job.collection}, and trainer.min_queries is"
            f" {least}: feed and judge more"
        )
        return SlotResult(slot, outcomes.NOT_ENOUGH, why, "", data.queries, data.labels)
    start = _start(makings, slot, data)
    makings.say(f"{slot}: training on {data.queries} queries")
    out = _folder(makings, slot)
    model = _train(start.experiment, data, out)
    version = _publish(makings, slot, data, start, model)
    outcome, why, decision = _decide(makings, slot, version)
    return SlotResult(
        slot, outcome, why, version, data.queries, data.labels, time.monotonic() - started,
        decision.as_json() if decision else {}, makings.registry.manifest(version).metrics,
    )  # fmt: skip


def _start(makings: Makings, slot: str, data: JobData) -> _Start:
    """Fixed by the first run of the job, so that a run that goes on trains what it began."""
    from qrelay.training.experiment import load_experiment

    wanted = makings.settings.of(slot)
    note = _folder(makings, slot) / "start"
    if not note.exists():
        served = makings.registry.serving(slot) if wanted.start == "serving" else None
        write_atomic(note, served.version if served else "")
    parent = note.read_text()
    experiment = _with_people(load_experiment(wanted.experiment, wanted.overrides), data)
    if experiment.kind != (kind := kind_of(slot)):
        raise ConfigError(f"trainer.{kind}.experiment {wanted.experiment} is of a {experiment.kind}: name another")
    if parent:
        model = f"path:{makings.registry.model_dir(parent)}"
        return _Start(experiment.model_copy(update={"model": model}), f"{parent}@registry", parent)
    return _Start(experiment, _fingerprint(experiment.model), "")


def _with_people(experiment: Experiment, data: JobData) -> Experiment:
    """Stages for judges' labels take people's too where the export has them: trainer.human_labels let them in."""
    if not data.manifest["overrides"]:
        return experiment
    mixed = [
        each.model_copy(update={"labels": "mixed"}) if each.labels == "weak" else each for each in experiment.stages
    ]
    return experiment.model_copy(update={"stages": tuple(mixed)})


def _fingerprint(model: str) -> str:
    from qrelay.models.catalogue import resolve

    found = resolve(model)
    return f"{found.name}@{found.revision}"


def _train(experiment: Experiment, data: JobData, out: Path) -> Path:
    from qrelay.training.train import train

    return train(experiment, [str(data.train)], out, dev_set(data.dev))


def _publish(makings: Makings, slot: str, data: JobData, start: _Start, model: Path) -> str:
    return makings.registry.publish(
        model, slot=slot, base=start.base, parent=start.parent, collections=(makings.job.collection,),
        experiment=start.experiment.resolved(), data=data.sources(), judges=data.judges,
        metrics=_metrics(model.parent), job=makings.job.name, by=f"job {makings.job.name}",
    )  # fmt: skip


def _metrics(out: Path) -> dict[str, Any]:
    """What training measured of itself: dev before and after, and its stages."""
    record = json_document((out / RECORD).read_bytes())
    return {name: record[name] for name in ("dev", "stages") if name in record}


def _decide(makings: Makings, slot: str, version: str) -> tuple[str, str, Decision | None]:
    """(outcome, why, the gate's decision)."""
    for _ in range(_TRIES):
        known = makings.registry.standing().versions[version]
        if known.state is State.PROMOTED:
            return _serves(makings, version)
        if known.state is State.RETIRED:
            why = f"{version} served before and was taken back: `qrelay models promote {version}` if it shall again"
            return outcomes.RETIRED, why, None
        decision = _gated(makings, slot, version)
        if not decision.passed:
            return outcomes.REJECTED, decision.why, decision
        if not makings.settings.promote:
            return outcomes.PASSED, decision.why, decision
        try:
            makings.registry.promote(version, by=f"job {makings.job.name}", reason=decision.why)
        except InputError:
            if _against(makings, slot) == decision.against:
                raise
            continue  # another version was promoted meanwhile: the next look measures against that one
        return outcomes.PROMOTED, decision.why, decision
    return outcomes.PASSED, f"others were promoted meanwhile, {_TRIES} times: gate it again", None


def _serves(makings: Makings, version: str) -> tuple[str, str, Decision | None]:
    """The version serves already: this job promoted it before it was killed, or its training changed nothing."""
    by = f"job {makings.job.name}"
    ours = [event for event in makings.registry.history() if event.version == version and event.by == by]
    if any(event.kind == "promoted" for event in ours):
        decision = _recorded(makings, version)
        return outcomes.PROMOTED, decision.why if decision else "", decision
    return outcomes.UNCHANGED, f"{version} serves already: training changed nothing", None


def _gated(makings: Makings, slot: str, version: str) -> Decision:
    known = _recorded(makings, version)
    if known and known.against == _against(makings, slot):
        return known
    return gate(
        makings.registry, version, makings.rules, makings.configured,
        pair_tokens=makings.pair_tokens, by=f"job {makings.job.name}", say=makings.say,
    )  # fmt: skip


def _recorded(makings: Makings, version: str) -> Decision | None:
    """The latest verdict on the version, where this job recorded it."""
    event = makings.registry.standing().versions[version].gate
    return decision_of(event.detail) if event and event.by == f"job {makings.job.name}" else None


def _against(makings: Makings, slot: str) -> str:
    served = makings.registry.serving(slot)
    return served.version if served else ""

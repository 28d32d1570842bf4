"""Training runs, evaluations and versions of the registry, as records that an experiment tracker keeps.

A record says of itself what it is (`identity`), so that logging it again adds nothing and brings up to date what may
change: who serves. Everything is read from files that qrelay wrote, so a tracker that did not answer misses nothing.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from qrelay.errors import BackendUnavailable, MalformedInput
from qrelay.identity import digest
from qrelay.models.registry import Registry
from qrelay.models.registry.describe import main_metrics
from qrelay.parsing import flat, json_document

TRAINING: Final = "training"
EVALUATION: Final = "evaluation"
VERSION: Final = "version"
_MOST_CHARS: Final = 500
"""Of a parameter; every tracker has a limit."""


@dataclass(frozen=True, slots=True)
class Record:
    """params never change, tags may. curve: (step, metrics) in order. documents: name -> JSON, kept as files.
    slot: of a version whose model is in the folder `model`; serving: whether it serves."""

    kind: str
    identity: str
    name: str
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    tags: Mapping[str, str] = field(default_factory=dict)
    curve: Sequence[tuple[int, Mapping[str, float]]] = ()
    documents: Mapping[str, Any] = field(default_factory=dict)
    slot: str = ""
    model: Path | None = None
    serving: bool = False


class Tracker(Protocol):
    """Where records go; the tool's own variables (MLFLOW_…, WANDB_…) say to which server, project and account."""

    def log(self, record: Record) -> None:
        """Keep the record. Raises BackendUnavailable: the tool refuses, in its words."""


@contextmanager
def refusals(tool: str) -> Iterator[None]:
    """Around a tool's own code, which raises errors of whatever it stands on. Raises BackendUnavailable."""
    try:
        yield
    except Exception as error:
        raise BackendUnavailable(f"{tool} did not take it: {type(error).__name__}: {error}") from error


def tracker(name: str) -> Tracker:
    """Raises SetupError: the tool's library is not installed. BackendUnavailable: it refuses."""
    found: Tracker = importlib.import_module(f"qrelay.integrations.track_{name}").opened()
    return found


def records(path: Path) -> Iterator[Record]:
    """What lies there: a run's folder of `qrelay train`, a registry, or a file of `qrelay eval --json-file`.

    Raises:
        MalformedInput: none of these, or one that is damaged or not finished. ModelError: of a registry.
    """
    if (path / "run.json").is_file():
        yield run_record(path)
    elif (path / "events").is_dir():
        registry = Registry(path)
        yield from (version_record(registry, version) for version in registry.standing().versions)
    elif path.is_file():
        yield from _evaluations(path)
    else:
        raise MalformedInput(
            f"{path} is no run of `qrelay train` (with run.json), no registry (with events/), and no file of"
            " `qrelay eval --json-file`"
        )


def run_record(folder: Path) -> Record:
    """Of a finished training. Raises MalformedInput."""
    found = _object(folder / "run.json")
    if found.get("state") != "done":
        raise MalformedInput(f"{folder} is of a training that has not ended: run it to its end, then log it")
    listed = found["stages"] if isinstance(found.get("stages"), list) else []
    stages = {str(each.get("stage")): each for each in listed if isinstance(each, dict)}
    curve = [point for name in stages for point in _curve(folder / "checkpoints" / name / "log.json", name)]
    told: dict[str, Any] = {name: found[name] for name in ("experiment", "base", "versions") if name in found}
    measured = {"dev": found.get("dev"), "stages": stages}
    identity = digest((folder / "run.json").read_bytes())[:32]
    return Record(
        TRAINING, identity, folder.resolve().name, _params(told), _metrics(measured), {}, curve, {"run.json": found}
    )


def _curve(path: Path, stage: str) -> Iterator[tuple[int, Mapping[str, float]]]:
    """What the trainer logged of a stage; nothing where its log is gone."""
    try:
        logged = json_document(path.read_bytes())
    except (OSError, ValueError):
        return
    for each in logged if isinstance(logged, list) else []:
        if isinstance(each, dict) and type(step := each.get("step")) is int:
            yield step, _metrics({stage: {name: value for name, value in each.items() if name != "step"}})


def _evaluations(path: Path) -> Iterator[Record]:
    """A record for each system of a report."""
    found = _object(path)
    systems = found.get("systems", [found])
    if not isinstance(systems, list) or not all(
        isinstance(e, dict) and isinstance(e.get("means"), dict) for e in systems
    ):
        raise MalformedInput(f"{path} is no report of `qrelay eval --json-file`")
    facts = _params({"facts": found.get("facts", {})})
    for each in systems:
        name = str(each.get("system", path.stem))
        metrics = _metrics(each["means"])
        identity = digest(path.read_bytes(), name)[:32]
        yield Record(EVALUATION, identity, name, facts, metrics, documents={"report.json": each})


def version_record(registry: Registry, version: str) -> Record:
    """Of a version as it stands now. Raises UnknownVersion, ModelError."""
    at, manifest = registry.standing(), registry.manifest(version)
    known, folder = at.versions[version], registry.model_dir(version)
    gate = dict(known.gate.detail) if known.gate else {}
    params = {name: getattr(manifest, name) for name in ("slot", "base", "parent", "experiment")}
    tags = {
        "state": known.state.value, "tainted": str(version in registry.taints()).lower(),
        "gate": {None: "", True: "passed", False: "failed"}[gate.get("passed")], "gate.why": str(gate.get("why", "")),
    }  # fmt: skip
    metrics = {**_metrics(manifest.metrics), **main_metrics(manifest, known.gate)}
    return Record(
        VERSION, version, version, _params(params), metrics,
        tags, (), {"manifest.json": manifest.as_json(), "gate.json": gate}, manifest.slot,
        folder if folder.is_dir() else None, at.serving(manifest.slot) == version,
    )  # fmt: skip


def _object(path: Path) -> dict[str, Any]:
    try:
        found = json_document(path.read_bytes())
    except (OSError, ValueError) as error:
        raise MalformedInput(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise MalformedInput(f"{path} holds no JSON object")
    return found


def _params(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: str(value)[:_MOST_CHARS] for name, value in flat(values) if value not in (None, "")}


def _metrics(values: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in flat(values) if isinstance(value, int | float)}

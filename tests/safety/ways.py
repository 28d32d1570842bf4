"""Every way from the ledger to training data, as something that can be gone: `WAYS[name](place, flags)`.

A way returns once training data were let through, and raises NotQualified (or what its endpoint makes of it) where
they were not. `place` is one installation; `flags` are among "unmeasured" and "unqualified", given as the way takes
them: an option, a field of a call, a setting.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import yaml
from click.testing import CliRunner

from qrelay.cli.job import EXIT_NOT_ENOUGH, run_job_file
from qrelay.cli.labels.export import export
from qrelay.cli.labels.push import push
from qrelay.cli.labels.training import training
from qrelay.cli.rounds import rounds
from qrelay.cli.train import train_command
from qrelay.errors import NotQualified
from qrelay.jobs.decisions import trigger_manually
from qrelay.jobs.dispatcher import LAUNCHERS, Dispatcher
from qrelay.jobs.kubernetes_job import JOB_ANNOTATION
from qrelay.labels.exports.catalogue import FORMATS, NO_LABELS
from qrelay.labels.ledger import outbox
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, add
from qrelay.labels.permission import Allowed
from qrelay.labels.settings import SinkSettings
from qrelay.services.sink.service import _FORMATS
from qrelay.services.sink.sink import load_sink
from qrelay.settings.training import TrainingSettings
from qrelay.training.job.job import Job
from qrelay.training.rounds.installation import Fed, Installation
from qrelay.training.rounds.rounds import Rounds
from qrelay.training.rounds.state import Round, StateFile
from qrelay.training.settings import trainer_settings
from qrelay.v1 import sink_pb2 as pb
from tests.jobs.kubernetes_api import ApiServer
from tests.jobs.kubernetes_api import serving as serving_cluster
from tests.labels.builders import graded, judged_set
from tests.services.sink.test_grpc import serving

COLLECTION = "docs"
SPLIT = ("--split", "train=0.5,test=0.5", "--group-by", "query")
Flags = Collection[str]
Way = Callable[["Place", Flags], None]


@dataclass(frozen=True)
class Place:
    """An installation in `folder`, its ledger filled. `report`: the file of `sink.qualification`; None: there is
    none. `overrides`: people's decisions are asked for."""

    folder: Path
    report: Path | None = None
    overrides: bool = False

    def config(self, **training: Any) -> Path:
        """The settings file."""
        file = self.folder / "qrelay.yaml"
        sink: dict[str, Any] = {"training": training}
        if self.report:
            sink["qualification"] = str(self.report)
        never = {"min_queries": 10**6, "cross_encoder": {"train": False, "experiment": "cross_encoder"}}
        retriever = {"engine": "embedded", "registry_poll_s": 1}
        file.write_text(yaml.safe_dump({"sink": sink, "trainer": never, "retriever": retriever}))
        return file

    def sink_settings(self, **fields: Any) -> SinkSettings:
        """The sink's settings; `fields` are those of `sink.training`."""
        policy = TrainingSettings(command=("true",), poll_s=0.01, **fields)
        return SinkSettings(data_dir=self.folder, qualification=str(self.report or ""), training=policy)

    def run(self, command: Any, *arguments: str, flags: Flags = (), ok: int = 0) -> str:
        """A command of the command line; its errors are raised as they are."""
        options = ["--data-dir", str(self.folder)] if command is not train_command else []
        words = [*arguments, *(f"--{flag}" for flag in flags), *options, "--config", str(self.config())]
        done = CliRunner().invoke(command, words, env={"QRELAY_CONFIG": None})
        if done.exception and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == ok, done.output
        return done.output

    @property
    def people(self) -> tuple[str, ...]:
        return ("--overrides",) if self.overrides else ()


def exported(kind: str, place: Place, flags: Flags, *arguments: str) -> None:
    out = place.folder / f"out-{kind}"
    options = ("--collection", COLLECTION, "--out", str(out), "--negatives", "1", *place.people, *arguments)
    place.run(export, kind, *options, flags=flags)
    assert out.exists()


def pushed(kind: str, place: Place, flags: Flags) -> None:
    options = ("--repo", "team/docs", "--collection", COLLECTION, "--format", kind, "--negatives", "1")
    place.run(push, *options, "--dry-run", *place.people, flags=flags)


def called(kind: int, place: Place, flags: Flags) -> None:
    """`SinkService.Export`."""

    async def call() -> list[Any]:
        async with serving(place.folder, qualification=str(place.report or "")) as (stub, _):
            asked = pb.ExportRequest(collection=COLLECTION, format=kind, overrides=place.overrides, **_said(flags))
            return [part async for part in stub.Export(asked, timeout=20)]

    assert len(_translated(call())) > 1


def started(place: Place, flags: Flags) -> None:
    """`SinkService.StartTraining`, and then the dispatcher, which must know what the call allowed."""

    async def call() -> Any:
        settings = place.sink_settings()
        async with serving(place.folder, qualification=settings.qualification, training=settings.training) as (
            stub,
            _,
        ):
            asked = pb.StartTrainingRequest(collection=COLLECTION, **_said(flags))
            return await stub.StartTraining(asked, timeout=20)

    _translated(call())
    dispatched(place, place.sink_settings())


def ran(place: Place, flags: Flags) -> None:
    """`qrelay training run`."""
    file = place.config(command=["true"])
    words = ["run", "--collection", COLLECTION, *(f"--{flag}" for flag in flags), "--data-dir", str(place.folder)]
    done = CliRunner().invoke(training, [*words, "--config", str(file)])
    if done.exception:
        raise done.exception


def triggered(launcher: str, place: Place, flags: Flags) -> None:
    """A trigger of the policy, whose dispatcher launches by `launcher`; the settings allow."""
    if launcher == "subprocess":
        name = dispatched(place, place.sink_settings(enabled=True, min_judged=1, **_said(flags)), policy=True)
        document = json.loads((place.folder / "training" / name / "job.json").read_text())
        assert {flag for flag in ("unmeasured", "unqualified") if document.get(flag)} == set(flags)
        return
    with serving_cluster(ApiServer()) as server:
        kubernetes = {"kubeconfig": server.kubeconfig(place.folder), "image": "trainer", "ledger_secret": "ledger"}
        fields = {"launcher": launcher, "kubernetes": kubernetes, "enabled": True, "min_judged": 1, **_said(flags)}
        name = dispatched(place, place.sink_settings(**fields), policy=True)
        document = json.loads(server.cluster.jobs[name]["metadata"]["annotations"][JOB_ANNOTATION])
        assert {flag for flag in ("unmeasured", "unqualified") if document.get(flag)} == set(flags)


def dispatched(place: Place, settings: SinkSettings, *, policy: bool = False) -> str:
    """The name of the job that the pending trigger became; a trigger that waits says why, and is raised so."""
    core = load_sink(settings)
    with closing(core):
        if policy:  # the labels are there already: a commit of one more query counts and decides
            core.ledger.commit([judged_set("later", outcomes=[graded(3), graded(0)])])
            if place.overrides:
                overrule(core.ledger, "later")
        dispatcher = Dispatcher(core.ledger, settings)
        with closing(dispatcher.launcher):
            dispatcher.step()
        with core.ledger.snapshot() as snapshot:
            (trigger,) = outbox.triggers(snapshot.connection)
    if trigger.state == outbox.PENDING:
        assert trigger.attempts == 1, "a trigger that may not run is on record, with why"
        raise NotQualified(trigger.error)
    assert trigger.state == outbox.LAUNCHED, trigger.error
    return trigger.job_name


def overrule(ledger: Ledger, *query_ids: str) -> None:
    """People grade every pair of the queries."""
    with ledger.writing("record overrides") as connection:
        rows = [NewOverride(q, f"d{n}#0", grade, "0-3", "ana") for q in query_ids for n, grade in enumerate((3, 0))]
        add(connection, COLLECTION, rows, ledger.now_us())


def job(place: Place, flags: Flags, *, by_file: bool) -> None:
    """The training job itself: its flags in job.json, as launchers and rounds write them, or on the command line. It
    ends for want of queries, after its export."""
    allowed = dict.fromkeys(flags, True) if by_file else {}
    file = Job("job-1", COLLECTION, place.folder, **allowed).write()
    given = () if by_file else flags
    place.run(train_command, "--job", str(file), flags=given, ok=EXIT_NOT_ENOUGH)


def setting(place: Place, flags: Flags) -> None:
    """The job where the settings allow."""
    file = Job("job-1", COLLECTION, place.folder).write()
    assert run_job_file(file, place.config(**_said(flags))).trained_nothing


def rounds_begun(place: Place, flags: Flags) -> None:
    """`qrelay rounds`, whose one round is done already: it would start no service, and asks all the same."""
    state = StateFile(place.folder, COLLECTION)
    series = state.read()
    series.rounds = [Round(1, done=True)]
    state.path.parent.mkdir(parents=True)
    state.write(series)
    queries = place.folder / "queries.txt"
    queries.write_text("what is a dose?\n")
    place.run(rounds, "--n", "1", "--queries", str(queries), "--collection", COLLECTION, flags=flags)


@dataclass(frozen=True)
class _InProcess(Installation):
    """An installation that has fed already and runs its jobs here."""

    place: Place = field(default_factory=lambda: Place(Path()))

    def feed(self, queries: Path, collection: str, number: int) -> Fed:
        return Fed(1, 0, 0)

    def job(self, file: Path) -> int:
        self.place.run(train_command, "--job", str(file), ok=EXIT_NOT_ENOUGH)
        return EXIT_NOT_ENOUGH


def rounds_job(place: Place, flags: Flags) -> None:
    """The job of a round: labels may have come since the rounds began."""
    settings = trainer_settings(place.config(), place.folder)
    installation = _InProcess(place.folder, place=place)
    loop = Rounds(installation, COLLECTION, place.folder / "queries.txt", settings, allowed=Allowed(**_said(flags)))
    assert loop.run(1).stopped


def _said(flags: Flags) -> dict[str, Any]:
    return dict.fromkeys(flags, True)


def _translated(call: Any) -> Any:
    """The call's answer; a refusal of it as the error that it was."""
    try:
        return asyncio.run(call)
    except grpc.aio.AioRpcError as error:
        assert error.code() is grpc.StatusCode.FAILED_PRECONDITION, error
        raise NotQualified(str(error.details())) from error


def queued(place: Place, flags: Flags) -> None:
    """A trigger that was pending before this sink: the settings allow."""
    settings = place.sink_settings(**_said(flags))
    with closing(load_sink(settings)) as core:
        trigger_manually(core.ledger, COLLECTION, settings.training)
    dispatched(place, settings)


TRAINING_KINDS = tuple(name for name, kind in FORMATS.items() if kind.trains(""))
JUDGMENT_KINDS = tuple(name for name, kind in FORMATS.items() if kind.use != NO_LABELS and not kind.trains(""))
CALLED = {number: name for number, name in _FORMATS.items() if name in TRAINING_KINDS}
WAYS: dict[str, Way] = {
    **{f"qrelay export {kind}": partial(exported, kind) for kind in TRAINING_KINDS},
    **{
        f"qrelay export {kind} --split train": lambda place, flags, kind=kind: exported(kind, place, flags, *SPLIT)
        for kind in JUDGMENT_KINDS
    },
    **{f"qrelay push --format {kind}": partial(pushed, kind) for kind in ("hf", "labels")},
    **{f"Export {pb.ExportFormat.Name(number)}": partial(called, number) for number in CALLED},
    "StartTraining": started,
    "qrelay training run": ran,
    **{f"trigger by {name}": partial(triggered, name) for name in LAUNCHERS},
    "trigger that was pending": queued,
    "qrelay train --job": partial(job, by_file=False),
    "job.json": partial(job, by_file=True),
    "job by settings": setting,
    "qrelay rounds": rounds_begun,
    "job of a round": rounds_job,
}

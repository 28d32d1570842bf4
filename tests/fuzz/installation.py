"""Files of an installation: settings, experiments, rules, manifests, indexes, the registry, journals, reports."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any, Final

import numpy as np

from qrelay.bench.report import as_json
from qrelay.bench.report import read as bench_report
from qrelay.bench.running import json_lines
from qrelay.bench.trace import read_trace
from qrelay.cli.eval.evaluate import _read as read_evaluation_file
from qrelay.errors import QrelayError
from qrelay.index.build import BuildRequest, build_index
from qrelay.index.build import _earlier as build_earlier
from qrelay.index.embedded import EmbeddedEngine
from qrelay.index.manifest import checked_manifest, collections_in, current_folder, read_manifest
from qrelay.index.milvus.layout import MANIFEST, read_kept
from qrelay.index.ranking import Depths
from qrelay.index.reembed import _earlier as reembed_earlier
from qrelay.index.reembed import find_version, under_way
from qrelay.index.vectors import VectorReuse
from qrelay.integrations.tracking import records
from qrelay.jobs.folder import JobFolder
from qrelay.jobs.kubernetes_job import JOB_ANNOTATION, is_of
from qrelay.jobs.launcher import TrainingJob
from qrelay.jobs.subprocess_launcher import SubprocessLauncher, _file_errors, _require_same
from qrelay.judging.asking import Asker
from qrelay.judging.calibration import CalibrationMap, FittedOn, MapInput, load_map, save_maps
from qrelay.judging.domain import Domain, likeness
from qrelay.judging.querygen.journal import Journal as QueryJournal
from qrelay.judging.querygen.journal import Outcome
from qrelay.judging.strategies.chat import ChatGrade
from qrelay.judging.strategies.lint import warnings
from qrelay.judging.strategies.rubric import Rubric, documents, load_rubric, parse_rubric
from qrelay.labels.exports.files import open_output
from qrelay.labels.qualification import read_report
from qrelay.llm.exchange import Chat, Prompt
from qrelay.llm.fake import FakeBackend
from qrelay.models.catalogue import load_catalogue
from qrelay.models.embedder import load_embedder
from qrelay.models.encoding import encoding, own_length
from qrelay.models.home import file_hashes
from qrelay.models.registry import Registry
from qrelay.models.registry.card import card
from qrelay.models.tuning import read as read_tuned
from qrelay.models.tuning import write as write_tuned
from qrelay.rundir import endpoints
from qrelay.runtime.natsaccounts import identity, write_accounts
from qrelay.security.certs import authority, is_development, issue
from qrelay.security.expiry import valid_until
from qrelay.security.tls import Files, files_of
from qrelay.settings.effective import find, renewed
from qrelay.settings.record import changes, write_settings
from qrelay.settings.sections import settings_classes
from qrelay.settings.sources import read_environment
from qrelay.stats.calibration import Isotonic, Logistic
from qrelay.training.evaluation.embedding import _load as kept_vectors
from qrelay.training.evaluation.evaluate import compared
from qrelay.training.evaluation.evaluate import from_json as evaluation_of
from qrelay.training.evaluation.manifests import manifest_of
from qrelay.training.evaluation.manifests import relevant_from as told_relevant_from
from qrelay.training.evaluation.systems import is_cross_encoder
from qrelay.training.experiment import load_experiment, shipped
from qrelay.training.gate.facts import read_query_hashes
from qrelay.training.gate.rules import GateRules, read_rules
from qrelay.training.job.data import prepare
from qrelay.training.job.job import Job, read_job
from qrelay.training.job.result import JobResult, SlotResult, read_result, read_slot
from qrelay.training.record import begin
from qrelay.training.rounds.state import Round, Series, StateFile
from qrelay.training.settings import TrainerSettings
from qrelay.types import Missing, Passage
from tests import samples
from tests.bench.made import report
from tests.fuzz.formats import _export
from tests.fuzz.parser import Parser, beside, constant, each, file, written
from tests.index.documents import made_up, write_jsonl
from tests.labels.test_qualification import report_file
from tests.models.registry.models import passed, published

ROOT: Final = Path(__file__).resolve().parents[2]
_SETTINGS: Final = """\
all: {nats: {url: "nats://127.0.0.1:4222", replicas: 1}, data_dir: state}
judge:
  backend: openai
  model: gpt-small
  endpoint: {url: "http://localhost:1/v1", extra_body: {seed: 1}, total_timeout_s: 20}
  judges: {small: {backend: fake, strategy: graded}, big: {backend: fake, model: m}}
  budget: {tokens_per_day: 1000, tokens_per_run: 500}
retriever: {index_dir: index, embedder: hash, collections: [docs]}
reranker: {scorer: fake}
sink:
  qualification: report.json
  relevant_grades: {0-3: 2}
  training: {launcher: kubernetes, quiet_hours: "22:00-06:00",
    kubernetes: {namespace: n, image: i, env: {A: "1"}, tolerations: [{key: a}]}}
trainer: {gate: {bi_encoder: {frozen: sets/a, guard: [{set: sets/b, max_drop: 0.02}]}}, slots: [bi_encoder]}
"""
_VARIABLES: Final = (
    "QRELAY_JUDGE__BACKEND=fake\nQRELAY_RETRIEVER__COLLECTIONS=[docs, more]\nQRELAY_ALL__NATS__REPLICAS=3\n"
    "QRELAY_JUDGE__JUDGES={a: {backend: fake}}\nQRELAY_SINK__TRAINING__QUIET_HOURS=22:00-06:00\nQRELAY_DATA_DIR=x"
)
_RULES: Final = (
    "bi_encoder:\n  frozen: sets/a\n  guard: [{set: sets/b}]\n  minimum_effect: 0.01\ncross_encoder: {alpha: 0.05}\n"
)


def _everything(effective: Any) -> None:
    """Every section, as services and commands ask for it, and the record that `qrelay up` makes of them."""
    errors = []
    for section, kind in settings_classes().items():
        try:
            effective.settings(kind, section)
        except QrelayError as error:
            errors.append(error)
    if errors:
        raise errors[0]
    write_settings(effective.data_dir / "settings.yaml", effective, settings_classes())


def _settings_file(path: Path) -> None:
    _everything(replace(find(path, path.parent, {}), named=True))


def _tuned_and_record(name: str) -> Callable[[Path], None]:
    def read(path: Path) -> None:
        effective = find(None, path.parent, {})
        changes(renewed(effective), settings_classes())
        _everything(effective)
        read_tuned(path.parent)

    return read


def _environment(data: bytes, folder: Path) -> None:
    lines = (line.partition("=") for line in data.decode("utf8", "surrogateescape").splitlines())
    environ = {name: value for name, _, value in lines if name and "\0" not in name + value}
    _everything(replace(find(None, folder, {}), variables=read_environment(environ)))


def _record(folder: Path) -> None:
    (folder / "qrelay.yaml").write_text(_SETTINGS)
    write_settings(folder / "settings.yaml", find(folder / "qrelay.yaml", folder, {}), settings_classes())


def _tuned(folder: Path) -> None:
    write_tuned(
        folder, {"settings": {"judge": {"backend": "fake", "model": "m"}}, "chosen": {"when": "2026", "judges": []}}
    )


def _rubrics(_: Path) -> Sequence[bytes]:
    folder = ROOT / "qrelay" / "judging" / "rubrics"
    schema = b"\nanswer: {read: json, reason: true, schema: {properties: {grade: {enum: [0, 1]}}}}\n"
    own = (ROOT / "examples" / "rubric.yaml").read_bytes()
    return [
        *(path.read_bytes() for path in sorted(folder.glob("*.yaml"))),
        own,
        own.partition(b"answer:")[0] + schema,
    ]


def _rubric(path: Path) -> None:
    documents.cache_clear()
    load_rubric("binary")
    found = parse_rubric(path.read_bytes(), path.name)
    if isinstance(found, Rubric):
        ChatGrade(found, min_mass=0.05).example(samples.query(), Passage("p", "d", "a title", "a text"))
        warnings(found)


def _experiments(_: Path) -> Sequence[bytes]:
    return [(ROOT / "qrelay" / "training" / "experiments" / f"{name}.yaml").read_bytes() for name in shipped()]


def _overrides(data: bytes, _: Path) -> None:
    load_experiment(shipped()[0], data.decode("utf8", "surrogateescape").splitlines())


@cache
def _index() -> Path:
    """An index of a few documents, made once."""
    folder = Path(mkdtemp(prefix="qrelay-fuzz-index-"))
    rows = [{**row, "metadata": {"source": row["title"]}} for row in made_up(5)]
    source = write_jsonl(folder / "tiny.jsonl", rows)
    build_index(
        BuildRequest(str(source), "tiny", folder / "index", window=40, stride=20),
        load_embedder("hash"),
        lambda _: None,
    )
    return folder / "index" / "tiny"


def _copied_index(folder: Path) -> None:
    shutil.copytree(_index(), folder / "tiny", dirs_exist_ok=True)


def _version() -> str:
    return current_folder(_index()).name


def _served(folder: Path) -> None:
    """As the retriever and a later build look at it."""
    home = folder / "tiny"
    collections_in(folder)
    under_way(home, "hash@1")
    VectorReuse([*home.glob("[!.]*"), *home.glob(".*")])
    version = current_folder(home)
    find_version(home, read_manifest(_index() / _version()), "other@1")
    engine = EmbeddedEngine(version, Depths(5, 5, 60), "size")
    facts = checked_manifest(version, "full")  # a flipped bit in the middle of an array is this one's to find
    engine.search(["word1 word2"], np.zeros((1, facts.dim), np.float32), 3)


def _index_file(name: str) -> Parser:
    path = name.replace("VERSION", _version())
    form = "json" if name.endswith(".json") else "bytes"
    seeds = lambda _: [(_index() / path).read_bytes()]  # noqa: E731
    return Parser(
        f"index: {name.rpartition('/')[2]}", form, seeds, beside(_copied_index, f"tiny/{path}", _served), cost=5
    )


def _seed(path: Path) -> None:
    identity(path, "judge")


def _kept_in_milvus(data: bytes, _: Path) -> None:
    read_kept("any", {MANIFEST: data.decode("utf8", "replace")})


def _registry(folder: Path) -> Registry:
    clock = iter(range(1_700_000_000_000_000, 1_800_000_000_000_000, 1_000_000))
    registry = Registry(folder / "registry", lambda: next(clock))
    one = passed(registry, published(registry, "w1"))
    registry.promote(one, by="ana")
    passed(registry, published(registry, "w2", parent=one), one, why="better", rows=[])
    return registry


def _all_of_it(folder: Path) -> None:
    """As services, the sink's ListModels, the commands and the card of a push read the registry."""
    from qrelay.models.registry.describe import versions
    from qrelay.services.sink.models import _listed

    registry = Registry(folder / "registry")
    at, taints = registry.standing(), registry.taints()
    versions(registry)
    _listed(registry, "").SerializeToString()
    for slot in ("bi_encoder", "cross_encoder"):
        if served := registry.serving(slot):
            served.fingerprint.encode()
    for name, found in at.versions.items():
        manifest = registry.manifest(name)
        card(
            manifest,
            repo="a/b",
            state=found.state.value,
            gate=found.gate,
            tainted_by=taints.get(name, []),
            datasets=(),
        )
        registry.verify(name)


def _registry_seed(pattern: str) -> Callable[[Path], Sequence[bytes]]:
    def seeds(folder: Path) -> Sequence[bytes]:
        _registry(folder)
        return [sorted(folder.glob(pattern))[-1].read_bytes()]

    return seeds


def _registry_file(pattern: str) -> Callable[[bytes, Path], None]:
    def call(data: bytes, folder: Path) -> None:
        _registry(folder)
        sorted(folder.glob(pattern))[-1].write_bytes(data)
        _all_of_it(folder)

    return call


def _map(folder: Path) -> None:
    inputs = (MapInput("judge", "small", "a" * 64), MapInput("stage", "bm25", behind_best=True))
    cumulative = tuple(Isotonic((0.0, 1.0), ends) for ends in ((0.1, 0.95), (0.05, 0.9), (0.02, 0.6)))
    fitted = FittedOn("0" * 64, 100, 10, 40, relevant_from=2)
    linear = CalibrationMap(
        inputs,
        Logistic((1.0,) * 2, (1.0,) * 2, (1.0,) * 2, 0.0),
        "0-3",
        0,
        (0.2, 0.45, 0.8),
        cumulative,
        0.45,
        fitted,
        {},
        Domain("docs", ((2.0, 0.5, 3.0, -1.0, 0.5, 0.0),) * 10),
    )
    rising = replace(linear, inputs=inputs[:1], model=cumulative[0])
    save_maps({"both": linear, "one": rising}, "both", folder / "maps.json")


def _use_map(path: Path) -> None:
    found = load_map(str(path))
    f"{found.identity} {found.listwise} {found.uses_stage_scores}".encode()
    try:
        load_map(f"{path}#one")
    finally:
        candidates = samples.candidates(2)
        rows = found.features([({"small": _GRADED}, each) for each in candidates])
        for p in found.probability([row for row in rows if not isinstance(row, Missing)]):
            found.graded(p)
        likeness(found.domain, [each.label for each in found.inputs], found.domain.profiles)


_GRADED: Final = samples.judged_set().judgments[0].outcome


def _result(folder: Path) -> None:
    slot = SlotResult("bi_encoder", "promoted", "better", "v1", 3, 4, 1.5, {"rows": []}, {"dev": 1})
    slot.write(folder / "slot.json")
    JobResult("j", "docs", (slot,)).write(folder / "result.json")


def _series(folder: Path) -> None:
    slot = SlotResult("bi_encoder", "promoted", "better", "v1", 3, 4, 1.5, {"rows": []}, {"dev": 1})
    StateFile(folder, "docs").write(Series("docs", "n", 1, [Round(1, slots=[slot])], ""))


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
    errors = []
    for broken in ("started", "exit"):
        try:
            launcher.status(broken)
            launcher.tail(broken)
        except QrelayError as error:
            errors.append(error)
    JobFolder(folder / "training" / "exit").read(folder / "training" / "exit" / "job.json")
    if errors:
        raise errors[0]


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


def _catalogue(path: Path) -> None:
    load_catalogue({"QRELAY_CATALOGUE": str(path)})


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


def _interrupted(folder: Path) -> None:
    """An index whose build another one goes on with."""
    home = folder / "tiny"
    reembed_earlier(home, home / ".reembed-y", "hash@1")
    build_earlier(home / ".build-y", "hash@1")


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


def _query_journal(folder: Path) -> None:
    with QueryJournal(folder / "j.jsonl", {"seed": 1}, resume=False) as journal:
        journal.append(
            [Outcome("d1#0", "d1", "kept", question="how?", rank=2), Outcome("d2#0", "d2", "missing", "timeout")]
        )


def _resume(path: Path) -> None:
    with QueryJournal(path, {"seed": 1}, resume=True) as journal:
        journal.append([Outcome("d3#0", "d3", "kept", question="\u00fc?")])
        journal.of("kept")


def _answer_journal(folder: Path) -> None:
    async def ask() -> None:
        with Asker(FakeBackend(), folder / "j.jsonl") as asker:
            await asker.generate([Chat((("user", "Sort lists. How?"),), 9)])
            await asker.score([Prompt("judge", "how", "so", ("NO", "YES"), "how", "so")])

    asyncio.run(ask())


def _answered(path: Path) -> None:
    with Asker(FakeBackend(), path) as asker:
        assert asker.asked == 0


def _announced(folder: Path) -> None:
    for endpoint in endpoints(folder).values():
        assert f"{endpoint.grpc} {endpoint.metrics}"


def _told_by_manifest(path: Path) -> None:
    qrels = path.with_name("qrels.tsv")
    qrels.write_text("q1 0 d1 1\n")
    manifest_of(qrels)
    told_relevant_from(None, qrels)


def _told_by_folder(folder: Path) -> None:
    (folder / "qrels").mkdir(exist_ok=True)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq1\td1\t1\n")
    told_relevant_from(2, folder / "qrels" / "test.tsv")
    open_output(folder, folder=True).abandon()


def _evaluation(path: Path) -> None:
    """As `qrelay eval --against` reads it."""
    found = evaluation_of(read_evaluation_file(path))
    compared(found, found)
    found.as_json()


def _vectors(folder: Path) -> None:
    np.savez(folder / "kept.npz", vectors=np.zeros((2, 3), np.float32), key=np.array("k"))


def _model_folder(name: str, document: Any) -> Parser:
    """A file of a model that says how it reads texts."""

    def others(folder: Path) -> None:
        (folder / "modules.json").write_text('[{"path": ""}]')
        (folder / "config.json").write_text('{"max_position_embeddings": 512}')

    def read(folder: Path) -> None:
        encoding(folder)
        own_length(folder)
        is_cross_encoder(folder)

    return Parser(f"model: {name}", "json", constant(json.dumps(document)), beside(others, name, read))


def _marker(folder: Path) -> None:
    (folder / "weights").write_bytes(b"x")
    file_hashes(folder, ["weights"], folder / "marker.json")


_EVALUATION: Final = {
    "system": "bm25",
    "query_ids": ["q1", "q2"],
    "per_query": {"nDCG@10": [0.4, 0.6]},
    "first": {"q1": "d1"},
    "collection": "c",
}
_MANIFEST: Final = written("data.jsonl.manifest.json", _export("qrels"))


@cache
def _certificate_files() -> dict[str, bytes]:
    folder = Path(mkdtemp())
    try:
        issue(folder, authority(folder), "spiffe://qrelay/service/judge", ["localhost"])
        return {path.name: path.read_bytes() for path in folder.iterdir()}
    finally:
        shutil.rmtree(folder)


def _certificates(folder: Path) -> None:
    for name, data in _certificate_files().items():
        (folder / name).write_bytes(data)


PARSERS: Final = (
    Parser("settings file", "yaml", constant(_SETTINGS), file("qrelay.yaml", _settings_file)),
    Parser(
        "settings record",
        "yaml",
        written("settings.yaml", _record),
        file("settings.yaml", _tuned_and_record("settings.yaml")),
    ),
    Parser("tuned.yaml", "yaml", written("tuned.yaml", _tuned), file("tuned.yaml", _tuned_and_record("tuned.yaml"))),
    Parser("environment", "lines", constant(_VARIABLES), _environment),
    Parser("rubric", "yaml", _rubrics, file("r.yaml", _rubric)),
    Parser("experiment", "yaml", _experiments, file("e.yaml", lambda path: load_experiment(str(path)))),
    Parser(
        "experiment's overrides", "lines", constant("learning_rate=1e-5\nstages=[{name: a, data: [x]}]"), _overrides
    ),
    Parser(
        "manifest in Milvus",
        "json",
        lambda _: [read_manifest(_index() / _version()).model_dump_json(exclude={"files"}).encode()],
        _kept_in_milvus,
    ),
    Parser("gate's rules", "yaml", constant(_RULES), file("rules.yaml", read_rules)),
    Parser(
        "model catalogue",
        "yaml",
        lambda _: [(ROOT / "qrelay/models/catalogue.yaml").read_bytes()],
        file("c.yaml", _catalogue),
        cost=3,
    ),
    *map(
        _index_file,
        (
            "CURRENT",
            "VERSION/manifest.json",
            "VERSION/documents.npy",
            "VERSION/texts.npy",
            "VERSION/passages.npy",
            "VERSION/hashes.npy",
            "VERSION/order.npy",
            "VERSION/vectors.npy",
            "VERSION/documents.bin",
            "VERSION/texts.bin",
            "VERSION/metadata.npy",
            "VERSION/metadata.bin",
            "VERSION/bm25/params.index.json",
            "VERSION/bm25/vocab.index.json",
        ),
    ),
    Parser(
        "re-embedding under way",
        "json",
        constant('{"embedder": "hash@1", "documents": 5, "passages": 7}'),
        beside(_copied_index, "tiny/.reembed-x/.scaffold/chunked.json", _served),
        cost=5,
    ),
    Parser(
        "registry's event",
        "json",
        _registry_seed("registry/events/*.json"),
        _registry_file("registry/events/*.json"),
        cost=5,
    ),
    Parser(
        "registry's manifest",
        "json",
        _registry_seed("registry/versions/*/manifest.json"),
        _registry_file("registry/versions/*/manifest.json"),
        cost=5,
    ),
    Parser("calibration maps", "json", written("maps.json", _map), file("maps.json", _use_map)),
    Parser(
        "qualification report", "json", written("qualification.json", report_file), file("report.json", read_report)
    ),
    Parser(
        "training job",
        "json",
        written("training/j/job.json", lambda folder: Job("j", "docs", folder, 3, "r").write()),
        file("job.json", read_job),
    ),
    Parser("job of another launch", "json", _job_document, _another_launch),
    Parser("job's data", "json", constant(json.dumps(_SUMMARY)), _prepared),
    Parser(
        "interrupted build",
        "json",
        constant('{"embedder": "hash@1", "documents": 5, "passages": 7}'),
        beside(_copied_index, "tiny/.build-x/.scaffold/chunked.json", _interrupted),
        cost=5,
    ),
    Parser(
        "interrupted re-embedding",
        "json",
        constant('{"embedder": "hash@1", "documents": 5, "passages": 7}'),
        beside(_copied_index, "tiny/.reembed-x/.scaffold/chunked.json", _interrupted),
        cost=5,
    ),
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
        constant(json.dumps(_RUN), json.dumps(_EVALUATION)),
        file("run.json", _tracked),
    ),
    Parser(
        "a trainer's log for a tracker",
        "json",
        constant('[{"loss": 0.5, "step": 1, "epoch": 0.1}, {"eval_nDCG@10": 0.5, "step": 2}]'),
        beside(_run_of_training, "checkpoints/train/log.json", records),
    ),
    Parser("journal of answers", "jsonl", written("j.jsonl", _answer_journal), file("j.jsonl", _answered)),
    Parser("query generation's journal", "jsonl", written("j.jsonl", _query_journal), file("j.jsonl", _resume)),
    Parser(
        "announcement of a service",
        "json",
        constant('{"service": "judge", "pid": 1, "grpc": "h:1", "metrics": "h:2"}'),
        beside(lambda _: None, "run/judge.json", _announced),
    ),
    Parser("export's manifest beside a file", "json", _MANIFEST, file("qrels.tsv.manifest.json", _told_by_manifest)),
    Parser(
        "export's manifest in a folder", "json", _MANIFEST, beside(lambda _: None, "manifest.json", _told_by_folder)
    ),
    Parser("evaluation", "json", constant(json.dumps(_EVALUATION)), file("evaluation.json", _evaluation)),
    Parser(
        "kept vectors", "bytes", written("kept.npz", _vectors), file("kept.npz", lambda path: kept_vectors(path, "k"))
    ),
    Parser(
        "model's training queries",
        "lines",
        constant("0" * 32 + "\n" + "f" * 32),
        file("training-queries.txt", lambda path: read_query_hashes(path.parent)),
    ),
    _model_folder("modules.json", [{"idx": 0, "name": "0", "path": "", "type": "Transformer"}]),
    _model_folder(
        "config.json", {"architectures": ["BertForSequenceClassification"], "max_position_embeddings": 512}
    ),
    _model_folder("tokenizer_config.json", {"model_max_length": 512}),
    _model_folder("sentence_bert_config.json", {"max_seq_length": 256}),
    _model_folder(
        "config_sentence_transformers.json", {"prompts": {"query": "query: "}, "default_prompt_name": "query"}
    ),
    Parser(
        "model's verification marker",
        "json",
        written("marker.json", _marker),
        beside(_marker, "marker.json", _marker),
    ),
    *(
        Parser(
            f"{name} of a certificate's files",
            "lines",
            lambda _, name=name: [_certificate_files()[name]],
            beside(
                _certificates,
                name,
                lambda folder: each(
                    lambda: Files(files_of(folder)),
                    lambda: authority(folder),
                    lambda: is_development(folder),
                    lambda: valid_until(files_of(folder)),
                ),
            ),
        )
        for name in ("tls.crt", "tls.key", "ca.crt", "ca.key")
    ),
    Parser("seed of a user of NATS", "bytes", written("judge.nk", write_accounts), file("judge.nk", _seed)),
    Parser("bench report", "json", lambda _: [as_json(report()).encode()], file("report.json", bench_report)),
    Parser("recorded arrivals", "lines", constant("12.5\n2026-01-31T12:00:00Z\n", "1\n2e0\n"), file("a", read_trace)),
    Parser("log lines", "jsonl", constant('{"level": "INFO", "message": "x"}\nTraceback\n'), file("log", json_lines)),
)

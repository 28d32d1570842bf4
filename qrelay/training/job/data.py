"""A job's data: one export of the ledger, its queries divided into training and dev by hash.

Queries of the gate's sets are left out, whatever their case and punctuation: what is measured must not be trained on.
Others with the same words stay on one side.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qrelay.errors import BackendUnavailable, MalformedInput, UnknownCollection
from qrelay.files import AtomicFiles, write_atomic
from qrelay.models.registry import DataSource, JudgeRef
from qrelay.parsing import json_document
from qrelay.training.gate.facts import HUMAN, query_hash
from qrelay.training.gate.rules import GateRules
from qrelay.training.job.job import Job
from qrelay.training.settings import TrainerSettings

if TYPE_CHECKING:
    from qrelay.labels.exports.request import Request
    from qrelay.labels.ledger.ledger import Ledger
    from qrelay.labels.settings import SinkSettings

TRAIN: Final = "train"
DEV: Final = "dev"
HELD_BACK: Final = "held_back"


@dataclass(frozen=True, slots=True)
class JobData:
    """train, dev: files of one export format. Counts are of queries; labels: graded, of the whole export. held_back:
    queries that are in the gate's sets. manifest: the export's own. judges: whose labels were trained on; of a
    label that is made of others' (fused, cascade), all that graded in the collection."""

    kind: str
    train: Path
    dev: Path
    sha256: str
    queries: int
    dev_queries: int
    held_back: int
    labels: int
    manifest: Mapping[str, Any]
    judges: tuple[JudgeRef, ...]

    def sources(self) -> tuple[DataSource, ...]:
        """What the version's manifest says of it."""
        return (DataSource(f"{self.kind}/{TRAIN}", self.sha256, self.queries, self.manifest),)


def prepare(job: Job, kind: str, settings: TrainerSettings, rules: GateRules, config: Path | None) -> JobData:
    """Exports and divides, or takes what an earlier run of the job made.

    Raises:
        UnknownCollection, InputError: there is nothing to export.
        NotQualified: a judge's labels may not train.
        ConfigError: there is no ledger.
        MalformedInput: a set of the gate's is not what it must be.
    """
    folder = job.folder / "data" / kind
    summary = folder / "summary.json"
    if not summary.exists():
        exported = job.folder / f"{kind}.jsonl"
        manifest = _export(job, kind, exported, settings, config)
        found = divide(exported, folder, settings.dev_share, frozen_hashes(rules))
        judges = [asdict(each) for each in _judges(job, manifest, config)]
        write_atomic(summary, json.dumps({**asdict(found), "manifest": manifest, "judges": judges}))
    try:
        told = json_document(summary.read_bytes())
        return JobData(
            kind, folder / f"{TRAIN}.jsonl", folder / f"{DEV}.jsonl", told["sha256"], told["train"], told["dev"],
            told["held_back"], sum(told["manifest"]["grades"].values()), told["manifest"],
            tuple(JudgeRef(**each) for each in told["judges"]),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedInput(f"{summary} is damaged ({error}): remove its folder, and run the job again") from error


def frozen_hashes(rules: GateRules) -> frozenset[str]:
    """Hashes of all queries of the sets of all slots. Raises MalformedInput: a set that cannot be read."""
    from qrelay.formats.beir import read_queries

    return frozenset(query_hash(text) for folder in rules.folders() for _, text in read_queries(folder))


@dataclass(frozen=True, slots=True)
class Division:
    """Queries on each side. sha256: of the training file."""

    train: int
    dev: int
    held_back: int
    sha256: str


def divide(exported: Path, folder: Path, dev_share: float, held_back: Collection[str]) -> Division:
    """Writes train.jsonl and dev.jsonl, whole or not at all.

    Raises:
        MalformedInput: a line that is no query's.
    """
    counts: Counter[str] = Counter()
    sha = hashlib.sha256()
    with AtomicFiles() as files, exported.open("rb") as lines:
        out = {side: files.open(folder / f"{side}.jsonl") for side in (TRAIN, DEV)}
        for number, line in enumerate(lines, 1):
            side = _side(line, f"{exported}:{number}", dev_share, held_back)
            counts[side] += 1
            if side in out:
                out[side].write(line)
            if side == TRAIN:
                sha.update(line)
        files.commit()
    return Division(counts[TRAIN], counts[DEV], counts[HELD_BACK], sha.hexdigest())


def _side(line: bytes, where: str, dev_share: float, held_back: Collection[str]) -> str:
    try:
        hashed = query_hash(json_document(line)["query"])
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MalformedInput(f"{where}: no line of an export ({error}): export again") from error
    if hashed in held_back:
        return HELD_BACK
    return DEV if int(hashed[:8], 16) / 2**32 < dev_share else TRAIN


def _export(job: Job, kind: str, path: Path, settings: TrainerSettings, config: Path | None) -> dict[str, Any]:
    """The export's manifest; made once. It is not noted in the ledger: increments of others do not go on from it."""
    beside = path.with_name(f"{path.name}.manifest.json")
    if beside.exists():
        found: dict[str, Any] = json_document(beside.read_bytes())
        return found
    with _ledger(job, config) as (ledger, sink):
        return _write(ledger, _request(job, kind, settings, sink), path)


def require_permitted(job: Job, settings: TrainerSettings, config: Path | None) -> None:
    """Whether the job could learn from what the ledger holds now; nothing is written, and a collection without labels
    passes.

    Raises:
        NotQualified: a judge's labels may not train.
    """
    from qrelay.labels.exports import export
    from qrelay.labels.opening import ledger_place

    if not job.ledger and ledger_place(job.data_dir, config) is None:
        return
    with _ledger(job, config) as (ledger, sink):
        for kind in {settings.of(kind).export: None for kind in settings.kinds}:
            with suppress(UnknownCollection):
                export.require_permitted(ledger, _request(job, kind, settings, sink))


def _request(job: Job, kind: str, settings: TrainerSettings, sink: SinkSettings) -> Request:
    """The export that the job learns from."""
    from qrelay.labels.exports.request import request_of

    found: Request = request_of(
        sink, kind=kind, collection=job.collection, split=None, group_by="query", negatives=1, licence="",
        overrides=settings.human_labels,
        unmeasured=job.unmeasured or sink.training.unmeasured,
        unqualified=job.unqualified or sink.training.unqualified,
    )  # fmt: skip
    return found


def _write(ledger: Ledger, request: Request, path: Path) -> dict[str, Any]:
    """The file and its manifest, which names the changes that are in it, for lineage."""
    from qrelay.labels.exports.export import Export
    from qrelay.labels.exports.files import open_output

    export = Export(ledger, request)
    try:
        output = open_output(path, folder=False)
        try:
            export.write(output)
            manifest = {**export.manifest(), "changes": {"from": 0, "to": export.to_change}}
            output.commit(manifest)
        finally:
            output.abandon()
    except OSError as error:
        raise BackendUnavailable(f"cannot write {path}: {error.strerror}; run the job again") from error
    return manifest


def _ledger(job: Job, config: Path | None) -> Any:
    """The ledger of the settings (QRELAY_SINK__LEDGER brings its password), else the job's, else the data
    folder's."""
    import os

    from qrelay.jobs.launcher import LEDGER_VARIABLE
    from qrelay.labels.opening import open_ledger

    return open_ledger(None if os.environ.get(LEDGER_VARIABLE) else job.ledger or None, job.data_dir, config)


def _judges(job: Job, manifest: Mapping[str, Any], config: Path | None) -> list[JudgeRef]:
    """By hash, with their graded labels in the collection; people's are the overrides that the export counted."""
    from qrelay.types import COMBINED

    told = {each["judge"]: each for each in manifest["judges"]}
    made_of_others = any(each["strategy"] in COMBINED for each in told.values())
    with _ledger(job, config) as (ledger, _):
        graded = _graded_by(ledger, job.collection)
    people = [
        JudgeRef(hashed, each["model"], each["revision"], each["strategy"], manifest["overrides"])
        for hashed, each in told.items()
        if each["strategy"] == HUMAN
    ]
    trained_on = [each for each in graded if each.hash in told or made_of_others]
    return sorted([*trained_on, *people], key=lambda each: each.hash)


def _graded_by(ledger: Ledger, collection: str) -> list[JudgeRef]:
    """Every judge that gave a grade in the collection, and how many."""
    import sqlalchemy as sa

    from qrelay.labels.ledger import schema

    judgments, judges, queries = schema.judgments.c, schema.judges.c, schema.queries.c
    named = (judges.judge_hash, judges.model, judges.revision, judges.strategy)
    chosen = (
        sa.select(*named, sa.func.count())
        .join(schema.judgments, judgments.judge_no == judges.judge_no)
        .join(schema.queries, queries.query_no == judgments.query_no)
        .where(queries.collection == collection, judgments.grade.is_not(None))
        .group_by(*named)
    )
    with ledger.snapshot() as snapshot:
        return [JudgeRef(*row) for row in snapshot.connection.execute(chosen)]

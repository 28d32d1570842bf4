"""Increments of a collection in a repository of a hub, each exactly once, whoever is killed when.

    data/<collection>/<from>-<to>/   one increment: its files, and manifest.json; changes beyond <from> up to <to>
    README.md                        with format hf: the card, which names the files of each collection and split

The repository says how far it is: the greatest <to> of a collection's folders. One publication reads that with the
repository's last commit, exports what later changes touched, and commits onto that very commit. The hub refuses if
somebody else committed meanwhile. So of any number of sinks one succeeds, a folder's files arrive together, and where
a process dies between commit and record, the next one finds the folder and only records it.

A query that later changes touched is in several increments: the rows of the last one count, and none where its
manifest lists the query under `emptied`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, Protocol

from qrelay.errors import InputError
from qrelay.labels.exports.card import increments_card
from qrelay.labels.exports.export import write_export
from qrelay.labels.exports.files import MANIFEST
from qrelay.labels.exports.request import Request, request_of
from qrelay.labels.exports.splits import BY_QUERY
from qrelay.labels.ledger import export_records
from qrelay.labels.ledger.export_records import PUBLISHED
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.mining.rounds import RoundLimits
from qrelay.labels.settings import SinkSettings
from qrelay.models import pushing
from qrelay.models.pushing import Repository
from qrelay.parsing import json_document
from qrelay.runtime import faults

_DIGITS: Final = 12
"""Of a change's number in a name, so that names sort as numbers do."""
_FOLDER: Final = re.compile(rf"data/([a-z0-9_-]+)/(\d{{{_DIGITS}}})-(\d{{{_DIGITS}}})/(.+)")
_CARD: Final = "README.md"
_NEEDED: Final = {"collection", "format", "selection", "rows", "queries", "sha256"}
_RESTORE: Final = "restore it in the repository, or name another one in sink.publish.repo"


class Hub(Protocol):
    """What publishing asks of a hub; `models/pushing.py` is one."""

    def open_repository(self, repo: str, *, public: bool) -> Repository:
        """What the repository holds; made where there is none."""

    def read_file(self, repo: str, path: str, head: str) -> bytes:
        """A file as of this commit."""

    def push_folder(self, folder: Path, repo: str, *, public: bool, message: str, onto: str) -> str:
        """Commits onto this very commit."""


@dataclass(frozen=True, slots=True, order=True)
class Increment:
    """A folder of the repository: changes beyond `first` up to `last`."""

    collection: str
    first: int
    last: int

    @property
    def folder(self) -> str:
        """Its path."""
        return f"data/{self.collection}/{self.first:0{_DIGITS}}-{self.last:0{_DIGITS}}"


@dataclass(frozen=True, slots=True)
class Published:
    """What one publication did. rows: 0 where an increment was only recorded, or holds nothing. sent: the commit's
    address, or "" where nothing was to be sent."""

    increment: Increment
    rows: int
    sent: str = ""


def location_of(repo: str) -> str:
    """How the ledger's table `exports` names the repository."""
    return f"{PUBLISHED}{repo}"


def increments(files: Iterable[str]) -> list[Increment]:
    """Those that a repository with these files holds, in order."""
    found = filter(None, map(_FOLDER.fullmatch, files))
    return sorted({Increment(each[1], int(each[2]), int(each[3])) for each in found if each[4] == MANIFEST})


def publish(ledger: Ledger, collection: str, settings: SinkSettings, hub: Hub = pushing) -> Published | None:
    """Publishes what changed since the last increment; or records an increment that the ledger does not know of yet.
    None: there is nothing new.

    Raises:
        NotQualified: training data of a judge whose labels may not train; see `labels/permission.py`.
        ConfigError: no token, or one that may not write there; the report on the judges cannot be read.
        InputError: the repository is public, or holds another ledger's increments or those of another format.
        BackendUnavailable: hub or ledger do not answer, or somebody else committed to the repository; try again.
    """
    wanted = settings.publish
    repo = wanted.repo_of(collection)
    held = hub.open_repository(repo, public=wanted.public)
    before = [each for each in increments(held.files) if each.collection == collection]
    with ledger.snapshot() as snapshot:
        at = export_records.standing(snapshot.connection, collection, location_of(repo))
    if at is None:
        return None
    reached = max((each.last for each in before), default=0)
    if reached > at.change_no:
        raise InputError(
            f"{repo} holds changes up to {reached} of {collection}, and this ledger ends at {at.change_no}: another"
            " ledger published there, or this one is an older copy; name another repository in sink.publish.repo"
        )
    latest = max(before, key=lambda each: each.last, default=None)
    if latest and reached > at.published:  # who pushed it died, or is about to record it
        _record(ledger, _manifest(hub, repo, held.head, latest), repo, latest)
        return Published(latest, 0)
    empty = at.last is not None and at.last.to_change == at.change_no and not at.last.manifest["rows"]
    if reached == at.change_no or empty:
        return None
    request = _request(settings, collection, repo, reached)
    if latest:
        _require_same(_manifest(hub, repo, held.head, latest), request, repo)
    return _published(ledger, request, settings, hub, repo, held)


def _request(settings: SinkSettings, collection: str, repo: str, since: int) -> Request:
    """The increment, whole: the limits of a round of training are none of a publication's."""
    wanted = settings.publish
    asked = request_of(
        settings, kind=wanted.format, collection=collection, split=wanted.split or None, group_by=BY_QUERY,
        negatives=5, licence=wanted.license, name=repo, since=since, overrides=wanted.overrides,
    )  # fmt: skip
    return replace(asked, limits=RoundLimits())


def _manifest(hub: Hub, repo: str, head: str, found: Increment) -> dict[str, Any]:
    path = f"{found.folder}/{MANIFEST}"
    return parse_manifest(hub.read_file(repo, path, head), f"{repo}: {path}")


def parse_manifest(data: bytes, where: str) -> dict[str, Any]:
    """The manifest of an increment. Raises InputError: it is none."""
    try:
        found = json_document(data)
    except ValueError as error:
        raise InputError(f"{where} is damaged ({error}): {_RESTORE}") from error
    if not isinstance(found, dict) or not found.keys() >= _NEEDED:
        raise InputError(f"{where} is no manifest of an export: {_RESTORE}")
    return found


def _record(ledger: Ledger, manifest: Mapping[str, Any], repo: str, found: Increment) -> None:
    export_records.record(ledger, manifest, location_of(repo), found.first, found.last, once=True)


def _require_same(manifest: Mapping[str, Any], request: Request, repo: str) -> None:
    """Raises InputError: what is in the repository has another format or other splits, and cannot be read as one data
    set with what would come."""
    there = manifest["format"], (manifest["selection"] or {}).get("splits")
    here = request.kind, request.splits.describe() if request.splits else None
    if there != here:
        raise InputError(
            f"{repo} holds increments of format {there[0]} with splits {there[1]}, and sink.publish says {here[0]}"
            f" with {here[1]}: set them as they were, or name another repository"
        )


def _published(
    ledger: Ledger, request: Request, settings: SinkSettings, hub: Hub, repo: str, held: Repository
) -> Published:
    with TemporaryDirectory(prefix="qrelay-publish-") as temporary:
        written = Path(temporary) / "export"
        place = written if request.folder else written / f"{request.collection}{request.format.suffix}"
        manifest = write_export(ledger, request, place, True, record=False)
        found = Increment(request.collection, request.since or 0, manifest["changes"]["to"])
        if not manifest["rows"] and not manifest["emptied"]:  # said by the ledger alone; the next one covers it
            _record(ledger, manifest, repo, found)
            return Published(found, 0)
        folder = Path(temporary) / "repository"
        _arrange(written, folder, found)
        if request.kind == "hf":
            splits = _splits_of([*held.files, *_paths(folder)])
            (folder / _CARD).write_text(increments_card(splits, request.options, repo), encoding="utf-8")
        faults.point("sink.publish.exported")
        rows, queries = manifest["rows"], manifest["queries"]
        message = f"{found.collection}: changes {found.first} to {found.last}, {rows} rows of {queries} queries"
        sent = hub.push_folder(folder, repo, public=settings.publish.public, message=message, onto=held.head)
        faults.point("sink.publish.pushed")
    _record(ledger, manifest, repo, found)
    return Published(found, rows, sent)


def _arrange(written: Path, folder: Path, found: Increment) -> None:
    """Moves an export's files to where the repository has them."""
    target = folder / found.folder
    target.mkdir(parents=True)
    for path in sorted(each for each in written.rglob("*") if each.is_file()):
        parts = path.relative_to(written).parts
        if parts == (_CARD,):
            continue
        name = MANIFEST if path.name.endswith(f".{MANIFEST}") else "/".join(parts).removeprefix("data/")
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.move(path, target / name)


def _paths(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*")) if path.is_file())


def _splits_of(files: Iterable[str]) -> dict[str, list[str]]:
    """collection -> its splits, of a repository in format hf."""
    found: dict[str, dict[str, None]] = {}
    for each in filter(None, map(_FOLDER.fullmatch, sorted(files))):
        if each[4].endswith(".parquet"):
            found.setdefault(each[1], {})[each[4].split("-")[0]] = None
    return {collection: list(splits) for collection, splits in found.items()}

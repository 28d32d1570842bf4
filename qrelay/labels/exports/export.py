"""Exports: files that are a function of the ledger's labels. Same ledger, same bytes.

    Request (what is asked for) ──► Source (one snapshot: an Example a query) ──► Writer (a format) ──► Output (files)

Everything is sorted by id, nothing carries a time, a cost or a cache mark, and numbers are rounded to six decimals,
so the order in which queries were committed, a redelivery or a second sink cannot change a byte. Formats are in
`catalogue.py`; a new one is a file in `formats/` and a line there.

    for chunk in Export(ledger, Request("medquad", "qrels")).chunks(): ...
    manifest = write_export(ledger, Request("medquad", "triples"), Path("triples.jsonl"))

An increment (`since`) holds the whole current rows of the queries that later changes touched. To merge it into what
is there, drop the rows of its queries (those in it, and those that its manifest lists under `emptied`), and add its
own. Only an increment's manifest names changes, for their numbers depend on how commits were batched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from qrelay.errors import BackendUnavailable, InputError, InternalError
from qrelay.labels.exports.catalogue import EXAMPLES_USE, NO_LABELS
from qrelay.labels.exports.files import Folder, OneFile, Stream, described, open_output, overall_sha256
from qrelay.labels.exports.request import Request
from qrelay.labels.exports.source import Source
from qrelay.labels.exports.tally import Tally
from qrelay.labels.exports.writing import Writer, open_writer
from qrelay.labels.ledger import export_records
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.schema import SCHEMA_VERSION
from qrelay.runtime import faults

_CHUNK_BYTES: Final = 64 * 1024

Progress = Callable[[int, int], None]
"""Called with (queries read, queries in all) after each query."""


class Export:
    """One export, written once: by `chunks()` read to the end, or by `write(output)`; then `manifest()`.

    It reads one snapshot of the ledger in pages: memory does not grow with the ledger. May be read from any thread,
    one at a time.
    """

    def __init__(self, ledger: Ledger, request: Request, on_progress: Progress | None = None) -> None:
        """
        Raises:
            InputError: the request cannot be; see `Request.check`.
        """
        request.check()
        names = request.splits.names if request.splits else ()
        self.request = replace(request, options=replace(request.options, splits=names))
        self.to_change = 0
        """The collection's last change that was read; known once the first query is."""
        self._ledger = ledger
        self._on_progress = on_progress
        self.tally = Tally(self.request)
        """What was counted so far, and whose labels were used."""
        self._writer: Writer | None = None
        self._output: Stream | OneFile | Folder | None = None
        self._finished = False

    def chunks(self) -> Iterator[bytes]:
        """The bytes of an export of one file, in pieces of about 64 KiB. Once.

        Raises:
            UnknownCollection: the ledger holds no query of it.
            InputError: no such judge, a scale without a relevant grade, or an export of several files.
            NotQualified: training data of a judge whose labels may not train; see `labels/permission.py`.
            BackendUnavailable: the database does not answer.
        """
        stream = Stream()
        for _ in self._steps(stream):
            if stream.held >= _CHUNK_BYTES:
                yield stream.take()
        if stream.held:
            yield stream.take()

    def write(self, output: OneFile | Folder) -> None:
        """Writes all of it; the output is not yet put in place. Raises as `chunks` does, and OSError."""
        for _ in self._steps(output):
            pass

    def manifest(self) -> dict[str, Any]:
        """What the bytes are: counts, sha256, judges and what was measured of them, rules. A function of the labels,
        as the bytes are, and of the report; an increment's names its changes too."""
        if not self._finished or self._output is None:
            raise InternalError("an export's manifest was asked for before its chunks were read")
        return {
            **self._facts(),
            "sha256": overall_sha256(self._output.sinks),
            "files": described(self._output.sinks),
        }

    def _steps(self, output: Stream | OneFile | Folder) -> Iterator[None]:
        """Writes a query a step, then the end."""
        if self._output is not None:
            raise InternalError("an export was written twice")
        self._output = output
        self._writer = open_writer(self.request.format, output, self.request.options)
        try:
            with self._ledger.snapshot() as snapshot:
                source = Source(snapshot, self.request)
                self.to_change = source.change_no
                for each in source.examples():
                    self.tally.before(each)
                    self.tally.after(each, source, self._writer.write(each))
                    faults.point("sink.export.middle")
                    if self._on_progress:
                        self._on_progress(self.tally.read, source.total)
                    yield
            if self.tally.shared_by_two_splits:
                raise InternalError("two splits of an export share a group")
            self._writer.close(self._facts())
        finally:
            self.tally.close()
        self._finished = True

    def _facts(self) -> dict[str, Any]:
        """The manifest without what is known of the bytes."""
        request, tally = self.request, self.tally
        rules = request.describe_rules()
        facts: dict[str, Any] = {
            "format": request.kind,
            "collection": request.collection,
            "rows": tally.rows,
            "queries": tally.queries,
            "selection": request.selection(),
            "missing": dict(sorted(tally.missing.items())),
            "grades": {str(grade): count for grade, count in sorted(tally.grades.items())},
            "overrides": tally.overrides,
            "judges": tally.judges(),
            "relevant_grades": tally.relevant_grades(),
            "qualification": tally.usage.summary(),
            "ledger": {"schema_version": SCHEMA_VERSION, "queries": tally.read},
            "notes": dict(sorted(self._writer.notes.items())) if self._writer else {},
        }
        if rules is not None:
            facts["rules"] = rules
        if request.splits:
            facts["splits"], facts["shared_by_two_splits"] = tally.splits(), tally.shared_by_two_splits
        if request.since is not None:
            facts["ledger"]["change_no"] = self.to_change
            facts["changes"] = {"from": request.since, "to": self.to_change}
            facts["emptied"] = tally.emptied
        return facts


def require_permitted(ledger: Ledger, request: Request) -> None:
    """Reads what an export would read, and writes nothing. Stops at the first label that may not train.

    Raises:
        NotQualified: there is one; see `labels/permission.py`.
        UnknownCollection, InputError, BackendUnavailable: as `Export.chunks`.
    """
    request.check()
    tally = Tally(request)
    try:
        with ledger.snapshot() as snapshot:
            for each in Source(snapshot, request).examples():
                tally.before(each)
    finally:
        tally.close()


def write_export(
    ledger: Ledger,
    request: Request,
    path: Path,
    allow_empty: bool = True,
    on_progress: Progress | None = None,
    *,
    record: bool = True,
) -> dict[str, Any]:
    """Writes a file and `<path>.manifest.json`, or a folder with `manifest.json` in it, whole or not at all; records
    it in the ledger's table `exports`, unless `record` is False (for what does not stay); returns the manifest.

    The record is written last: where a crash falls before it, the files are in place and the next increment since the
    last export covers their changes again.

    Raises:
        InputError: with `allow_empty` False, an export without a row; nothing is written then. See also
            `Export.chunks`; and a place that holds something else.
        BackendUnavailable: the place cannot be written, or the disk is full.
    """
    export = Export(ledger, request, on_progress)
    try:
        output = open_output(path, folder=request.folder)
        try:
            export.write(output)
            if not export.tally.rows and not allow_empty:
                raise InputError(_why_empty(export))
            manifest = export.manifest()
            output.commit(manifest)
        finally:
            output.abandon()
    except OSError as error:
        raise BackendUnavailable(f"cannot write {path}: {error.strerror}; nothing was changed there") from error
    if record:
        export_records.record(ledger, manifest, str(path), request.since or 0, export.to_change)
    return manifest


def _why_empty(export: Export) -> str:
    manifest, kind = export.manifest(), export.request.kind
    missing = ", ".join(f"{count} {reason}" for reason, count in manifest["missing"].items()) or "none"
    graded = sum(manifest["grades"].values())
    mined = export.request.format.use == EXAMPLES_USE
    notes = "".join(f"; {word.replace('_', ' ')}: {count} queries" for word, count in manifest["notes"].items())
    if export.request.format.use == NO_LABELS:
        return f"nothing to export as {kind}: the system ranked no passage of collection {export.request.collection}"
    wanted = "no query has a positive and a hard negative" if mined else "no judgment has a grade"
    return (
        f"nothing to export as {kind}: {wanted} among {manifest['ledger']['queries']} queries of collection"
        f" {export.request.collection} ({graded} graded judgments; missing: {missing}{notes}). Feed more queries"
        + (", or raise sink.negative_threshold" if mined else "")
        + (", or lower --negatives" if "too_few_negatives" in manifest["notes"] else "")
    )

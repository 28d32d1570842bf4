"""Reading from the sink: labels, and exports."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal

import grpc.aio

from qrelay import wire
from qrelay.client.patience import Patience
from qrelay.errors import BackendTimeout, BackendUnavailable, InputError, MalformedInput, TransientError
from qrelay.files import AtomicFiles
from qrelay.nearest import did_you_mean
from qrelay.parsing import json_document
from qrelay.runtime.telemetry import trace_context
from qrelay.types import JudgedSet
from qrelay.v1 import sink_pb2

Kind = Literal["qrels", "triples", "run", "msmarco", "msmarco-ids", "tevatron"]
_FORMATS: Final[Mapping[str, sink_pb2.ExportFormat]] = {
    "qrels": sink_pb2.EXPORT_FORMAT_QRELS,
    "triples": sink_pb2.EXPORT_FORMAT_TRIPLES,
    "run": sink_pb2.EXPORT_FORMAT_RUN,
    "msmarco": sink_pb2.EXPORT_FORMAT_MSMARCO,
    "msmarco-ids": sink_pb2.EXPORT_FORMAT_MSMARCO_IDS,
    "tevatron": sink_pb2.EXPORT_FORMAT_TEVATRON,
}
SINK: Final = "sink"


@dataclass(frozen=True, slots=True)
class Exported:
    """A file that was written. missing: judgments that are no label; qualification: the least verdict on its labels;
    manifest: all that is known of it, which is in `<path>.manifest.json` too."""

    path: Path
    rows: int
    queries: int
    missing: int
    sha256: str
    qualification: str
    manifest: Mapping[str, Any] = field(repr=False)


async def labels(
    patience: Patience, collection: str, where: str, after: str
) -> AsyncGenerator[Sequence[JudgedSet], None]:
    """The ledger's sets that `where` selects, by query_id, above `after`. A broken stream goes on where it was."""
    failures = 0
    while True:
        request = sink_pb2.ListJudgedSetsRequest(collection=collection, where=where, after_query_id=after)
        try:
            async with aclosing(_answers(patience, "ListJudgedSets", request)) as answers:
                async for answer in answers:
                    found: JudgedSet = wire.from_proto(answer.judged_set)
                    yield [found]
                    after, failures = found.candidate_set.query.query_id, 0
            return
        except BackendTimeout:
            raise
        except TransientError as error:
            failures = await patience.pause(SINK, error, failures)


def export_request(kind: str, collection: str, **options: Any) -> sink_pb2.ExportRequest:
    """options: fields of ExportRequest. Raises InputError: no such kind."""
    if kind not in _FORMATS:
        raise InputError(
            f"no export {kind!r} over gRPC: there are {', '.join(_FORMATS)}, and more with `qrelay export`."
            f"{did_you_mean(kind, _FORMATS)}"
        )
    return sink_pb2.ExportRequest(collection=collection, format=_FORMATS[kind], **options)


async def exported(patience: Patience, request: sink_pb2.ExportRequest) -> AsyncGenerator[Sequence[bytes], None]:
    """The export's bytes. Raises BackendUnavailable: they broke off, or are not those that were sent; begin anew."""
    async with aclosing(_export(patience, request)) as parts:
        async for part in parts:
            if isinstance(part, bytes):
                yield [part]


async def export_file(patience: Patience, request: sink_pb2.ExportRequest, path: Path) -> Exported:
    """The export as a file, whole or not at all, with its manifest beside it."""

    async def write() -> Exported:
        with AtomicFiles() as files:
            file = files.open(path)
            async with aclosing(_export(patience, request)) as parts:
                async for part in parts:
                    if isinstance(part, bytes):
                        file.write(part)
                    else:
                        found = described(path, part)
            beside = files.open(path.with_name(f"{path.name}.manifest.json"))
            beside.write(f"{json.dumps(found.manifest, ensure_ascii=False, indent=2)}\n".encode())
            files.commit()
        return found

    return await patience.tried(SINK, write)


async def _export(patience: Patience, request: sink_pb2.ExportRequest) -> AsyncGenerator[Any, None]:
    """The chunks, then the manifest, which they were compared with."""
    sha, manifest = hashlib.sha256(), None
    async with aclosing(_answers(patience, "Export", request)) as answers:
        async for answer in answers:
            if answer.WhichOneof("part") == "manifest":
                manifest = answer.manifest
            else:
                sha.update(answer.chunk)
                yield answer.chunk
    if manifest is None or manifest.sha256 != sha.hexdigest():
        raise BackendUnavailable("the export broke off, or its bytes are not those that the sink sent: export again")
    yield manifest


async def _answers(patience: Patience, method: str, request: Any) -> AsyncGenerator[Any, None]:
    """The messages of a call that streams them. It may look through much before the next one: while the sink answers
    otherwise, it is waited for."""
    address, stub = patience.places.stub(SINK)
    call = getattr(stub, method)(request, metadata=trace_context())
    try:
        while (answer := await _alive(patience, address, asyncio.ensure_future(call.read()))) is not grpc.aio.EOF:
            yield answer
    except grpc.aio.AioRpcError as error:
        raise patience.error(SINK, address, error) from error
    finally:
        call.cancel()


async def _alive(patience: Patience, address: str, reading: asyncio.Future[Any]) -> Any:
    """What is read. Raises BackendTimeout: for the deadline it was silent, and it does not say who it is either."""
    try:
        while not (await asyncio.wait([reading], timeout=patience.timeout_s))[0]:
            try:
                await patience.places.info(SINK)
            except (grpc.aio.AioRpcError, BackendUnavailable):
                raise patience.late(SINK, address) from None
        return reading.result()
    finally:
        reading.cancel()


def described(path: Path, manifest: sink_pb2.ExportManifest) -> Exported:
    """What the sink says of the file. Raises MalformedInput: it is nothing that a sink says."""
    try:
        whole = json_document(manifest.manifest_json)
    except ValueError as error:
        raise MalformedInput(
            f"the manifest of the export is no JSON ({error}): is it a sink that answers?"
        ) from error
    return Exported(
        path, manifest.rows, manifest.queries, manifest.missing_judgments, manifest.sha256, manifest.qualification,
        whole,
    )  # fmt: skip

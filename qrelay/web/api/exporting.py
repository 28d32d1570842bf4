"""Exports: the sink's, streamed as they come."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.responses import Response, StreamingResponse

from qrelay.v1 import sink_pb2 as pb
from qrelay.web.api import models
from qrelay.web.security import Person
from qrelay.web.site import Site

_JSONL: Final = ("triples", "tevatron")


async def export(site: Site, _: Person, asked: models.ExportRequest) -> Response:
    """An export's bytes as they come, or its manifest alone. One that fails on its way ends without its last chunk,
    so that no client takes it for whole."""
    name = f"EXPORT_FORMAT_{asked.format.replace('-', '_').upper()}"
    told = asked.model_dump(exclude={"format", "manifest"})
    parts = site.stream("sink", "Export", pb.ExportRequest(format=name, **told))
    first = await anext(parts)  # what is refused is refused before the answer begins
    if asked.manifest:
        return Response(await _manifest(first, parts), media_type="application/json")
    media = "application/x-ndjson" if asked.format in _JSONL else "text/plain"
    return StreamingResponse(_bytes(first, parts), media_type=media)


async def _bytes(first: Any, parts: AsyncIterator[Any]) -> AsyncIterator[bytes]:
    yield first.chunk
    async for part in parts:
        yield part.chunk


async def _manifest(last: Any, parts: AsyncIterator[Any]) -> str:
    """The manifest, which comes behind all chunks."""
    async for part in parts:
        last = part
    return str(last.manifest.manifest_json)

"""Reading an HTTP answer's body within a limit, which holds before and after decompression, and as JSON.

The limit is checked with every part that arrives, so that an answer without an end, or one that unpacks to
gigabytes, costs no more memory than the limit.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from typing import IO, Any, Final

import httpx

from qrelay.errors import BackendUnavailable
from qrelay.parsing import json_document

ENCODINGS: Final = "gzip, deflate"
"""What `Accept-Encoding` offers: formats that are unpacked piece by piece."""
_ANY_HEADER: Final = zlib.MAX_WBITS | 32


async def read_body(response: httpx.Response, limit: int, setting: str) -> bytes:
    """The body, unpacked. setting: what sets the limit.

    Raises:
        BackendUnavailable: longer than `limit` bytes, or packed in another way than was offered.
    """
    body = bytearray()
    async for part in _parts(response, limit, setting):
        body += part
    return bytes(body)


async def copy_body(response: httpx.Response, into: IO[bytes], limit: int, setting: str) -> bytes:
    """The body, written to a file from its beginning; nothing is left of a former one. Raises as `read_body`."""
    into.seek(0)
    into.truncate()
    async for part in _parts(response, limit, setting):
        into.write(part)
    return b""


async def _parts(response: httpx.Response, limit: int, setting: str) -> AsyncIterator[bytes]:
    packing = response.headers.get("content-encoding", "").strip().lower()
    if packing not in ("", "identity", "gzip", "x-gzip", "deflate"):
        raise BackendUnavailable(f"the endpoint sent a body with content-encoding {packing[:20]!r}, not {ENCODINGS}")
    unpacker = None if packing in ("", "identity") else zlib.decompressobj(_ANY_HEADER)
    size = 0
    async for part in response.aiter_raw():
        try:
            unpacked = unpacker.decompress(part, limit - size + 1) if unpacker else part
        except zlib.error as error:
            raise BackendUnavailable(f"the endpoint's reply is no {packing}") from error
        size += len(unpacked)
        if size > limit:
            raise BackendUnavailable(f"the endpoint's reply has more than {limit} bytes ({setting})")
        yield unpacked


def as_json(body: bytes, charset: str | None) -> Any:
    """The JSON of a body in UTF-8, 16 or 32, or else in the declared charset; None where it is none, or nested too
    deeply to be read."""
    for encoding in (None, charset):
        try:
            return json_document(body if encoding is None else body.decode(encoding))
        except UnicodeDecodeError:
            continue
        except (ValueError, LookupError):
            return None
    return None

"""OpenAI's Files and Batch API: the calls that batches need.

POST /files and /batches, GET /batches/{id}, /batches, /files and /files/{id}/content, POST /batches/{id}/cancel,
DELETE /files/{id}. No call is repeated here: a creation that was not answered may have been carried out. Other
providers' batch APIs have other paths (Mistral, Groq, Azure with its own names) and are not served.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from typing import IO, Any, Final, TypeVar
from urllib.parse import quote

from qrelay.errors import BackendUnavailable
from qrelay.http.connection import Connection, Limits
from qrelay.http.names import Names
from qrelay.http.pacing import Policy

T = TypeVar("T")
NAMES: Final = Names(
    "judge.endpoint", "judge.model", "OpenAI's API, with /files and /batches, and ends in /v1", "batch"
)
ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})
_PAGES: Final = 1000
_SHOWN_CHARS: Final = 200
_METADATA: Final = "qrelay"
_FILE: Final = frozenset({"input_file_id"})
_LARGEST: Final = 1 << 53
_MOST_PROBLEMS: Final = 1000


@dataclass(frozen=True, slots=True)
class Remote:
    """A batch as the endpoint shows it. problems: (code, line or 0, message) of a failed validation."""

    batch_id: str
    status: str
    file_id: str
    name: str
    created_at: float
    done: int = 0
    failed: int = 0
    output_id: str = ""
    error_id: str = ""
    problems: tuple[tuple[str, int, str], ...] = ()


class BatchApi:
    """See the module. Use from one event loop at a time."""

    def __init__(
        self, url: str, *, api_key: str, policy: Policy, limits: Limits, transfer_s: float, most_bytes: int
    ) -> None:
        """transfer_s: seconds that a file may take, silence included; most_bytes: of a file that comes."""
        once = replace(policy, max_retries=0)
        slow = replace(once, total_timeout_s=transfer_s)
        files = replace(limits, request_timeout_s=transfer_s, max_reply_bytes=most_bytes)
        self._calls = Connection(url, api_key=api_key, policy=once, limits=limits, names=NAMES, one_model=False)
        self._files = Connection(url, api_key=api_key, policy=slow, limits=files, names=NAMES, one_model=False)

    async def upload(self, name: str, file: IO[bytes]) -> str:
        """The id of a new file for batches."""
        request = {"purpose": "batch", "file": (name, file, "application/jsonl")}
        return await self._files.ask("/files", request, _file_id, advice=_advice)

    async def find_file(self, name: str) -> str:
        """The id of a file with this name; "" where none is listed."""
        async for file_id, filename in self._listed("/files", {"purpose": "batch"}, _file):
            if filename == name:
                return file_id
        return ""

    async def create(self, name: str, file_id: str, path: str, window: str) -> Remote:
        """A new batch, which the endpoint begins to carry out, and to charge for.

        Raises:
            ParameterRefused, InputError: it was refused.
            RateLimited, EndpointPaused, EndpointRefuses: it was not taken, and may be later.
            TransientError: any other: nobody knows whether there is one now.
        """
        request = {
            "input_file_id": file_id,
            "endpoint": f"/v1{path}",
            "completion_window": window,
            "metadata": {_METADATA: name},
        }
        return await self._calls.ask("/batches", request, _remote, advice=_advice, may_refuse=_FILE)

    async def find_batches(self, name: str, file_id: str) -> list[Remote]:
        """Batches of this name or file, the first created first."""
        found = [
            each
            async for each in self._listed("/batches", {}, _remote)
            if name == each.name or (file_id and file_id == each.file_id)
        ]
        return sorted(found, key=lambda each: each.created_at)

    async def _listed(self, path: str, query: dict[str, Any], read: Callable[[Any], T]) -> AsyncIterator[T]:
        """Every entry of a list, page by page.

        Raises:
            BackendUnavailable: it does not end, so that nobody knows what it does not show.
        """
        after = ""
        for _ in range(_PAGES):
            asked = {**query, "limit": 100, **({"after": after} if after else {})}
            page, after = await self._calls.ask(path, asked, _page_of(read), advice=_advice, method="GET")
            for each in page:
                yield each
            if not after:
                return
        raise BackendUnavailable(f"the endpoint's list {path} has more than {_PAGES} pages: remove old entries")

    async def retrieve(self, batch_id: str) -> Remote | None:
        """The batch; None where the endpoint has none of this id."""
        path = f"/batches/{_quoted(batch_id)}"
        return await self._calls.ask(path, {}, _absent_or(_remote), advice=_advice, method="GET", absent=True)

    async def cancel(self, batch_id: str) -> None:
        """Have a batch end early; what is done by then stays."""
        await self._calls.ask(
            f"/batches/{_quoted(batch_id)}/cancel", {}, _absent_or(_remote), advice=_advice, absent=True
        )

    async def download(self, file_id: str, into: IO[bytes]) -> bool:
        """A file's bytes, written to `into`. False: the endpoint does not have it any more."""
        path = f"/files/{_quoted(file_id)}/content"
        return await self._files.ask(
            path, {}, lambda size: size is not None, advice=_advice, method="GET", absent=True, into=into
        )

    async def delete(self, file_id: str) -> None:
        """Remove a file; one that is gone is no error."""
        await self._calls.ask(
            f"/files/{_quoted(file_id)}", {}, lambda _: None, advice=_advice, method="DELETE", absent=True
        )

    def close(self) -> None:
        """Close the connections."""
        self._calls.close()
        self._files.close()


def _quoted(identity: str) -> str:
    return quote(identity, safe="")


def _advice(parameter: str) -> str:
    return f"see judge.endpoint.batch (the parameter {parameter})"


def _file_id(body: Any) -> str:
    """Raises ValueError where it is no file."""
    if not isinstance(body, dict) or not (found := body.get("id")) or not isinstance(found, str):
        raise ValueError("not a file of the Files API")
    return found


def _file(body: Any) -> tuple[str, str]:
    """Id and name of a file; no name where it cannot be used. Raises as `_file_id`."""
    file_id = _file_id(body)
    return file_id, "" if body.get("status") == "error" else str(body.get("filename") or "")


def _page_of(read: Callable[[Any], T]) -> Callable[[Any], tuple[list[T], str]]:
    """Reads a page: its entries, and after which id the next one begins, "" where there is none."""

    def page(body: Any) -> tuple[list[T], str]:
        data = body.get("data") if isinstance(body, dict) else None
        if not isinstance(data, list):
            raise ValueError("not a list of the Files or Batch API")
        found = [read(each) for each in data]
        return found, str(data[-1]["id"]) if data and body.get("has_more") else ""

    return page


def _absent_or(read: Callable[[Any], Remote]) -> Callable[[Any], Remote | None]:
    return lambda body: None if body is None else read(body)


def _remote(body: Any) -> Remote:
    """Raises ValueError where it is no batch."""
    if not isinstance(body, dict) or not isinstance(body.get("id"), str) or not isinstance(body.get("status"), str):
        raise ValueError("not a batch of the Batch API")
    counts, metadata = _object(body, "request_counts"), _object(body, "metadata")
    return Remote(
        body["id"],
        body["status"],
        str(body.get("input_file_id") or ""),
        str(metadata.get(_METADATA) or ""),
        _number(body.get("created_at")),
        int(_number(counts.get("completed"))),
        int(_number(counts.get("failed"))),
        str(body.get("output_file_id") or ""),
        str(body.get("error_file_id") or ""),
        _problems(body),
    )


def _object(body: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = body.get(name)
    return found if isinstance(found, dict) else {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and 0 <= value < _LARGEST else 0.0


def _problems(body: Mapping[str, Any]) -> tuple[tuple[str, int, str], ...]:
    data = _object(body, "errors").get("data")
    found = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    return tuple(
        (str(each.get("code") or "")[:_SHOWN_CHARS], int(_number(each.get("line"))), str(each.get("message") or ""))
        for each in found[:_MOST_PROBLEMS]
    )

"""The lines of a batch's files: requests that go, answers that come, in any order.

{"custom_id": "…", "method": "POST", "url": "/v1/chat/completions", "body": {…}}
{"custom_id": "…", "response": {"status_code": 200, "body": {…}}, "error": null}
{"custom_id": "…", "response": null, "error": {"code": "batch_expired", "message": "…"}}
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Final

from qrelay.parsing import json_document

_VERSION: Final = "/v1"
_MOST_TOKENS: Final = 1 << 31


@dataclass(frozen=True, slots=True)
class Shown:
    """An answer's line. status: HTTP's, 0 where the request was not carried out; body: its JSON, or the error."""

    key: str
    status: int
    body: Any

    @property
    def tokens(self) -> int:
        """Prompt tokens that it says it cost; 0 where it does not."""
        usage = self.body.get("usage") if isinstance(self.body, dict) else None
        count = usage.get("prompt_tokens") if isinstance(usage, dict) else 0
        return int(count) if isinstance(count, int | float) and 0 <= count < _MOST_TOKENS else 0


def write_lines(file: IO[bytes], path: str, requests: Iterable[tuple[str, bytes]]) -> None:
    """The input file of requests, (key, body), to one path below /v1."""
    around = {"method": "POST", "url": _VERSION + path}
    for key, body in requests:
        head = json.dumps({"custom_id": key, **around})
        file.write(head[:-1].encode() + b', "body": ' + body + b"}\n")


def read_lines(file: IO[bytes], most_bytes: int) -> Iterator[Shown | None]:
    """Every line of an output or error file; None for one that is longer than `most_bytes`, or none of these."""
    while line := file.readline(most_bytes + 1):
        if len(line) > most_bytes:
            while line and not line.endswith(b"\n"):
                line = file.readline(most_bytes + 1)
            yield None
        elif line.strip():
            yield _shown(line)


def _shown(line: bytes) -> Shown | None:
    try:
        found = json_document(line)
    except ValueError:
        return None
    key = found.get("custom_id") if isinstance(found, dict) else None
    if not isinstance(key, str) or not key:
        return None
    response, error = found.get("response"), found.get("error")
    if isinstance(response, dict) and isinstance(status := response.get("status_code"), int):
        body = response.get("body")
        return Shown(key, status if 100 <= status < 600 else 0, body)
    return Shown(key, 0, {"error": error})

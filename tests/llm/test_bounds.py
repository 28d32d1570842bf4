"""What an endpoint may cost: bodies without an end, bodies that unpack to gigabytes, bytes that come one a second."""

from __future__ import annotations

import threading
import tracemalloc

import pytest

from qrelay.errors import BackendTimeout, BackendUnavailable, QrelayError
from qrelay.http.connection import Limits
from qrelay.http.pacing import Policy
from qrelay.llm.base import Weights
from qrelay.llm.exchange import Chat, Reply
from qrelay.llm.openai import OpenAIBackend
from tests.conftest import LONG_S
from tests.llm.endpoint import Answer, ScriptedEndpoint, answer, endless, packed, text_only

LIMIT = 64 * 1024
SAID = {"choices": [{"message": {"content": "Grüße"}}]}


async def said(
    endpoint: ScriptedEndpoint, default: Answer, total_timeout_s: float = LONG_S, limit: int = LIMIT
) -> Reply | QrelayError:
    """What the backend makes of this answer, asked once."""
    endpoint.default = default
    policy = Policy(max_retries=0, total_timeout_s=total_timeout_s)
    backend = OpenAIBackend(
        endpoint.url, Weights("m", "r", "q"), policy=policy, limits=Limits(LONG_S, max_reply_bytes=limit)
    )
    (reply,) = await backend.generate([Chat((("user", "?"),), 4)])
    return reply


async def test_of_a_body_without_an_end_no_more_is_read_than_the_limit(endpoint: ScriptedEndpoint) -> None:
    error = await said(endpoint, endless(b"[" * 65536))
    assert isinstance(error, BackendUnavailable)
    assert f"more than {LIMIT} bytes (judge.endpoint.max_reply_bytes)" in str(error)


async def test_a_body_that_unpacks_to_much_costs_no_more_memory_than_the_limit(endpoint: ScriptedEndpoint) -> None:
    size = 64 * 1024**2
    default = packed(size)
    tracemalloc.start()
    try:
        error = await said(endpoint, default)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert isinstance(error, BackendUnavailable)
    assert "judge.endpoint.max_reply_bytes" in str(error)
    assert peak < size / 10


async def test_a_body_that_comes_byte_by_byte_ends_at_the_total_limit(endpoint: ScriptedEndpoint) -> None:
    never = threading.Event()
    error = await said(endpoint, endless(b" ", lambda: never.wait(0.01)), total_timeout_s=0.3)
    assert isinstance(error, BackendTimeout)
    assert "judge.endpoint.total_timeout_s" in str(error)


async def test_a_long_refusal_is_still_a_refusal(endpoint: ScriptedEndpoint) -> None:
    error = await said(endpoint, answer(503, b"<html>" + b"x" * LIMIT))
    assert isinstance(error, BackendUnavailable)
    assert "503" in str(error)


@pytest.mark.parametrize(
    "body",
    [b"[" * 40_000, b'{"choices": ' + b"1" * 40_000 + b"}", b"<html>busy</html>", b"\xff\xfe\x00", b"", b"null",
     b"[]", b"17", b'{"choices": [null]}', b'{"choices": [{"message": "text"}]}', b'{"choices": {"0": 1}}'],
)  # fmt: skip
async def test_whatever_is_no_completion_is_unavailable(endpoint: ScriptedEndpoint, body: bytes) -> None:
    assert isinstance(await said(endpoint, answer(200, body)), BackendUnavailable)


@pytest.mark.parametrize(
    ("charset", "content_type"),
    [("utf-8", "text/plain"), ("utf-8", "application/json; charset=nonsense"), ("utf-8-sig", "text/html"),
     ("utf-16", "application/json"), ("latin-1", "application/json; charset=ISO-8859-1")],
)  # fmt: skip
async def test_a_completion_is_read_whatever_its_content_type_says(
    endpoint: ScriptedEndpoint, charset: str, content_type: str
) -> None:
    text = '{"choices": [{"message": {"content": "Grüße"}}]}'
    reply = await said(endpoint, answer(200, text.encode(charset), {"Content-Type": content_type}))
    assert isinstance(reply, Reply), reply
    assert reply.text == "Grüße"


async def test_a_body_packed_in_a_way_that_was_not_offered_is_unavailable(endpoint: ScriptedEndpoint) -> None:
    error = await said(endpoint, answer(200, b"???", {"Content-Encoding": "br"}))
    assert isinstance(error, BackendUnavailable)
    assert "content-encoding" in str(error)
    assert isinstance(await said(endpoint, answer(200, b"???", {"Content-Encoding": "gzip"})), BackendUnavailable)


async def test_a_reply_with_a_lone_surrogate_can_be_stored(endpoint: ScriptedEndpoint) -> None:
    reply = await said(endpoint, text_only("a\ud800b"))
    assert isinstance(reply, Reply)
    assert reply.text == "a?b"


@pytest.mark.parametrize("tokens", ["-5", "1e400", "NaN", "9" * 30, '"many"', "null"])
async def test_a_number_of_tokens_that_is_none_counts_as_none(endpoint: ScriptedEndpoint, tokens: str) -> None:
    body = f'{{"choices": [{{"message": {{"content": "x"}}}}], "usage": {{"prompt_tokens": {tokens}}}}}'
    reply = await said(endpoint, answer(200, body.encode()))
    assert isinstance(reply, Reply), reply
    assert reply.prompt_tokens == 0

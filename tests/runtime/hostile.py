"""Messages that no stage can work on, each in its own way, and stages that fail in every way that Python knows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import cycle, islice
from typing import Any

import zstandard

from qrelay import wire
from qrelay.errors import InternalError
from qrelay.runtime.stage import Work
from qrelay.types import DeadLetter, JudgedSet
from qrelay.v1 import envelope_pb2, records_pb2
from tests import samples

Published = tuple[bytes, dict[str, str]]
"""A payload and its headers."""


def enveloped(**record: Any) -> Published:
    """An envelope with a record of protobuf's own, whatever its values."""
    return envelope_pb2.Envelope(**record).SerializeToString(), {}


def query_proto(number: int, **fields: Any) -> records_pb2.Query:
    return records_pb2.Query(**{"query_id": f"h{number}", "text": "how?", "collection": "docs", **fields})


def dead_letter(number: int) -> DeadLetter:
    subject = "qrelay.v1.docs.queries"
    return DeadLetter(
        f"l{number}", "judge", "docs", f"q{number}", "how?", "timeout", "", 5, samples.NOW, subject, {}, b""
    )


@cache
def _bomb() -> bytes:
    return zstandard.compress(bytes(wire.MAX_DECODED_BYTES + 1))


def milliseconds_for_seconds(number: int) -> Published:
    return enveloped(query=query_proto(number, submitted_at={"seconds": 1_767_323_045_000 + number}))


def nanos_out_of_range(number: int) -> Published:
    return enveloped(query=query_proto(number, submitted_at={"seconds": 1, "nanos": -1}))


def a_round_that_no_column_holds(number: int) -> Published:
    return enveloped(query=query_proto(number, round=2**31 + number))


def no_record(number: int) -> Published:
    return b"\xff" + str(number).encode(), {}


def a_newer_record(number: int) -> Published:
    return b"\xfa\x3f\x05%05d" % number, {}


def text_that_is_no_utf8(number: int) -> Published:
    return b"\x0a\x0b\x12\x01\xff\x0a\x06" + b"h%05d" % number, {}


def an_unknown_encoding(number: int) -> Published:
    return str(number).encode(), {wire.CONTENT_ENCODING: "br"}


def no_zstd(number: int) -> Published:
    return str(number).encode(), {wire.CONTENT_ENCODING: wire.ZSTD}


def truncated_zstd(number: int) -> Published:
    return zstandard.compress(wire.encode(samples.candidate_set(number))[0])[:-5], {wire.CONTENT_ENCODING: wire.ZSTD}


def a_bomb(number: int) -> Published:
    return _bomb() + str(number).encode(), {wire.CONTENT_ENCODING: wire.ZSTD}


def a_collection_that_is_no_token(number: int) -> Published:
    return enveloped(
        query=query_proto(number, collection=("docs.v2", "my docs", "*", "", "Docs", "x" * 300)[number % 6])
    )


def a_judged_set(number: int) -> Published:
    return wire.encode(samples.judged_set(number))


def a_dead_letter(number: int) -> Published:
    return wire.encode(dead_letter(number))


UNREADABLE: tuple[Callable[[int], Published], ...] = (
    milliseconds_for_seconds,
    nanos_out_of_range,
    a_round_that_no_column_holds,
    no_record,
    a_newer_record,
    text_that_is_no_utf8,
    an_unknown_encoding,
    no_zstd,
    truncated_zstd,
    a_bomb,
)
MISPLACED = (a_collection_that_is_no_token, a_judged_set, a_dead_letter)
"""On the queue of queries."""


class Panic(BaseException):
    """What a library in Rust raises: no Exception."""


class Unmapped(InternalError):
    """An error of ours that no table knows."""


class Unspeakable(Exception):
    """An error that cannot say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


def _raise(error: BaseException) -> Any:
    raise error


FAILURES: dict[str, Callable[[Work], Any]] = {
    "an exception": lambda work: _raise(KeyError("poison")),
    "a panic": lambda work: _raise(Panic("index out of bounds")),
    "a cancellation of its own": lambda work: _raise(asyncio.CancelledError()),
    "an exit": lambda work: _raise(SystemExit(3)),
    "an error without words": lambda work: _raise(Unspeakable()),
    "an error that no table knows": lambda work: Unmapped("new"),
    "an answer that is no record": lambda work: "done",
    "an exception for an answer": lambda work: ValueError("odd"),
    "an answer of another kind": lambda work: samples.judged_set(),
    "half an emoji in an error": lambda work: InternalError("the model said \ud83d"),
}


def judged(number: int, **fields: Any) -> JudgedSet:
    """A judged set whose first judgment has these values."""
    made = samples.judged_set(number)
    return replace(made, judgments=(replace(made.judgments[0], **fields),))


UNSPEAKABLE: dict[str, dict[str, Any]] = {
    "five billion tokens": {"prompt_tokens": 5_000_000_000},
    "fewer tokens than none": {"prompt_tokens": -1},
    "half an emoji": {"raw_reply": "\ud83d"},
    "no judge": {"judge": None},
}
"""Values of a judgment that no message can hold."""


def hostile(
    count: int, kinds: tuple[Callable[[int], Published], ...] = (*UNREADABLE, *MISPLACED)
) -> Iterator[Published]:
    """So many messages, no two alike, of every kind in turn."""
    return (make(number) for number, make in zip(range(count), islice(cycle(kinds), count), strict=True))

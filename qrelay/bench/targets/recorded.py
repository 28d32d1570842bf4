"""Real items for a benchmark: queries from a file, and sets that `qrelay bench record` kept.

A record file is a zstd stream of Envelopes (protos/qrelay/v1/envelope.proto), each preceded by its length as a
varint. It holds, for each query, what each stage that was asked made of it: the retriever's candidate set, the
reranker's (some candidates are sampled), the judge's judged set. An empty Envelope ends it: a file that was cut short
would otherwise look like a shorter one.

Items are repeated in order when they run out. A ledger would take the repetition for a duplicate, so where `tag` is
given every query gets a new id, different in each lap; its text, and so what the judge's cache knows, stays.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, cast

import zstandard
from google.protobuf.message import DecodeError, Message
from google.protobuf.proto import parse_length_prefixed, serialize_length_prefixed

from qrelay import wire
from qrelay.errors import MalformedInput
from qrelay.formats import queries
from qrelay.types import JudgedSet
from qrelay.v1 import envelope_pb2, records_pb2

KINDS: Final = ("retrieved", "reranked", "judged")
_READ_AHEAD: Final = 1 << 20


class Recorded:
    """A Source of recorded messages, in order, again and again."""

    def __init__(self, kind: str, messages: list[Any], *, tag: str | None = None) -> None:
        """`tag`: give every item a new query id that holds it; None: the recorded ids."""
        if not messages:
            raise MalformedInput(f"no {kind} items to send: record some with `qrelay bench record`")
        self._kind = kind
        self._messages = messages
        self._tag = tag

    def item(self, number: int) -> Any:
        """See data.Source. A copy where the id is changed."""
        lap, place = divmod(number, len(self._messages))
        message = self._messages[place]
        if self._tag is None:
            return message
        changed = type(message)()
        changed.CopyFrom(message)
        query = query_message(changed)
        query.query_id = f"{query.query_id}~{self._tag}.{lap}"
        return changed

    def describe(self) -> dict[str, Any]:
        """See data.Source."""
        repeated = "repeated in order when they run out"
        return {"data": "recorded", "kind": self._kind, "distinct": len(self._messages), "note": repeated}


def query_message(message: Any) -> records_pb2.Query:
    """The query inside a Query, CandidateSet or JudgedSet message: the part itself, not a copy."""
    if isinstance(message, records_pb2.Query):
        return message
    found: records_pb2.Query = message.query if hasattr(message, "query") else message.candidate_set.query
    return found


def read_queries(path: Path, collection: str) -> list[Message]:
    """The queries of a file as `qrelay feed` reads it.

    Raises:
        MalformedInput: a line does not parse, or none is there; the text names file and line.
    """
    messages: list[Message] = [wire.to_proto(query) for query in queries.read_queries(path, collection)]
    if not messages:
        raise MalformedInput(f"{path} holds no query: give a file with one a line")
    return messages


def write_records(path: Path, records: Iterable[wire.Record]) -> int:
    """Writes a record file, whole or not at all; how many records. See the module for the format."""
    count, part = 0, path.with_name(f"{path.name}.part")
    with part.open("wb") as file, zstandard.ZstdCompressor(level=3).stream_writer(file) as out:
        for record in records:
            field = "judged_set" if isinstance(record, JudgedSet) else "candidate_set"
            envelope = envelope_pb2.Envelope(**{field: wire.to_proto(record)})
            serialize_length_prefixed(envelope, cast(io.BytesIO, out))  # any writer will do
            count += 1
        serialize_length_prefixed(envelope_pb2.Envelope(), cast(io.BytesIO, out))
    part.replace(path)
    return count


def read_sets(path: Path, kind: str) -> list[Message]:
    """The messages of one kind of KINDS in a record file.

    Raises:
        MalformedInput: not such a file, cut short, or without any of that kind.
    """
    counts = dict.fromkeys(KINDS, 0)
    messages = []
    for message in _messages(path):
        found = kind_of(message)
        counts[found] += 1
        if found == kind:
            messages.append(message)
    if not messages:
        held = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "nothing"
        raise MalformedInput(
            f"{path} holds no {kind} sets (it holds {held}): record them with `qrelay bench record` and the address "
            "of the service that makes them"
        )
    return messages


def kind_of(message: Message) -> str:
    """Which stage made a set: a reranked one has candidates marked for the judge."""
    if isinstance(message, records_pb2.JudgedSet):
        return "judged"
    candidates = message.candidates if isinstance(message, records_pb2.CandidateSet) else ()
    return "reranked" if any(each.sampled for each in candidates) else "retrieved"


def _messages(path: Path) -> Iterator[Message]:
    try:
        with path.open("rb") as file, zstandard.ZstdDecompressor().stream_reader(file) as raw:
            yield from _envelopes(path, raw)
    except (zstandard.ZstdError, DecodeError, ValueError) as error:
        raise MalformedInput(
            f"{path} is not a file of `qrelay bench record`, or is cut short: {error}; record it again"
        ) from error


def _envelopes(path: Path, raw: Any) -> Iterator[Message]:
    reader = cast(io.BytesIO, io.BufferedReader(raw, _READ_AHEAD))  # any reader will do
    while (envelope := parse_length_prefixed(envelope_pb2.Envelope, reader)) is not None:
        field = envelope.WhichOneof("record")
        if field is None:
            return
        if field not in ("candidate_set", "judged_set"):
            raise MalformedInput(f"{path} holds a record of type {field}: record it with `qrelay bench record`")
        yield getattr(envelope, field)
    raise ValueError("its end is missing")

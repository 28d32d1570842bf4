"""Messages: the queue's envelopes and headers, gRPC's requests, what is kept of both."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from google.protobuf.message import DecodeError, Message

from qrelay import wire
from qrelay.bench.targets.recorded import read_sets, write_records
from qrelay.config import GrpcSettings
from qrelay.errors import InternalError, MalformedInput, QrelayError
from qrelay.feed.journal import Journal
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.rows import PreparedSet, prepare
from qrelay.labels.settings import SinkSettings
from qrelay.runtime import telemetry
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.dead_letters import dead_letter, message_id, query_of, unreadable
from qrelay.runtime.intake import Intake, Reader
from qrelay.services.sink.reading import columns_of
from qrelay.services.sink.service import SinkServicer, commit
from qrelay.services.sink.sink import load_sink
from qrelay.types import DeadLetter, JudgedSet
from qrelay.v1 import judge_pb2, records_pb2, reranker_pb2, retriever_pb2, service_info_pb2, sink_pb2
from tests import samples
from tests.fuzz.parser import Parser, constant, written
from tests.labels import builders

LETTER = DeadLetter("id", "judge", "c", "q", "t", "timeout", "d", 5, samples.NOW, "s.u.b", {"a": "b"}, b"\x00\xff", 2)
RECORDS: Final[tuple[wire.Record, ...]] = (
    samples.query(),
    samples.candidate_set(count=3),
    samples.judged_set(),
    builders.judged_set("q9"),
    LETTER,
)
_ZSTD: Final = {wire.CONTENT_ENCODING: wire.ZSTD}


def same(one: wire.Record, other: wire.Record) -> bool:
    """Whether they are equal in every field, where NaN is equal to itself."""
    return type(one) is type(other) and repr(asdict(one)) == repr(asdict(other))


def _read(payload: bytes, headers: dict[str, str]) -> wire.Record | None:
    """As a worker: the record, or the dead letter that is stored of what is none, which must be whole."""
    subject = "qrelay.v1.docs.judged"
    try:
        record = wire.decode(payload, headers)
    except MalformedInput as error:
        delivery: Any = SimpleNamespace(subject=subject, payload=payload, headers=headers, attempt=1)
        letter = dead_letter("sink", delivery, unreadable(delivery), error, samples.NOW)
        if wire.decode(*wire.encode(letter)) != letter:
            raise InternalError("the dead letter is another one after its way through the queue") from error
        raise
    message_id("sink", query_of(record), "")
    again = wire.decode(*wire.encode(record))
    if not same(again, record):
        raise InternalError("a record is another one after its way through the queue")
    return record


def _header_lines(data: bytes, _: Path) -> None:
    """Headers of a delivery, a line each, before a payload that is sound."""
    lines = (line.partition(":") for line in data.decode("utf8", "replace").splitlines())
    headers = {name.strip(): value.strip() for name, _, value in lines}
    payload, _ours = wire.encode(samples.query())
    telemetry.remote_context(headers)
    _read(payload, headers)


def _to_ledger(data: bytes, folder: Path) -> None:
    """decode, commit, list: a set that cannot be stored is refused with an error of its own."""
    record = _read(data, {})
    ledger = Ledger.open(folder / "ledger.sqlite")
    try:
        if isinstance(record, JudgedSet):
            for outcome in ledger.commit([record]):
                if isinstance(outcome, Exception):
                    raise outcome
            ledger.stats()
        elif isinstance(record, DeadLetter):
            ledger.record_dead_letters([record])
            for entry in ledger.list_dead_letters(None, True, 10, "").entries:
                wire.to_proto(entry.letter)
    finally:
        ledger.close()


def _journal(folder: Path) -> None:
    with Journal(folder / "j.sqlite") as journal:
        journal.record([samples.query(1), samples.query(2)])


def _from_journal(data: bytes, folder: Path) -> None:
    (folder / "j.sqlite").write_bytes(data)
    with Journal(folder / "j.sqlite", create=False) as journal:
        journal.accepted(samples.query(1))
        journal.entry("q2")
        list(journal.entries())
        list(journal.query_ids())
        journal.record([samples.query(3)])


def _message_types() -> list[type[Message]]:
    """Every message of protos/, by name."""
    modules = (records_pb2, judge_pb2, reranker_pb2, retriever_pb2, sink_pb2, service_info_pb2)
    found = [getattr(module, name) for module in modules for name in module.DESCRIPTOR.message_types_by_name]
    return sorted(found, key=lambda each: str(each.DESCRIPTOR.full_name))


MESSAGES: Final = _message_types()


def converted(message: Message) -> None:
    """A record's message, to the record and back; what comes of it is a fixed point."""
    if type(message) not in _CONVERTED:
        return
    record = wire.from_proto(message)
    again = wire.to_proto(record)
    if not same(wire.from_proto(again), record):
        raise InternalError("a record is another one after its way through gRPC")
    if isinstance(record, JudgedSet) and _rows(prepare(columns_of(message))) != _rows(prepare(record)):
        raise InternalError("a message becomes other rows than its record")


def _rows(prepared: PreparedSet | QrelayError) -> Any:
    """What is written of a set, or which kind of error it is."""
    if isinstance(prepared, QrelayError):
        return type(prepared)
    return prepared.query_row, prepared.packed, prepared.passage_rows, prepared.judgment_rows, prepared.judges


_CONVERTED: Final = (records_pb2.Query, records_pb2.CandidateSet, records_pb2.JudgedSet, records_pb2.DeadLetter)
_SETS: Final = [wire.to_proto(record) for record in RECORDS if isinstance(record, JudgedSet)]
_REQUESTS: Final[tuple[tuple[str, Message], ...]] = (
    ("Ingest", sink_pb2.IngestRequest(judged_sets=_SETS)),
    ("Ingest", sink_pb2.IngestRequest(judged_sets=_SETS, rejudgment=True)),
    ("ListJudgedSets", sink_pb2.ListJudgedSetsRequest(collection="docs", where="grade>=1", after_query_id="q0")),
    (
        "Export",
        sink_pb2.ExportRequest(
            collection="docs", format=sink_pb2.EXPORT_FORMAT_QRELS, where="relevant", system="bm25"
        ),
    ),
    ("Export", sink_pb2.ExportRequest(collection="docs", format=sink_pb2.EXPORT_FORMAT_TRIPLES, unmeasured=True)),
    ("GetStats", sink_pb2.GetStatsRequest(collection="docs")),
    ("GetQueryStates", sink_pb2.GetQueryStatesRequest(collection="docs", query_ids=["q1", "q0"], round=1)),
    (
        "ListDeadLetters",
        sink_pb2.ListDeadLettersRequest(collection="docs", page_size=3, page_token="1", include_closed=True),
    ),
    ("StartTraining", sink_pb2.StartTrainingRequest(collection="docs", unmeasured=True)),
    ("ListModels", sink_pb2.ListModelsRequest(slot="bi_encoder")),
    ("PromoteModel", sink_pb2.PromoteModelRequest(version="bi-encoder-1", by="ana", reason="r")),
    ("RollbackModel", sink_pb2.RollbackModelRequest(slot="bi_encoder", to="bi-encoder-1", by="ana")),
)


def _request_seeds(_: Path) -> Sequence[bytes]:
    return [bytes([number]) + request.SerializeToString() for number, (_, request) in enumerate(_REQUESTS)]


@contextmanager
def _servicer(folder: Path) -> Iterator[SinkServicer]:
    settings = SinkSettings(data_dir=folder)
    context: ServiceContext[Any, Any] = ServiceContext("sink", settings, "s1")
    core = context.core = load_sink(settings)
    commit(core, [builders.judged_set("q1")])
    core.ledger.record_dead_letters([LETTER])
    try:
        yield SinkServicer(context)
    finally:
        core.close()


def _asked(data: bytes, folder: Path) -> None:
    """A request of the sink: the first byte says which."""
    name, example = _REQUESTS[data[0] % len(_REQUESTS) if data else 0]
    request = asyncio.run(Reader(Intake(GrpcSettings()), type(example))._parsed(data[1:]))
    with _servicer(folder) as servicer:
        asyncio.run(_answer(servicer, name, request))


async def _answer(servicer: SinkServicer, name: str, request: Message) -> None:
    """Every part of the answer, which must be one that can travel; an item's refusal is no bug."""
    answer = getattr(servicer, name)(request, None)
    parts = [part async for part in answer] if hasattr(answer, "__aiter__") else [await answer]
    for part in parts:
        part.SerializeToString()
        for result in getattr(part, "results", ()):
            if result.HasField("error") and result.error.reason == "internal":
                raise InternalError(result.error.message)


def _of_type(kind: type[Message]) -> Parser:
    def call(data: bytes, _: Path) -> None:
        message = kind()
        try:
            message.ParseFromString(data)
        except DecodeError:
            return  # gRPC's own answer
        converted(message)

    seeds = _seeds_of(kind)
    return Parser(
        f"message {kind.DESCRIPTOR.name}",
        "proto",
        lambda _: seeds,
        call,
        cost=1 if kind in _CONVERTED else 10,
        monsters=False,
    )


@cache
def _seeds_of(kind: type[Message]) -> Sequence[bytes]:
    ours = [wire.to_proto(record) for record in RECORDS]
    return [each.SerializeToString() for each in ours if isinstance(each, kind)] or [b""]


def _envelopes(_: Path) -> Sequence[bytes]:
    return [wire.encode(record, compress=False)[0] for record in RECORDS]


def _frames(_: Path) -> Sequence[bytes]:
    return [wire._ZSTD_LOCAL.compressor.compress(each) for each in _envelopes(_)]


PARSERS: Final = (
    Parser("envelope", "proto", _envelopes, lambda data, _: _read(data, {})),
    Parser(
        "envelope, compressed",
        "bytes",
        _frames,
        lambda data, _: _read(data, dict(_ZSTD)),
        memory_mib=wire.MAX_DECODED_BYTES // 1024**2 * 3,
    ),
    Parser(
        "headers of a message",
        "lines",
        constant(
            "Content-Encoding: zstd\nNats-Msg-Id: x\n"
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n"
            "tracestate: a=b\nQrelay-Replay: 1\nbaggage: k=v",
            "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n",
        ),
        _header_lines,
    ),
    Parser("judged sets and dead letters into the ledger", "proto", lambda _: _envelopes(_)[2:], _to_ledger, cost=10),
    Parser("feed's journal", "bytes", written("j.sqlite", _journal), _from_journal),
    Parser("requests to the sink", "proto", _request_seeds, _asked, cost=10, monsters=False),
    Parser(
        "bench record file",
        "bytes",
        written(
            "r.zst", lambda folder: write_records(folder / "r.zst", [samples.candidate_set(1), samples.judged_set(2)])
        ),
        lambda data, folder: ((folder / "r.zst").write_bytes(data), read_sets(folder / "r.zst", "judged")),
    ),
    *map(_of_type, MESSAGES),
)

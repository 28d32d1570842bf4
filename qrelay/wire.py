"""The one translation between qrelay's records and protobuf, and between records and queue messages.

`to_proto`/`from_proto` serve gRPC; `encode`/`decode` serve the queue, where every message is
an `Envelope` (protos/qrelay/v1/envelope.proto), zstd-compressed when that is worth it and marked so in
the `Content-Encoding` header.

Whatever bytes come in, and whatever values a record holds, these four raise MalformedInput and nothing else.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Final

import zstandard
from google.protobuf.message import DecodeError, Message
from google.protobuf.timestamp_pb2 import Timestamp

from qrelay.errors import MalformedInput
from qrelay.types import (
    MAX_ROUND,
    Candidate,
    CandidateSet,
    DeadLetter,
    Graded,
    JudgedSet,
    JudgeIdentity,
    Judgment,
    Missing,
    Passage,
    Query,
    Score,
    TraceStep,
    Utility,
)
from qrelay.v1 import envelope_pb2, records_pb2

Record = Query | CandidateSet | JudgedSet | DeadLetter

CONTENT_ENCODING: Final = "Content-Encoding"
ZSTD: Final = "zstd"
ZSTD_MAGIC: Final = b"\x28\xb5\x2f\xfd"
"""How a compressed message begins, and no Envelope does."""
COMPRESS_FROM_BYTES: Final = 1024
"""Smaller messages travel as they are: their zstd frame would save nothing."""
_SHARED: Final = 256
"""Judges and times of which both forms are remembered."""
MAX_DECODED_BYTES: Final = 64 * 1024 * 1024
"""Refuse to inflate a message beyond this: a compressed bomb must not take the replica's memory."""


class _Zstd(threading.local):
    """A compressor and a decompressor for each thread: making them costs more than using them."""

    def __init__(self) -> None:
        self.compressor = zstandard.ZstdCompressor(level=1)
        self.decompressor = zstandard.ZstdDecompressor()


_ZSTD_LOCAL = _Zstd()


@contextlib.contextmanager
def fitting(what: str) -> Iterator[None]:
    """A value that one side has and the other cannot hold (a time out of range, a number too large, half an emoji)
    is MalformedInput."""
    try:
        yield
    except (ValueError, TypeError, OverflowError) as error:
        raise MalformedInput(f"{what} holds a value that cannot be: {error}") from error


def _integer(value: int, name: str) -> int:
    """A number that a column of the ledger keeps."""
    if value > MAX_ROUND:
        raise MalformedInput(f"{name} {value} is above {MAX_ROUND}")
    return value


@lru_cache(_SHARED)
def _timestamp(when: datetime) -> Timestamp:
    """To be copied, never changed: a set's judgments share their time."""
    stamp = Timestamp()
    stamp.FromDatetime(when)
    return stamp


def _datetime(stamp: Timestamp) -> datetime:
    return _moment(stamp.seconds, stamp.nanos)


@lru_cache(_SHARED)
def _moment(seconds: int, nanos: int) -> datetime:
    return Timestamp(seconds=seconds, nanos=nanos).ToDatetime(tzinfo=UTC)


def _query_to_proto(query: Query) -> records_pb2.Query:
    return records_pb2.Query(
        query_id=query.query_id,
        text=query.text,
        collection=query.collection,
        submitted_at=_timestamp(query.submitted_at) if query.submitted_at else None,
        attributes=dict(query.attributes),
        reference_answers=list(query.reference_answers),
        round=query.round,
    )


def _query_from_proto(message: records_pb2.Query) -> Query:
    return Query(
        query_id=message.query_id,
        text=message.text,
        collection=message.collection,
        submitted_at=_datetime(message.submitted_at) if message.HasField("submitted_at") else None,
        attributes=dict(message.attributes),
        reference_answers=tuple(message.reference_answers),
        round=_integer(message.round, "round"),
    )


def _fill_candidate(message: records_pb2.Candidate, candidate: Candidate) -> None:
    """Fills in place: building the parts apart and handing them over would copy every text."""
    passage, source = message.passage, candidate.passage
    passage.passage_id = source.passage_id
    passage.doc_id = source.doc_id
    passage.title = source.title
    passage.text = source.text
    if source.metadata:
        passage.metadata.update(source.metadata)
    if candidate.sampled:
        message.sampled = True
    for score in candidate.scores:
        added = message.scores.add()
        added.system = score.system
        added.rank = score.rank
        if score.score is not None:
            added.score = score.score


def _score_from_proto(score: records_pb2.Score) -> Score:
    value: float | None = score.score
    if value and value == value:  # nearly always, and a set has hundreds
        return tuple.__new__(Score, (score.system, value, score.rank))
    if value != value:  # NaN orders nothing: neither the score nor the rank that came of it is one
        return Score(score.system, None, 0)
    if value == 0.0 and not score.HasField("score"):
        value = None
    return Score(score.system, value, score.rank)


def _candidate_from_proto(message: records_pb2.Candidate) -> Candidate:
    passage = message.passage
    metadata = passage.metadata
    return Candidate(
        Passage(passage.passage_id, passage.doc_id, passage.title, passage.text, dict(metadata) if metadata else {}),
        tuple([_score_from_proto(score) for score in message.scores]),
        message.sampled,
    )


class _Received(tuple[Candidate, ...]):
    """Candidates as they were read: who passes them on need not write them again. The message is never changed."""

    message: records_pb2.CandidateSet


def _candidates_from_proto(message: records_pb2.CandidateSet) -> tuple[Candidate, ...]:
    return tuple([_candidate_from_proto(candidate) for candidate in message.candidates])


def _as_received(message: records_pb2.CandidateSet) -> tuple[Candidate, ...]:
    """Only what is marked for the judge is passed on as it is; to keep the message of more would cost memory. A score
    that is none may have been read from a number that is none: it is written as it was read."""
    candidates = _candidates_from_proto(message)
    marked = any(candidate.sampled for candidate in candidates)
    if not marked or any(score.score is None for candidate in candidates for score in candidate.scores):
        return candidates
    received = _Received(candidates)
    received.message = message
    return received


def _fill_candidates(message: records_pb2.CandidateSet, candidates: Sequence[Candidate]) -> None:
    if isinstance(candidates, _Received):
        message.MergeFromString(candidates.message.SerializeToString())
        for field in ("query", "trace"):
            message.ClearField(field)
    else:
        for candidate in candidates:
            _fill_candidate(message.candidates.add(), candidate)


def _fill_candidate_set(message: records_pb2.CandidateSet, record: CandidateSet) -> None:
    _fill_candidates(message, record.candidates)
    message.query.CopyFrom(_query_to_proto(record.query))
    message.index_version = record.index_version
    for step in record.trace:
        message.trace.add(
            stage=step.stage,
            replica=step.replica,
            model=step.model,
            queue_seconds=step.queue_s,
            compute_seconds=step.compute_s,
        )


def _candidate_set_to_proto(record: CandidateSet) -> records_pb2.CandidateSet:
    message = records_pb2.CandidateSet()
    _fill_candidate_set(message, record)
    return message


def _candidate_set_from_proto(
    message: records_pb2.CandidateSet,
    candidates: Callable[[records_pb2.CandidateSet], tuple[Candidate, ...]] = _as_received,
) -> CandidateSet:
    return CandidateSet(
        query=_query_from_proto(message.query),
        candidates=candidates(message),
        index_version=message.index_version,
        trace=tuple(
            TraceStep(step.stage, step.replica, step.model, step.queue_seconds, step.compute_seconds)
            for step in message.trace
        ),
    )


_JUDGE_FIELDS: Final = ("model", "revision", "quantisation", "prompt_hash", "strategy", "scale", "decoding")


def _judge_from_proto(message: records_pb2.JudgeIdentity) -> JudgeIdentity:
    return JudgeIdentity(**{name: getattr(message, name) for name in _JUDGE_FIELDS})


@lru_cache(_SHARED)
def _judge_to_proto(judge: JudgeIdentity) -> records_pb2.JudgeIdentity:
    """To be copied, never changed."""
    return records_pb2.JudgeIdentity(**{name: getattr(judge, name) for name in _JUDGE_FIELDS})


def _fill_judgment(message: records_pb2.Judgment, judgment: Judgment) -> None:
    message.passage_id = judgment.passage_id
    message.judgment_key = judgment.judgment_key
    match judgment.outcome:
        case Graded() as graded:
            _fill_graded(message.graded, graded)
        case Missing() as missing:
            message.missing.reason = missing.reason
            message.missing.detail = missing.detail
    message.judge.CopyFrom(_judge_to_proto(judgment.judge))
    message.judged_at.CopyFrom(_timestamp(judgment.judged_at))
    message.cached = judgment.cached
    message.raw_reply = judgment.raw_reply
    message.prompt_tokens = judgment.prompt_tokens


def _fill_graded(message: records_pb2.Graded, graded: Graded) -> None:
    message.grade = graded.grade
    message.min_grade = graded.min_grade
    message.probabilities.extend(graded.probabilities)
    message.expected_relevance = graded.expected_relevance
    message.entropy = graded.entropy
    message.p_relevant = graded.p_relevant
    message.calibration = graded.calibration
    if graded.utility is not None:
        _fill_utility(message.utility, graded.utility)


def _fill_utility(message: records_pb2.Utility, utility: Utility) -> None:
    message.SetInParent()
    if utility.nll is not None:
        message.nll = utility.nll
    if utility.nll_without_passage is not None:
        message.nll_without_passage = utility.nll_without_passage
    if utility.selected is not None:
        message.selected = utility.selected
    message.rank = utility.rank


def _utility_from_proto(message: records_pb2.Utility) -> Utility:
    return Utility(
        nll=message.nll if message.HasField("nll") else None,
        nll_without_passage=message.nll_without_passage if message.HasField("nll_without_passage") else None,
        selected=message.selected if message.HasField("selected") else None,
        rank=message.rank,
    )


def _graded_from_proto(message: records_pb2.Graded) -> Graded:
    return Graded(
        grade=message.grade,
        min_grade=message.min_grade,
        probabilities=tuple(message.probabilities),
        expected_relevance=message.expected_relevance,
        entropy=message.entropy,
        p_relevant=message.p_relevant,
        calibration=message.calibration,
        utility=_utility_from_proto(message.utility) if message.HasField("utility") else None,
    )


def _judgment_from_proto(message: records_pb2.Judgment, judges: dict[bytes, JudgeIdentity]) -> Judgment:
    """judges: those of the set so far, by their bytes; nearly all of its judgments share one."""
    identity = message.judge.SerializeToString()
    if identity not in judges:
        judges[identity] = _judge_from_proto(message.judge)
    outcome: Graded | Missing
    match message.WhichOneof("outcome"):
        case "graded":
            outcome = _graded_from_proto(message.graded)
        case "missing":
            outcome = Missing(message.missing.reason, message.missing.detail)
        case _:
            raise MalformedInput(f"judgment of passage {message.passage_id!r} has no outcome: set graded or missing")
    return Judgment(
        passage_id=message.passage_id,
        judgment_key=message.judgment_key,
        outcome=outcome,
        judge=judges[identity],
        judged_at=_datetime(message.judged_at),
        cached=message.cached,
        raw_reply=message.raw_reply,
        prompt_tokens=message.prompt_tokens,
    )


def _judged_set_to_proto(record: JudgedSet) -> records_pb2.JudgedSet:
    message = records_pb2.JudgedSet()
    _fill_candidate_set(message.candidate_set, record.candidate_set)
    for judgment in record.judgments:
        _fill_judgment(message.judgments.add(), judgment)
    return message


def _judged_set_from_proto(message: records_pb2.JudgedSet) -> JudgedSet:
    judges: dict[bytes, JudgeIdentity] = {}
    return JudgedSet(
        candidate_set=_candidate_set_from_proto(message.candidate_set, _candidates_from_proto),
        judgments=tuple([_judgment_from_proto(judgment, judges) for judgment in message.judgments]),
    )


def _dead_letter_to_proto(record: DeadLetter) -> records_pb2.DeadLetter:
    return records_pb2.DeadLetter(
        dead_letter_id=record.dead_letter_id,
        stage=record.stage,
        collection=record.collection,
        query_id=record.query_id,
        query_text=record.query_text,
        reason=record.reason,
        detail=record.detail,
        attempts=record.attempts,
        failed_at=_timestamp(record.failed_at),
        subject=record.subject,
        headers=dict(record.headers),
        payload=record.payload,
        round=record.round,
    )


def _dead_letter_from_proto(message: records_pb2.DeadLetter) -> DeadLetter:
    return DeadLetter(
        dead_letter_id=message.dead_letter_id,
        stage=message.stage,
        collection=message.collection,
        query_id=message.query_id,
        query_text=message.query_text,
        reason=message.reason,
        detail=message.detail,
        attempts=_integer(message.attempts, "attempts"),
        failed_at=_datetime(message.failed_at),
        subject=message.subject,
        headers=dict(message.headers),
        payload=message.payload,
        round=_integer(message.round, "round"),
    )


_TO_PROTO: Final[dict[type, Callable[[Any], Message]]] = {
    Query: _query_to_proto,
    CandidateSet: _candidate_set_to_proto,
    JudgedSet: _judged_set_to_proto,
    DeadLetter: _dead_letter_to_proto,
}
_FROM_PROTO: Final[dict[type, Callable[[Any], Any]]] = {
    records_pb2.Query: _query_from_proto,
    records_pb2.CandidateSet: _candidate_set_from_proto,
    records_pb2.JudgedSet: _judged_set_from_proto,
    records_pb2.DeadLetter: _dead_letter_from_proto,
    records_pb2.Score: _score_from_proto,
    records_pb2.JudgeIdentity: _judge_from_proto,
    records_pb2.Utility: _utility_from_proto,
}
_ENVELOPE_TAG: Final[dict[type, bytes]] = {
    kind: bytes([envelope_pb2.Envelope.DESCRIPTOR.fields_by_name[name].number << 3 | 2])
    for kind, name in (
        (Query, "query"),
        (CandidateSet, "candidate_set"),
        (JudgedSet, "judged_set"),
        (DeadLetter, "dead_letter"),
    )
}
"""How an Envelope of such a record begins; the record's length and bytes follow."""


def _varint(number: int) -> bytes:
    digits = []
    while number > 127:
        digits.append(number & 127 | 128)
        number >>= 7
    return bytes([*digits, number])


def to_proto(record: Record) -> Any:
    """The protobuf message of a record.

    Raises:
        MalformedInput: a value that protobuf cannot hold.
    """
    with fitting(type(record).__name__):
        return _TO_PROTO[type(record)](record)


def from_proto(message: Message) -> Any:
    """The record of a protobuf message.

    Raises:
        MalformedInput: a field that must be set is not, or a value that no record can hold.
    """
    with fitting(message.DESCRIPTOR.name):
        return _FROM_PROTO[type(message)](message)


def encode(record: Record, *, compress: bool = True) -> tuple[bytes, dict[str, str]]:
    """A record as a queue message: (payload, headers).

    Raises:
        MalformedInput: a value that protobuf cannot hold.
    """
    inner = to_proto(record).SerializeToString(deterministic=True)  # else a map's order differs between processes
    payload = _ENVELOPE_TAG[type(record)] + _varint(len(inner)) + inner  # an Envelope would copy the message
    if not compress or len(payload) < COMPRESS_FROM_BYTES:
        return payload, {}
    return _ZSTD_LOCAL.compressor.compress(payload), {CONTENT_ENCODING: ZSTD}


def decode(payload: bytes, headers: Mapping[str, str]) -> Record:
    """The record in a queue message.

    Raises:
        MalformedInput: not an Envelope, an unknown encoding, or larger than MAX_DECODED_BYTES inflated.
    """
    record: Record = from_proto(opened(payload, headers))
    return record


def opened(payload: bytes, headers: Mapping[str, str]) -> Message:
    """The protobuf message of the record in a queue message. Raises as `decode`."""
    envelope = envelope_pb2.Envelope()
    try:
        envelope.ParseFromString(_inflate(payload, headers))
    except DecodeError as error:
        raise MalformedInput(f"message of {len(payload)} bytes is not a qrelay.v1.Envelope: {error}") from error
    field = envelope.WhichOneof("record")
    if field is None:
        raise MalformedInput("Envelope holds no record: a newer qrelay wrote it, or the producer forgot it")
    message: Message = getattr(envelope, field)
    return message


def decoded_bytes(payload: bytes, headers: Mapping[str, str]) -> int:
    """The size of a message's envelope, without inflating it.

    Raises:
        MalformedInput: an unknown encoding, no zstd, or more than MAX_DECODED_BYTES.
    """
    encoding = headers.get(CONTENT_ENCODING, "")
    if not encoding:
        return len(payload)
    if encoding != ZSTD:
        raise MalformedInput(f"{CONTENT_ENCODING} {encoding[:40]!r} is not known: use zstd or none")
    with _inflating():
        size = zstandard.frame_content_size(payload)
    if not 0 <= size <= MAX_DECODED_BYTES:
        raise MalformedInput(f"message inflates to {size} bytes (-1: undeclared); the limit is {MAX_DECODED_BYTES}")
    return size


def _inflate(payload: bytes, headers: Mapping[str, str]) -> bytes:
    decoded_bytes(payload, headers)
    if not headers.get(CONTENT_ENCODING):
        return payload
    with _inflating():
        return _ZSTD_LOCAL.decompressor.decompress(payload)


@contextlib.contextmanager
def _inflating() -> Iterator[None]:
    try:
        yield
    except zstandard.ZstdError as error:
        raise MalformedInput(f"message is marked {ZSTD} but does not decompress: {error}") from error

"""Messages that no sound producer sends: each is legal for the queue, and has to be settled like any other."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

import zstandard

from qrelay.runtime.topology import SUBJECT_ROOT, Queue
from qrelay.v1 import envelope_pb2, records_pb2

WAY: Final = (Queue.QUERIES, Queue.RETRIEVED, Queue.RERANKED, Queue.JUDGED, Queue.DLQ)
HUGE_USAGE: Final = "of enormous usage"
"""Words of a query to which the simulated engine reports a usage of 5e9 tokens."""
KILLS: Final = "that kills whoever reads it"
"""Words of a query over which the judge's process dies."""
MILLISECONDS: Final = 1_767_323_045_000
"""A time in milliseconds, where seconds are asked for."""


@dataclass(frozen=True, slots=True)
class Odd:
    """A message to publish. kind: what is odd about it."""

    kind: str
    subject: str
    payload: bytes
    headers: dict[str, str]


def odd_message(kind: str, draw: random.Random, number: int) -> Odd:
    """A message of this kind, one of KINDS."""
    return KINDS[kind](draw, number)


def _query(number: int, **fields: Any) -> records_pb2.Query:
    return records_pb2.Query(
        **{"query_id": f"odd{number}", "text": f"odd question {number}", "collection": "docs", **fields}
    )


def _candidates(number: int, **fields: Any) -> records_pb2.CandidateSet:
    found = records_pb2.CandidateSet(query=_query(number, **fields), index_version="synthetic-1")
    for n in range(3):
        candidate = found.candidates.add(sampled=n < 2)
        candidate.passage.passage_id, candidate.passage.doc_id = f"odd-{n}#0", f"odd-{n}"
        candidate.passage.title, candidate.passage.text = f"title {n}", f"an odd passage, number {n}"
        candidate.scores.add(system="bm25", score=3.0 - n, rank=n + 1)
    return found


def _judged(number: int, **fields: Any) -> records_pb2.JudgedSet:
    found = records_pb2.JudgedSet(candidate_set=_candidates(number, **fields))
    for n in range(2):
        judgment = found.judgments.add(passage_id=f"odd-{n}#0", judgment_key=f"{number:060}{n:04}", prompt_tokens=7)
        judgment.graded.grade, judgment.graded.p_relevant = 2, 0.75
        judgment.graded.probabilities.extend((0.125, 0.125, 0.5, 0.25))
        judgment.judge.model, judgment.judge.strategy, judgment.judge.scale = "odd-judge", "graded", "0-3"
        judgment.judged_at.seconds = 1_767_323_045
    return found


def _letter(number: int, **fields: Any) -> records_pb2.DeadLetter:
    letter = records_pb2.DeadLetter(
        dead_letter_id=f"odd letter {number}", stage="judge", collection="docs", query_id=f"odd{number}",
        query_text=f"odd question {number}", reason="unavailable", detail="it was odd", attempts=5,
        subject=Queue.RERANKED.subject("docs"), payload=b"the original",
    )  # fmt: skip
    letter.failed_at.seconds = 1_767_323_045
    for name, value in fields.items():
        setattr(letter, name, value)
    return letter


def _record(queue: Queue, number: int, **fields: Any) -> Any:
    """What belongs on the queue."""
    if queue is Queue.DLQ:
        return _letter(number, **fields)
    return {Queue.QUERIES: _query, Queue.JUDGED: _judged}.get(queue, _candidates)(number, **fields)


def _enveloped(kind: str, queue: Queue, record: Any, collection: str = "docs", **headers: str) -> Odd:
    names = {
        "Query": "query",
        "CandidateSet": "candidate_set",
        "JudgedSet": "judged_set",
        "DeadLetter": "dead_letter",
    }
    packed = envelope_pb2.Envelope(**{names[type(record).__name__]: record}).SerializeToString()
    return Odd(f"{kind} on {queue}", f"{SUBJECT_ROOT}.{collection}.{queue}", packed, headers)


def _subject(queue: Queue) -> str:
    return queue.subject("docs")


def garbage(draw: random.Random, number: int) -> Odd:
    queue, size = draw.choice(WAY), draw.choice((0, 1, 7, 200))
    headers = draw.choice(({}, {"Content-Encoding": "zstd"}, {"Content-Encoding": "br"}, {"Qrelay-Replay": "many"}))
    return Odd(
        f"garbage on {queue}", _subject(queue), b"%d" % number * (size > 0) + draw.randbytes(size), {**headers}
    )


def cut_off(draw: random.Random, number: int) -> Odd:
    queue = draw.choice(WAY)
    whole = _enveloped("cut off", queue, _record(queue, number))
    packed = zstandard.compress(whole.payload) if draw.random() < 0.5 else whole.payload
    headers = {"Content-Encoding": "zstd"} if packed is not whole.payload else {}
    return Odd(whole.kind, whole.subject, packed[: draw.randrange(1, len(packed))], headers)


def bomb(draw: random.Random, number: int) -> Odd:
    queue, packed = draw.choice(WAY), _compressed_zeros()
    return Odd(f"80 MB in {len(packed)} bytes on {queue}", _subject(queue), packed, {"Content-Encoding": "zstd"})


@cache
def _compressed_zeros() -> bytes:
    return zstandard.compress(bytes(80 * 1024 * 1024))


def time_out_of_range(draw: random.Random, number: int) -> Odd:
    queue = draw.choice(WAY)
    record = _record(queue, number)
    stamps = {
        Queue.QUERIES: lambda: record.submitted_at,
        Queue.JUDGED: lambda: draw.choice((record.judgments[1].judged_at, record.candidate_set.query.submitted_at)),
        Queue.DLQ: lambda: record.failed_at,
    }
    stamp = stamps.get(queue, lambda: record.query.submitted_at)()
    if draw.random() < 0.7:
        stamp.seconds = draw.choice((MILLISECONDS, -MILLISECONDS, 2**63 - 1, 253_402_300_800))
    else:
        stamp.nanos = draw.choice((-1, 2_000_000_000, 2**31 - 1))
    return _enveloped("a time out of range", queue, record)


def another_kind(draw: random.Random, number: int) -> Odd:
    queue = draw.choice(WAY)
    kinds = [_query, _candidates, _judged, _letter]
    own = {Queue.QUERIES: _query, Queue.JUDGED: _judged, Queue.DLQ: _letter}.get(queue, _candidates)
    record = draw.choice([make for make in kinds if make is not own])(number)
    return _enveloped(f"a {type(record).__name__}", queue, record)


def nothing_in_it(draw: random.Random, number: int) -> Odd:
    queue = draw.choice(WAY)
    record = draw.choice(
        (records_pb2.Query, records_pb2.CandidateSet, records_pb2.JudgedSet, records_pb2.DeadLetter)
    )()
    return _enveloped(f"an empty {type(record).__name__}", queue, record)


def no_subject_token(draw: random.Random, number: int) -> Odd:
    queue = draw.choice(WAY[:4])
    names = (
        "docs.v2",
        "my docs",
        "",
        "*",
        ">",
        "DOCS",
        "d\u00f6cs",
        "a\0b",
        "tab\there",
        ".",
        "x" * 5000,
        "docs.queries",
    )
    record = _record(queue, number, collection=draw.choice(names))
    return _enveloped("a collection that is no subject token", queue, record)


def letter_of_nowhere(draw: random.Random, number: int) -> Odd:
    subjects = ("qrelay.v1.docs.v2.queries", "qrelay.v1.my docs.queries", "", "qrelay.v1.docs.nothing", "\0")
    letter = _letter(number, subject=draw.choice(subjects), collection=draw.choice(("docs", "docs.v2", "", "a\0b")))
    if draw.random() < 0.5:
        letter.headers["Qrelay-Replay"] = draw.choice(("many", "-1", "9" * 5000))
    return _enveloped("a dead letter of an odd subject", Queue.DLQ, letter)


def huge_number(draw: random.Random, number: int) -> Odd:
    queue = draw.choice(WAY)
    huge = draw.choice((2**31, 2**32 - 1))
    record = _record(queue, number)
    places: list[tuple[Any, str]] = {
        Queue.QUERIES: lambda: [(record, "round")],
        Queue.JUDGED: lambda: [(record.candidate_set.query, "round"), (record.judgments[0], "prompt_tokens")],
        Queue.DLQ: lambda: [(record, "round"), (record, "attempts")],
    }.get(queue, lambda: [(record.query, "round"), (record.candidates[0].scores[0], "rank")])()
    setattr(*draw.choice(places), huge)
    return _enveloped("a huge number", queue, record)


def odd_number(draw: random.Random, number: int) -> Odd:
    queue = draw.choice(WAY[1:4])
    value = draw.choice((float("nan"), float("inf"), -float("inf"), 1e308))
    record = _record(queue, number)
    if queue is Queue.JUDGED and draw.random() < 0.5:
        setattr(record.judgments[0].graded, draw.choice(("entropy", "p_relevant", "expected_relevance")), value)
    else:
        candidates = record.candidate_set if queue is Queue.JUDGED else record
        candidates.candidates[0].scores[0].score = value
    return _enveloped(f"a score of {value}", queue, record)


def odd_text(draw: random.Random, number: int) -> Odd:
    queue = draw.choice(WAY)
    text = draw.choice(("a\0b", "", " \n\t ", "x" * 40_000, "\U0001f600" * 9000, "\ufffe\u200b"))
    fields = ["query_id", "query_text"] if queue is Queue.DLQ else ["query_id", "text"]
    return _enveloped("an odd text", queue, _record(queue, number, **{draw.choice(fields): text}))


def passages_twice(draw: random.Random, number: int) -> Odd:
    queue = draw.choice(WAY[1:4])
    record = _record(queue, number)
    candidates = record.candidate_set if queue is Queue.JUDGED else record
    candidates.candidates[1].CopyFrom(candidates.candidates[0])
    return _enveloped("a passage twice", queue, record)


def without_outcome(draw: random.Random, number: int) -> Odd:
    record = _judged(number)
    record.judgments[0].ClearField("graded")
    return _enveloped("a judgment without an outcome", Queue.JUDGED, record)


def usage_of_billions(draw: random.Random, number: int) -> Odd:
    return _enveloped("a query to which the engine reports a usage of 5e9 tokens", Queue.QUERIES,
                      _query(number, text=f"question {number} {HUGE_USAGE}"))  # fmt: skip


def killer(draw: random.Random, number: int) -> Odd:
    return _enveloped("a query over which the judge dies", Queue.QUERIES,
                      _query(number, text=f"question {number} {KILLS}"))  # fmt: skip


def foreign_subject(draw: random.Random, number: int) -> Odd:
    """A token that the server takes and qrelay does not."""
    queue, token = draw.choice(WAY), draw.choice(("DOCS", "*", ">", "d\u00f6cs", "a\0b"))
    return _enveloped(f"the subject of a foreign collection {token!r}", queue, _record(queue, number), token)


def another_text(draw: random.Random, number: int) -> Odd:
    """The same id again and again, each time with another text: the first stands."""
    return _enveloped(
        "an id with another text",
        Queue.QUERIES,
        _query(0, query_id="twice", text=f"odd question {number}, other text"),
    )


KINDS: Final[dict[str, Callable[[random.Random, int], Odd]]] = {
    make.__name__: make
    for make in (
        garbage, cut_off, bomb, time_out_of_range, another_kind, nothing_in_it, no_subject_token, letter_of_nowhere,
        huge_number, odd_number, odd_text, passages_twice, without_outcome, usage_of_billions, another_text,
        killer, foreign_subject,
    )
}  # fmt: skip

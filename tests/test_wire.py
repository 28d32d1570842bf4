"""The one translation: nothing is lost on the way, and nothing bad gets in."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from qrelay import wire
from qrelay.errors import MalformedInput
from qrelay.types import MAX_ROUND, Candidate, CandidateSet, DeadLetter, Passage, Query, Score, TraceStep
from qrelay.v1 import records_pb2
from tests import samples

TEXT = st.text(max_size=200)
SCORES = st.builds(
    Score, st.sampled_from(["bm25", "dense"]), st.none() | st.floats(allow_nan=False), st.integers(0, 500)
)
CANDIDATES = st.builds(
    Candidate,
    st.builds(Passage, TEXT, TEXT, TEXT, TEXT, st.dictionaries(TEXT, TEXT, max_size=2)),
    st.lists(SCORES, max_size=3).map(tuple),
    st.booleans(),
)
SETS = st.builds(
    CandidateSet,
    st.builds(
        Query,
        TEXT,
        TEXT,
        TEXT,
        st.none() | st.just(samples.NOW),
        st.dictionaries(TEXT, TEXT, max_size=2),
        round=st.integers(0, MAX_ROUND),
    ),
    st.lists(CANDIDATES, max_size=4).map(tuple),
    TEXT,
    st.lists(st.just(TraceStep("judge", "r-1", "m@1", 0.5, 0.25)), max_size=2).map(tuple),
)


@given(SETS, st.booleans())
def test_a_candidate_set_survives_the_queue(record: CandidateSet, compress: bool) -> None:
    assert wire.decode(*wire.encode(record, compress=compress)) == record


@given(SETS)
def test_what_was_read_is_written_as_what_was_made(record: CandidateSet) -> None:
    read = wire.decode(*wire.encode(record))
    assert isinstance(read, CandidateSet)
    other = replace(read, query=replace(read.query, text="other", round=1), trace=(*read.trace, *read.trace))
    made = replace(other, candidates=tuple(replace(candidate) for candidate in read.candidates))
    assert wire.encode(other, compress=False) == wire.encode(made, compress=False)


def test_a_number_that_is_none_is_not_passed_on() -> None:
    message = wire.to_proto(samples.candidate_set())
    message.candidates[0].sampled = True
    message.candidates[1].scores[0].score = math.nan
    assert not wire.to_proto(wire.from_proto(message)).candidates[1].scores[0].HasField("score")


@pytest.mark.parametrize(
    "record",
    [
        samples.query(),
        samples.candidate_set(count=50),
        samples.judged_set(),
        DeadLetter("id", "judge", "c", "q", "t", "timeout", "d", 5, samples.NOW, "s.u.b", {"a": "b"}, b"\x00\xff", 2),
    ],
)
def test_every_record_survives_the_queue_and_grpc(record: wire.Record) -> None:
    assert wire.decode(*wire.encode(record)) == record
    assert wire.from_proto(wire.to_proto(record)) == record


def test_small_messages_travel_plain_and_large_ones_compressed() -> None:
    assert wire.encode(samples.query())[1] == {}
    assert wire.encode(samples.candidate_set(count=100))[1] == {"Content-Encoding": "zstd"}


@pytest.mark.parametrize(
    ("payload", "headers", "words"),
    [
        (b"\xff\xff garbage", {}, "not a qrelay.v1.Envelope"),
        (b"", {}, "holds no record"),
        (b"x", {"Content-Encoding": "br"}, "'br' is not known"),
        (b"not zstd", {"Content-Encoding": "zstd"}, "does not decompress"),
        (zstandard.compress(b"\0" * (wire.MAX_DECODED_BYTES + 1)), {"Content-Encoding": "zstd"}, "inflates to"),
    ],
)
def test_a_bad_message_is_malformed_and_says_how(payload: bytes, headers: dict[str, str], words: str) -> None:
    with pytest.raises(MalformedInput, match=words):
        wire.decode(payload, headers)


@given(
    st.binary(max_size=200),
    st.dictionaries(st.sampled_from(["Content-Encoding", "x"]), st.sampled_from(["zstd", "", "br", "\ud83d"])),
)
def test_whatever_bytes_come_they_are_a_record_or_malformed(payload: bytes, headers: dict[str, str]) -> None:
    with contextlib.suppress(MalformedInput):
        wire.decode(payload, headers)


@given(st.data(), st.sampled_from([samples.query(), samples.candidate_set(), samples.judged_set()]), st.booleans())
def test_a_message_with_some_bytes_changed_is_a_record_or_malformed(
    data: st.DataObject, record: wire.Record, compress: bool
) -> None:
    payload, headers = wire.encode(record, compress=compress)
    changed = bytearray(payload)
    for place in data.draw(st.lists(st.integers(0, len(payload) - 1), max_size=6)):
        changed[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(payload)))
    with contextlib.suppress(MalformedInput):
        wire.decode(bytes(changed[:cut]), headers)


@given(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1))
def test_any_time_on_the_wire_is_a_time_or_malformed(seconds: int, nanos: int) -> None:
    stamp = {"seconds": seconds, "nanos": nanos}
    for message in (
        records_pb2.Query(submitted_at=stamp),
        records_pb2.DeadLetter(failed_at=stamp),
        records_pb2.JudgedSet(judgments=[records_pb2.Judgment(missing={"reason": "error"}, judged_at=stamp)]),
    ):
        with contextlib.suppress(MalformedInput):
            wire.from_proto(message)


@pytest.mark.parametrize("number", [MAX_ROUND + 1, 2**32 - 1])
def test_a_number_that_no_column_holds_is_malformed(number: int) -> None:
    for message in (
        records_pb2.Query(round=number),
        records_pb2.CandidateSet(query={"round": number}),
        records_pb2.DeadLetter(round=number),
        records_pb2.DeadLetter(attempts=number),
    ):
        with pytest.raises(MalformedInput, match=str(number)):
            wire.from_proto(message)


@pytest.mark.parametrize(
    "record",
    [
        Query("q", "half \ud83d", "docs"),
        Query("q", "t", "docs", round=-1),
        Query("q", "t", "docs", round=2**32),
        replace(
            samples.judged_set(), judgments=(replace(samples.judged_set().judgments[0], prompt_tokens=5 * 10**9),)
        ),
    ],
)
def test_a_record_that_no_message_can_hold_is_malformed(record: wire.Record) -> None:
    for translate in (wire.encode, wire.to_proto):
        with pytest.raises(MalformedInput, match="holds a value that cannot be"):
            translate(record)


def test_a_judgment_without_an_outcome_is_refused() -> None:
    with pytest.raises(MalformedInput, match="no outcome"):
        wire.from_proto(records_pb2.JudgedSet(judgments=[records_pb2.Judgment(passage_id="p")]))


def test_a_score_that_is_not_a_number_is_none_and_has_no_rank() -> None:
    one, *others = samples.candidates(2)
    spoilt = replace(one, scores=(Score("dense", math.nan, 1), Score("bm25", 2.0, 1)))
    sent = CandidateSet(samples.query(), (spoilt, *others), "v1")
    found = wire.from_proto(wire.to_proto(sent)).candidates[0]
    assert found.scores == (Score("dense", None, 0), Score("bm25", 2.0, 1))

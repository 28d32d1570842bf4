"""The one translation: nothing is lost on the way, and nothing bad gets in."""

from __future__ import annotations

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
    Candidate, st.builds(Passage, TEXT, TEXT, TEXT, TEXT), st.lists(SCORES, max_size=3).map(tuple), st.booleans()
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


def test_a_judgment_without_an_outcome_is_refused() -> None:
    with pytest.raises(MalformedInput, match="no outcome"):
        wire.from_proto(records_pb2.JudgedSet(judgments=[records_pb2.Judgment(passage_id="p")]))


def test_a_score_that_is_not_a_number_is_none_and_has_no_rank() -> None:
    one, *others = samples.candidates(2)
    spoilt = replace(one, scores=(Score("dense", math.nan, 1), Score("bm25", 2.0, 1)))
    sent = CandidateSet(samples.query(), (spoilt, *others), "v1")
    found = wire.from_proto(wire.to_proto(sent)).candidates[0]
    assert found.scores == (Score("dense", None, 0), Score("bm25", 2.0, 1))

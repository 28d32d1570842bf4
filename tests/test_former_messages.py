"""Messages that the version before 2026-11-30 queued (former_messages.json, its own bytes) are read as they were
written, and what is written today is the same, uncompressed, byte for byte."""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from qrelay import wire
from qrelay.types import (
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

STORED = json.loads((Path(__file__).parent / "former_messages.json").read_text())
WHEN = datetime(2026, 11, 28, 3, 4, 5, 678901, tzinfo=UTC)
QUERY = Query("q-ü1", "wie groß ist 東京?", "docs", WHEN, {"b": "2", "a": "1"}, ("so", "or so"), 3)
CANDIDATES = tuple(
    Candidate(
        Passage(
            f"d{n}#0",
            f"d{n}",
            f"Titel {n}",
            f"Passage {n} 🦉. " * (n % 7),
            {"year": "1999", "at": ""} if n % 3 else {},
        ),
        (
            Score("bm25", None if n % 4 else 0.0, n),
            Score("dense", 1 / (n + 1), 0),
            Score("cross_encoder", -n / 3, n + 1),
        ),
        n % 2 == 0,
    )
    for n in range(30)
)
TRACE = (TraceStep("retriever", "r-1", "m@1", 0.25, 0.125), TraceStep("reranker", "r-2", "c@2", 1.5, 3e-9))
SET = CandidateSet(QUERY, CANDIDATES, "v-7", TRACE)
JUDGE = JudgeIdentity("m", "r", "q8", "f" * 64, "query_likelihood", "0-3", "engine=x;stage-scores=no")
OUTCOMES = (
    Graded(2, 0, (0.1, 0.2, 0.6, 0.1), 1.7, 1.0888999753452238, 0.7, "map", Utility(1.5, 2.5, True, 4)),
    Graded(0, 0, (1.0, 0.0, 0.0, 0.0), 0.0, 0.0, 0.0, "", Utility(0.0, None, False)),
    Graded(-1, -1, (), 0.0, 0.0, 0.0),
    Missing("timeout", "after 30 s"),
)
JUDGED = JudgedSet(
    SET,
    tuple(
        Judgment(f"d{n}#0", f"{n:064x}", OUTCOMES[n % 4], JUDGE, WHEN, n % 5 == 0, "YES\nReason: ü" * (n % 2), n * 9)
        for n in range(0, 30, 2)
    ),
)
LETTER = DeadLetter(
    "id", "judge", "docs", "q", "t", "timeout", "d", 5, WHEN, "s.u.b", {"b": "1", "a": "2"}, b"\0\xff", 2
)
RECORDS: dict[str, Any] = {
    "query": QUERY,
    "candidate set": SET,
    "without candidates": CandidateSet(Query("q", "t", "docs"), (), ""),
    "judged set": JUDGED,
    "dead letter": LETTER,
}


@pytest.mark.parametrize("name", RECORDS)
def test_what_the_former_version_queued_is_read_as_it_was_written(name: str) -> None:
    stored = STORED[name]
    assert wire.decode(b64decode(stored["payload"]), stored["headers"]) == RECORDS[name]


@pytest.mark.parametrize("name", RECORDS)
def test_a_record_is_written_as_the_former_version_wrote_it(name: str) -> None:
    stored = STORED[name]
    former = wire._inflate(b64decode(stored["payload"]), stored["headers"])
    assert wire.encode(RECORDS[name], compress=False)[0] == former

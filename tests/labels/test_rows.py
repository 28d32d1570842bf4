"""What a judged set becomes in the ledger's tables: the same from a record and from its message, for ever."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zstandard

from qrelay import wire
from qrelay.bench.data import Generated
from qrelay.errors import MalformedInput
from qrelay.identity import digest, judge_digest
from qrelay.labels.ledger.rows import PreparedSet, prepare
from qrelay.services.sink.reading import columns_of
from qrelay.types import BM25, DENSE, Candidate, JudgedSet, Missing, Passage, Score, Utility
from qrelay.v1 import records_pb2
from tests.labels.builders import FUSED, NOW, OTHER_JUDGE, graded, judged_set, judgment, with_labels

FORMER = Path(__file__).with_name("row_digests.json")
"""name -> digest of the rows that the first release made of the set, byte for byte."""


def with_candidates(record: JudgedSet, *candidates: Candidate) -> JudgedSet:
    return replace(record, candidate_set=replace(record.candidate_set, candidates=candidates))


def _with_scores(*scores: tuple[Score, ...]) -> JudgedSet:
    record = judged_set()
    candidates = record.candidate_set.candidates
    return with_candidates(record, *(replace(c, scores=s) for c, s in zip(candidates, scores, strict=False)),
                           *candidates[len(scores):])  # fmt: skip


def sets() -> dict[str, JudgedSet]:
    """Every kind of set that a ledger takes."""
    plain, measured = judged_set(), Utility(1.5, 2.25, True, 3)
    first, *others = plain.candidate_set.candidates
    told = replace(first, passage=replace(first.passage, metadata={"year": "2020", "lang": "en"}))
    spoilt = replace(first, passage=replace(first.passage, text="a\0b"))
    query = plain.candidate_set.query
    later = replace(query, round=3, submitted_at=None, attributes={"b": "2", "a": "ü"}, reference_answers=("x", "y"))
    made = wire.from_proto(Generated("judged").item(7))
    return {
        "plain": plain,
        "no candidates": JudgedSet(replace(plain.candidate_set, candidates=()), ()),
        "panel": with_labels(plain, judgment("d0#0", graded(1), OTHER_JUDGE), judgment("d0#0", graded(2), FUSED)),
        "repeats": with_labels(plain, replace(plain.judgments[0], outcome=graded(1))),
        "measured": judged_set(outcomes=[replace(graded(g), utility=u) for g, u in ((2, measured), (0, Utility()))]),
        "calibrated": judged_set(outcomes=[replace(graded(1), calibration="m" * 64, probabilities=())]),
        "missing": judged_set(outcomes=[Missing("timeout"), Missing("unparseable", "a\0b")]),
        "metadata": with_candidates(plain, told, *others),
        "text with NUL": with_candidates(plain, spoilt, *others),
        "round": replace(plain, candidate_set=replace(plain.candidate_set, query=later)),
        "no score": _with_scores((Score(BM25, None, 1), Score(DENSE, 0.0, 2))),
        "not a number": _with_scores((Score(BM25, math.nan, 1), Score(DENSE, math.inf, 2))),
        "other systems": _with_scores((Score(DENSE, 1.0, 1),), (), (Score(BM25, 2.0, 4), Score("own", -1.0, 0))),
        "title alone": with_candidates(plain, first, *others[:-1], replace(others[-1], passage=Passage(
            "u#0", "u", "a title", ""))),
        "generated": replace(made, judgments=tuple(replace(each, judged_at=NOW) for each in made.judgments)),
    }  # fmt: skip


def rows(prepared: Any) -> str:
    """A digest of all that the set becomes."""
    assert isinstance(prepared, PreparedSet), prepared
    candidates = zstandard.ZstdDecompressor().decompress(prepared.packed)
    found = (sorted(prepared.query_row.items()), [*map(tuple, prepared.passage_rows)],
             [*map(tuple, prepared.judgment_rows)], [*map(judge_digest, prepared.judges)])  # fmt: skip
    return digest(prepared.submission, candidates, repr(found))


@pytest.mark.parametrize("name", sets())
def test_a_set_becomes_the_rows_that_it_always_became(name: str) -> None:
    assert rows(prepare(sets()[name])) == json.loads(FORMER.read_text())[name]


@pytest.mark.parametrize("name", sets())
def test_a_message_becomes_the_rows_that_its_record_becomes(name: str) -> None:
    message = wire.to_proto(sets()[name])
    assert rows(prepare(columns_of(message))) == rows(prepare(wire.from_proto(message)))
    assert columns_of(message).record() == wire.from_proto(message)


BAD_MESSAGES: dict[str, Callable[[records_pb2.JudgedSet], Any]] = {
    "no outcome": lambda m: m.judgments[0].ClearField("graded"),
    "a time that no calendar has": lambda m: setattr(m.judgments[0].judged_at, "seconds", 2**40),
    "a second of two": lambda m: setattr(m.judgments[0].judged_at, "nanos", 2 * 10**9),
    "a round beyond all": lambda m: setattr(m.candidate_set.query, "round", 2**31),
}


@pytest.mark.parametrize("name", BAD_MESSAGES)
def test_a_message_that_can_be_no_record_can_be_no_columns(name: str) -> None:
    message = wire.to_proto(judged_set())
    BAD_MESSAGES[name](message)
    with pytest.raises(MalformedInput):
        wire.from_proto(message)
    with pytest.raises(MalformedInput):
        columns_of(message)

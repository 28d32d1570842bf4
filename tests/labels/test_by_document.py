"""Exports by document: the best passage decides, a document has one role, and by passage nothing has changed."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qrelay.errors import InputError
from qrelay.labels.documents import by_document, deciding
from qrelay.labels.exports.catalogue import FORMATS
from qrelay.labels.exports.request import Options, Request
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, add
from qrelay.labels.ledger.reader import JudgeRow, Label
from qrelay.labels.mining.mine import mine
from qrelay.labels.mining.rules import NEGATIVE, POSITIVE, JudgedPassage, MiningRules
from qrelay.types import BM25, DENSE, Candidate, Graded, JudgedSet, Missing, Score
from tests.labels.builders import JUDGE, graded, judged_set, judgment, passage
from tests.labels.exporting import export_bytes, export_file

RULES = MiningRules(guard_ratio=1.0, negative_rank=10, easy_per_hard=0, judge_rank=0)
Outcome = Graded | Missing


def documents_set(query_id: str, documents: dict[str, Sequence[Outcome]], ranks: Sequence[int] = ()) -> JudgedSet:
    """A set of documents with an outcome a passage; passages are ranked in that order, or as `ranks` says."""
    passages = [(passage(name, n), each) for name, found in documents.items() for n, each in enumerate(found)]
    places = ranks or range(1, len(passages) + 1)
    candidates = tuple(
        Candidate(each, (Score(BM25, 30.0 - place, place), Score(DENSE, 0.9 / place, place)), True)
        for (each, _), place in zip(passages, places, strict=True)
    )
    record = judged_set(query_id)
    found = dataclasses.replace(record.candidate_set, candidates=candidates)
    return dataclasses.replace(
        record, candidate_set=found, judgments=tuple(judgment(each.passage_id, out) for each, out in passages)
    )


MANY: dict[str, Sequence[Outcome]] = {
    "good": [graded(1), graded(3, 0.9), graded(3, 0.97)],
    "bad": [graded(0, 0.02), graded(1, 0.03)],
    "part": [Missing("timeout"), graded(0, 0.01)],
    "gone": [Missing("timeout"), Missing("filtered")],
    "long#1": [graded(0, 0.01)],
}


@pytest.fixture
def filled(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    ledger.commit([documents_set("q1", MANY)])
    yield ledger
    ledger.close()


def whole(ledger: Ledger, kind: str, **choices: Any) -> bytes:
    return b"".join(
        export_bytes(ledger, "docs", kind, **{"rules": RULES, "by": "document", "unmeasured": True, **choices})
    )


def test_a_document_has_its_best_passages_grade_and_is_missing_where_all_are(filled: Ledger, tmp_path: Path) -> None:
    assert whole(filled, "qrels") == b"q1 0 bad 1\nq1 0 good 3\nq1 0 long#1 0\nq1 0 part 0\n"
    manifest = export_file(filled, "docs", "qrels", tmp_path / "qrels", by="document")
    assert manifest["selection"]["by"] == "document"
    assert manifest["grades"] == {"0": 2, "1": 1, "3": 1}
    assert manifest["missing"] == {"timeout": 1}
    assert manifest["relevant_grades"] == {"0-3": 2}


def test_a_condition_is_asked_of_the_passage_that_decides(filled: Ledger) -> None:
    assert whole(filled, "qrels", where="grade<2") == b"q1 0 bad 1\nq1 0 long#1 0\nq1 0 part 0\n"


def test_a_document_that_people_graded_counts_by_its_best_passage_too(filled: Ledger) -> None:
    with filled.writing("test") as connection:
        add(connection, "docs", [NewOverride("q1", "good#2", 0, "0-3", "ana")], 0)
        add(connection, "docs", [NewOverride("q1", "unseen#7", 2, "0-3", "ana")], 0)
    lines = whole(filled, "qrels", overrides=True).decode().split("\n")
    assert "q1 0 good 3" in lines, "good#1 is a 3 still"
    assert "q1 0 unseen 2" in lines, "what no system found has its document in its id"


def test_training_data_names_documents_with_the_deciding_passages_text(filled: Ledger) -> None:
    [line] = whole(filled, "triples").splitlines()
    example = json.loads(line)
    [positive] = example["positives"]
    assert (positive["passage_id"], positive["doc_id"], positive["text"]) == ("good#2", "good", "text 2 of good")
    assert [each["doc_id"] for each in example["negatives"]] == ["bad", "part", "long#1"]
    assert [each["passage_id"] for each in example["negatives"]] == ["bad#1", "part#1", "long#1#0"]
    assert whole(filled, "msmarco-ids") == b"q1\tgood\tbad\nq1\tgood\tpart\nq1\tgood\tlong#1\n"
    [row] = map(json.loads, whole(filled, "tevatron").splitlines())
    assert [each["docid"] for each in row["negative_passages"]] == ["bad", "part", "long#1"]
    [row] = map(json.loads, whole(filled, "labels").splitlines())
    assert [each["passage_id"] for each in row["passages"]] == ["bad#1", "good#2", "long#1#0", "part#1"]


def test_a_run_has_a_document_where_its_first_passage_stands(filled: Ledger) -> None:
    lines = [line.split() for line in whole(filled, "run", options=Options(system=BM25)).decode().splitlines()]
    assert [(line[2], line[3]) for line in lines] == [
        ("good", "1"), ("bad", "2"), ("part", "3"), ("gone", "4"), ("long#1", "5"),
    ]  # fmt: skip
    assert float(lines[0][4]) > float(lines[1][4]) > float(lines[4][4])


@pytest.mark.parametrize(
    "kind", [kind for kind, each in FORMATS.items() if each.suffix != ".parquet" and kind != "hf"]
)
def test_every_format_of_ids_names_documents_alone(filled: Ledger, tmp_path: Path, kind: str) -> None:
    choices: dict[str, Any] = {"rules": RULES, "unmeasured": True, "options": Options(system=BM25)}
    manifest = export_file(filled, "docs", kind, tmp_path / "out", by="document", **choices)
    assert manifest["rows"]
    place = tmp_path / "out"
    files = [place] if place.is_file() else [each for each in place.rglob("*") if each.name not in ("manifest.json",)]
    text = "\n".join(each.read_text() for each in files if each.is_file())
    named = text.replace('"passage_id":"good#2"', "").replace('"passage_id":"bad#1"', "")
    assert "good#2" not in named and "bad#1" not in named, "but for the rows that say which passage it was"


def test_a_document_of_a_corpus_is_there_once_and_other_passages_of_it_are_counted(
    filled: Ledger, tmp_path: Path
) -> None:
    filled.commit([documents_set("q2", {"good": [graded(3), graded(0)], "bad": [graded(0), graded(0)]})])
    manifest = export_file(filled, "docs", "beir", tmp_path / "beir", by="document", rules=RULES)
    rows = [json.loads(line) for line in (tmp_path / "beir" / "corpus.jsonl").read_text().splitlines()]
    assert [(row["_id"], row["text"]) for row in rows][:2] == [("bad", "text 1 of bad"), ("good", "text 2 of good")]
    assert len({row["_id"] for row in rows}) == len(rows) == 4
    assert manifest["notes"] == {"documents": 4, "documents_with_another_text": 2}


PINNED = {
    "qrels": "57cb9b719a1e347a",
    "triples": "16f36c7fa77e1d79",
    "msmarco-ids": "6eefaa21e7ddaed4",
    "tevatron": "362b16f509d95770",
    "labels": "ac20adecec4894bc",
    "msmarco": "0ccbafd44c6fbfba",
    "run": "7ad93c6f07f419f6",
}
"""The first half of each file's sha256, as it was before there were exports by document."""


def test_by_passage_not_a_byte_has_changed(filled: Ledger) -> None:
    written = {kind: whole(filled, kind, by="passage", options=Options(system=BM25)) for kind in PINNED}
    assert {kind: hashlib.sha256(data).hexdigest()[:16] for kind, data in written.items()} == PINNED
    assert "by" not in Request("docs", "qrels").selection(), "so that --since-last goes on from former exports"


def test_what_is_neither_passage_nor_document_is_refused(filled: Ledger) -> None:
    with pytest.raises(InputError, match="passage or document"):
        whole(filled, "qrels", by="section")


def test_of_scales_that_differ_relevant_counts_first_then_the_share_of_the_scale() -> None:
    judges = {
        1: JudgeRow(1, "a" * 64, JUDGE),
        2: JudgeRow(2, "b" * 64, dataclasses.replace(JUDGE, scale="1-4")),
        3: JudgeRow(3, "c" * 64, dataclasses.replace(JUDGE, scale="0-9")),
    }

    def best(*labels: Label) -> str:
        named = {label.passage_id: label for label in labels}
        [found] = deciding(named, dict.fromkeys(named, "d"), judges, {"0-3": 2, "1-4": 3})
        return found

    def label(passage_id: str, judge_no: int, grade: int | None, p: float = 0.5) -> Label:
        low = {1: 0, 2: 1, 3: 0}[judge_no]
        return Label(passage_id, judge_no, grade, low, p, None if grade is not None else "timeout", 0.0, "", 0)

    assert best(label("d#0", 1, 2), label("d#1", 2, 4)) == "d#1", "both are relevant, and 4 of 1-4 is the whole scale"
    assert best(label("d#0", 1, 2), label("d#1", 3, 8)) == "d#0", "nothing says what is relevant on 0-9"
    assert best(label("d#0", 1, 0), label("d#1", 2, 1, 0.6)) == "d#1", "the lowest of both: P(relevant) decides"
    assert best(label("d#0", 1, None), label("d#1", 1, 0)) == "d#1"
    assert best(label("d#1", 1, 1), label("d#0", 1, 1)) == "d#0", "ties by id"


OUTCOMES = st.sampled_from([(0, 0.02), (0, 0.3), (1, 0.2), (1, 0.45), (2, 0.7), (3, 0.9), (None, None)])


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.lists(OUTCOMES, min_size=1, max_size=3), min_size=1, max_size=8),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_a_document_has_one_role_and_no_negative_that_was_none_by_passage(
    documents: list[list[tuple[int | None, float | None]]], random: Any, siblings: bool
) -> None:
    judges = {1: JudgeRow(1, "a" * 64, JUDGE)}
    named = {f"d{i}#{n}": out for i, found in enumerate(documents) for n, out in enumerate(found)}
    places = random.sample(range(1, 60), len(named))
    rules = dataclasses.replace(RULES, siblings=siblings, easy_per_hard=2.0)
    passages = [
        JudgedPassage(
            Candidate(passage(f"d{i}", n), (Score(BM25, None, place), Score(DENSE, None, 60 - place)), True),
            *named[f"d{i}#{n}"], "0-3",
        )
        for (i, n), place in zip(
            [(i, n) for i, found in enumerate(documents) for n in range(len(found))], places, strict=True
        )
    ]  # fmt: skip
    labels = {
        name: Label(name, 1, grade, 0, p, None if grade is not None else "timeout", 0.0, "", 0)
        for name, (grade, p) in named.items()
    }
    of = {name: name.partition("#")[0] for name in named}
    verdicts = mine(passages, rules)
    found = by_document(verdicts, of, deciding(labels, of, judges, rules.relevant_grades))
    roles = {of[each.passage_id]: each for each in found}
    assert len(roles) == len(found) == len(documents)
    relevant = {of[each.passage_id] for each in verdicts if each.role == POSITIVE}
    negatives = {of[each.passage_id] for each in verdicts if each.role == NEGATIVE}
    assert {name for name, each in roles.items() if each.role == POSITIVE} == relevant
    assert {name for name, each in roles.items() if each.role == NEGATIVE} <= negatives - relevant
    for each in found:
        if each.role == NEGATIVE:
            p = each.judged.p_relevant
            assert p is not None and p < rules.negative_threshold

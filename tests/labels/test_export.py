"""Exports: a function of the ledger, atomic, readable by the tools that read them."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import random
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import ir_measures
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qrelay.errors import BackendUnavailable, InputError, InternalError, UnknownCollection
from qrelay.labels.exports.catalogue import FORMATS, QRELS, TRIPLES
from qrelay.labels.exports.export import Export
from qrelay.labels.exports.request import Options, Request
from qrelay.labels.exports.splits import parse_splits
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.schema import SCHEMA_VERSION
from qrelay.labels.mining.rules import MiningRules
from qrelay.types import DENSE, Candidate, JudgedSet, Missing, Score
from tests.labels.builders import JUDGE, NOW, graded, judged_set, later
from tests.labels.exporting import export_bytes, export_file

LOOSE = MiningRules(guard_ratio=1.0)


def hard_set(query_id: str, **fields: Any) -> JudgedSet:
    """A set with a triple: d0 relevant, d1 an irrelevant high rank, d2 missing."""
    return judged_set(query_id, **fields)


def whole(ledger: Ledger, kind: str, collection: str = "docs", **fields: Any) -> bytes:
    return b"".join(export_bytes(ledger, collection, kind, unmeasured=True, **fields))


def triples(ledger: Ledger, **fields: Any) -> list[dict[str, Any]]:
    return [json.loads(line) for line in whole(ledger, TRIPLES, **fields).splitlines()]


def test_qrels_hold_judged_zeros_and_leave_missing_out(ledger: Ledger) -> None:
    ledger.commit([judged_set("q2"), judged_set("q1", outcomes=[graded(0), Missing("filtered")])])
    assert whole(ledger, QRELS) == b"q1 0 d0#0 0\nq2 0 d0#0 3\nq2 0 d1#0 0\n"


def test_qrels_count_grades_from_the_lowest_of_the_scale(ledger: Ledger) -> None:
    judge = dataclasses.replace(JUDGE, scale="1-4")
    outcomes = [graded(4, min_grade=1), graded(1, min_grade=1)]
    ledger.commit([judged_set(outcomes=outcomes, judge=judge)])
    assert whole(ledger, QRELS) == b"q1 0 d0#0 3\nq1 0 d1#0 0\n"


def test_qrels_are_read_by_ir_measures(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set("q1"), judged_set("q2", outcomes=[graded(0), graded(2)])])
    export_file(ledger, "docs", QRELS, tmp_path / "qrels")
    qrels = list(ir_measures.read_trec_qrels(str(tmp_path / "qrels")))  # type: ignore[no-untyped-call]
    assert {(q.query_id, q.doc_id, q.relevance) for q in qrels} == {
        ("q1", "d0#0", 3),
        ("q1", "d1#0", 0),
        ("q2", "d0#0", 0),
        ("q2", "d1#0", 2),
    }
    run = [ir_measures.ScoredDoc(q.query_id, q.doc_id, float(q.relevance)) for q in qrels]
    assert ir_measures.calc_aggregate([ir_measures.nDCG @ 10], qrels, run) == {ir_measures.nDCG @ 10: 1.0}


def test_a_triple_is_a_query_with_positives_and_hard_negatives(ledger: Ledger) -> None:
    ledger.commit([hard_set("q1")])
    assert triples(ledger) == [
        {
            "query_id": "q1",
            "query": "text of q1",
            "positives": [
                {"passage_id": "d0#0", "doc_id": "d0", "title": "title of d0", "text": "text 0 of d0",
                 "grade": 3, "p_relevant": 0.95, "reason": "relevant",
                 "expected_relevance": 1.0, "answer_nll": None, "human": False}
            ],
            "negatives": [
                {"passage_id": "d1#0", "doc_id": "d1", "title": "title of d1", "text": "text 0 of d1",
                 "grade": 0, "p_relevant": 0.05, "reason": "top_rank",
                 "expected_relevance": 0.0, "answer_nll": None, "human": False}
            ],
        }
    ]  # fmt: skip


def test_missing_is_neither_zero_nor_negative(ledger: Ledger) -> None:
    missing = [Missing(reason) for reason in ("timeout", "unparseable", "filtered", "error")]
    ledger.commit([judged_set(outcomes=[graded(3), *missing, graded(0)])])
    assert b" d1#0 " not in whole(ledger, QRELS)
    (row,) = triples(ledger, rules=MiningRules(negative_rank=10))
    assert [negative["passage_id"] for negative in row["negatives"]] == ["d5#0"]


def test_a_query_without_a_positive_or_without_a_negative_gives_no_triple(ledger: Ledger) -> None:
    ledger.commit([judged_set("q1", outcomes=[graded(3), graded(3)]), judged_set("q2", outcomes=[graded(0)])])
    assert triples(ledger) == []


def export_all(ledger: Ledger, folder: Path) -> None:
    """Every format, with and without splits."""
    for kind in FORMATS:
        for splits in (None, parse_splits("train=0.5,test=0.5")):
            options = Options(negatives=1, system=DENSE)
            place = folder / f"{kind}{'-split' if splits else ''}"
            export_file(ledger, "docs", kind, place, splits=splits, options=options, rules=LOOSE, unmeasured=True)


def bytes_below(folder: Path) -> dict[str, bytes]:
    """Every file by its path; the manifests are among them."""
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert len(files) > 2 * len(FORMATS)
    return files


def random_set(number: int) -> JudgedSet:
    rng = random.Random(number)
    outcomes = [graded(rng.randrange(4)) if rng.random() < 0.5 else Missing("timeout") for _ in range(6)]
    return judged_set(f"q{number}", outcomes=outcomes, prefix=f"doc{number % 3}-")


@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(range(12)), repeats=st.lists(st.integers(0, 11), max_size=6), batch=st.integers(1, 12))
def test_exports_are_the_same_bytes_whatever_the_order_of_commits_and_after_duplicates(
    tmp_path: Path, order: list[int], repeats: list[int], batch: int
) -> None:
    reference = tmp_path / "reference"
    if not reference.exists():
        straight = Ledger.open(tmp_path / "straight.sqlite", clock=lambda: NOW)
        straight.commit([random_set(number) for number in range(12)])
        export_all(straight, reference)
        straight.close()
    path = tmp_path / "other.sqlite"
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)
    other = Ledger.open(path, clock=lambda: later(999))
    sets = [random_set(number) for number in [*order, *repeats]]
    for start in range(0, len(sets), batch):
        other.commit(sets[start : start + batch])
    export_all(other, tmp_path / "other")
    assert bytes_below(tmp_path / "other") == bytes_below(reference)
    other.close()


def test_what_a_rerun_changes_of_a_label_by_nature_does_not_reach_an_export(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([hard_set("q1")])
    rerun = hard_set("q1")
    rerun = dataclasses.replace(
        rerun,
        judgments=tuple(
            dataclasses.replace(j, cached=True, judged_at=later(5), prompt_tokens=0) for j in rerun.judgments
        ),
    )
    other = Ledger.open(tmp_path / "other.sqlite")
    other.commit([rerun])
    export_all(ledger, tmp_path / "one")
    export_all(other, tmp_path / "two")
    assert bytes_below(tmp_path / "one") == bytes_below(tmp_path / "two")
    other.close()


def test_the_manifest_has_counts_missing_by_reason_judges_and_the_sha256_of_the_file(
    ledger: Ledger, tmp_path: Path
) -> None:
    ledger.commit([hard_set("q1"), judged_set("q2", outcomes=[graded(0), Missing("filtered"), Missing("timeout")])])
    for kind, rows, queries in ((QRELS, 3, 2), (TRIPLES, 1, 1)):
        path = tmp_path / kind
        manifest = export_file(ledger, "docs", kind, path, unmeasured=True)
        assert manifest == json.loads((tmp_path / f"{kind}.manifest.json").read_text())
        assert manifest["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
        assert (manifest["rows"], manifest["queries"]) == (rows, queries)
        assert manifest["rows"] == len(path.read_bytes().splitlines())
        assert manifest["missing"] == {"filtered": 1, "timeout": 2}
        assert manifest["grades"] == {"0": 2, "3": 1}
        assert manifest["ledger"] == {"schema_version": SCHEMA_VERSION, "queries": 2}
        assert [judge["model"] for judge in manifest["judges"]] == ["judge-1.5b"]


def test_no_manifest_before_the_last_byte(ledger: Ledger) -> None:
    ledger.commit([hard_set("q1")])
    export = Export(ledger, Request("docs", QRELS))
    with pytest.raises(InternalError):
        export.manifest()
    assert b"".join(export.chunks())
    assert export.manifest()["rows"] == export.tally.rows == 2
    assert export.tally.missing.total() == 1


def test_a_scale_without_a_relevant_grade_is_refused_naming_the_setting(ledger: Ledger) -> None:
    ledger.commit([judged_set(judge=dataclasses.replace(JUDGE, scale="stars"))])
    with pytest.raises(InputError, match="relevant_grades"):
        whole(ledger, TRIPLES)
    rules = MiningRules(relevant_grades={"stars": 3})
    assert len(triples(ledger, rules=rules)) == 1


def test_an_unknown_collection_is_refused_naming_those_that_there_are(ledger: Ledger) -> None:
    ledger.commit([judged_set()])
    with pytest.raises(UnknownCollection, match="holds docs"):
        whole(ledger, QRELS, "wiki")


def test_an_unknown_format_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InputError, match="use qrels, run, "):
        export_bytes(ledger, "docs", "parquet")


def test_a_failed_export_leaves_the_former_file_and_no_litter(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set()])
    folder = tmp_path / "out"
    export_file(ledger, "docs", QRELS, folder / "qrels")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    ledger.commit([judged_set("q2", judge=dataclasses.replace(JUDGE, scale="stars"))])
    with pytest.raises(InputError):
        export_file(ledger, "docs", TRIPLES, folder / "qrels", unmeasured=True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_place_that_cannot_be_written_is_named(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set()])
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendUnavailable, match="cannot write"):
        export_file(ledger, "docs", QRELS, tmp_path / "file" / "qrels")


def test_an_empty_export_is_refused_when_it_must_not_be_empty(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([judged_set(outcomes=[Missing("timeout")])])
    with pytest.raises(InputError, match="1 timeout"):
        export_file(ledger, "docs", QRELS, tmp_path / "qrels", allow_empty=False)
    assert not (tmp_path / "qrels").exists()
    assert export_file(ledger, "docs", QRELS, tmp_path / "qrels")["rows"] == 0


def test_an_export_is_one_snapshot_and_may_be_read_from_any_thread(ledger: Ledger) -> None:
    ledger.commit([judged_set(f"q{n:04d}", outcomes=[graded(1)] * 20) for n in range(600)])
    export = Export(ledger, Request("docs", QRELS))
    chunks = export.chunks()
    read = [next(chunks)]
    assert ledger.commit([judged_set("q9999")])[0].name == "COMMITTED"  # type: ignore[union-attr]
    with ThreadPoolExecutor(4) as pool:
        while (chunk := pool.submit(next, chunks, None).result()) is not None:
            read.append(chunk)
    assert len(read) > 2
    assert b"".join(read).count(b"\n") == export.tally.rows == 12_000


def test_memory_does_not_grow_with_the_ledger(sqlite_ledger: Ledger) -> None:
    def peak(queries: int) -> int:
        sqlite_ledger.commit([big(n) for n in range(queries)])
        tracemalloc.start()
        for _ in export_bytes(sqlite_ledger, "docs", TRIPLES, rules=LOOSE, unmeasured=True):
            pass
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    small = peak(130)
    assert peak(650) < 1.5 * small


def big(number: int) -> JudgedSet:
    record = judged_set(f"q{number:05d}", outcomes=[graded(3), *[graded(0)] * 5], prefix=f"doc{number}-")
    candidates = [
        Candidate(
            dataclasses.replace(c.passage, text=f"{c.passage.text} {'word ' * 100}") if c.sampled else c.passage,
            (Score(DENSE, 0.5, 1),),
            c.sampled,
        )
        for c in record.candidate_set.candidates
    ]
    return dataclasses.replace(
        record, candidate_set=dataclasses.replace(record.candidate_set, candidates=tuple(candidates))
    )

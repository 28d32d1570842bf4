"""What the systems returned and nobody judged, what is missing, and where labels come from."""

from __future__ import annotations

import pytest

from qrelay.labels.audit.breakdown import GROUPS, OTHERS, rank_bin
from qrelay.labels.ledger.ledger import Ledger
from qrelay.types import Missing
from tests.labels.audit.sets import HASH, Row, commit, graded_rows, record, report, value
from tests.labels.builders import OTHER_JUDGE, graded, judgment, relabelled


def test_judged_at_k_sees_holes(ledger: Ledger) -> None:
    rows = (
        Row("a", graded(3), bm25=1, dense=4),
        Row("b", Missing("timeout"), bm25=2, dense=1),
        Row("c", None, bm25=3, dense=0),
        Row("d", graded(0), bm25=30, dense=2),
    )
    commit(ledger, record("q1", *rows))
    found = report(ledger)
    # bm25 returned at least 30: of its top 5, one is graded; dense returned 4, of which two are
    assert found["checks"]["judged_at"] == {
        "bm25": {"queries": 1, "5": 0.2, "10": 0.1, "20": 0.05},
        "dense": {"queries": 1, "5": 0.5, "10": 0.5, "20": 0.5},
    }
    assert [value(found, f"judged@{k}") for k in (5, 10, 20)] == [0.2, 0.1, 0.05]


def test_judged_at_k_is_a_mean_over_queries(ledger: Ledger) -> None:
    commit(ledger, record("q1", Row("a", graded(1), bm25=1)), record("q2", Row("a", None, bm25=1)))
    assert report(ledger)["checks"]["judged_at"]["bm25"]["5"] == 0.5


def test_missing_pairs_are_counted_by_reason_and_a_later_grade_fills_them(ledger: Ledger) -> None:
    one = record("q1", Row("a", Missing("timeout")), Row("b", Missing("filtered")), Row("c", graded(0)))
    commit(ledger, one)
    found = report(ledger)
    assert found["checks"]["missing"] == {"pairs": 3, "missing": 2, "by_reason": {"filtered": 1, "timeout": 1}}
    assert value(found, "missing_share") == pytest.approx(2 / 3, abs=1e-6)
    ledger.rejudge([relabelled(one, judgment("a#0", graded(1), OTHER_JUDGE))])
    assert report(ledger)["checks"]["missing"]["by_reason"] == {"filtered": 1}


def test_the_cached_share_is_of_measurements(ledger: Ledger) -> None:
    commit(ledger, record("q1", Row("a", graded(1), cached=True), Row("b", graded(0)), Row("c", Missing("error"))))
    found = report(ledger)
    assert value(found, "cached_share") == pytest.approx(1 / 3, abs=1e-6)
    row = found["judges"][HASH]
    assert (row["measurements"], row["missing"], row["cached"], row["audited"]) == (3, 1, 1, True)


def test_labels_are_broken_down_by_source_judge_generation_and_system(ledger: Ledger) -> None:
    logs = record("q1", *graded_rows(3, 0), attributes={"source": "logs"})
    rows = (Row("a", graded(2), dense=3), Row("b", graded(0), bm25=2), Row("c", Missing("error"), bm25=9, dense=9))
    plain = record("q2", *rows)
    commit(ledger, logs, plain)
    ledger.rejudge([relabelled(plain, judgment("c#0", graded(0), OTHER_JUDGE))])
    found = report(ledger)["checks"]["sources"]
    by = found["by"]
    full = {"queries": 1, "pairs": 2, "graded": 2, "relevant": 1, "positives": 1, "negatives": 1}
    assert by["source"]["logs"] == full
    assert by["source"]["(none)"]["pairs"] == 3
    assert by["index_version"]["v1"]["queries"] == 2
    assert {name: row["pairs"] for name, row in by["generation"].items()} == {"0": 4, "1": 1}
    assert by["judge"][HASH]["pairs"] == 4
    assert {name: row["pairs"] for name, row in by["retrieved_by"].items()} == {
        "bm25": 1,
        "bm25+dense": 3,
        "dense": 1,
    }
    assert by["retrieved_by"]["dense"]["positives"] == 1


def test_negatives_are_counted_by_reason_and_positives_by_rank(ledger: Ledger) -> None:
    rows = (Row("a", graded(3), bm25=1, dense=12), Row("b", graded(3), bm25=2, dense=1), *[
        Row(f"n{i}", graded(0), bm25=0, dense=rank) for i, rank in enumerate((2, 15))
    ])  # fmt: skip
    commit(ledger, record("q1", *rows))
    found = report(ledger)
    counted = found["checks"]["sources"]
    assert (counted["negatives_by_reason"]["top_rank"], counted["negatives_by_reason"]["dense_only"]) == (1, 1)
    assert {name: n for name, n in counted["positives_by_rank"].items() if n} == {"1": 1, "11-20": 1}
    assert (value(found, "examples"), value(found, "positives"), value(found, "queries")) == (1, 2, 1)


def test_ranks_fall_into_bins() -> None:
    ranks = (1, 2, 5, 6, 10, 20, 50, 100, 101, float("inf"))
    expected = ["1", "2-5", "2-5", "6-10", "6-10", "11-20", "21-50", "51-100", "over 100", "unranked"]
    assert [rank_bin(rank) for rank in ranks] == expected


def test_a_flood_of_sources_is_counted_together_beyond_the_first(sqlite_ledger: Ledger) -> None:
    commit(
        sqlite_ledger,
        *[record(f"q{i:03}", Row("a", graded(0)), attributes={"source": f"s{i}"}) for i in range(GROUPS + 3)],
    )
    groups = report(sqlite_ledger)["checks"]["sources"]["by"]["source"]
    assert (len(groups), groups[OTHERS]["queries"]) == (GROUPS + 1, 3)

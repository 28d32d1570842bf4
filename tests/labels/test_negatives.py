"""benchmarks/negatives.py: the share of mined hard negatives that are gold answers."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from benchmarks.negatives import OFF, main, measure, read_gold, rules_with, variants
from qrelay.errors import InputError, MalformedInput
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.mining.rules import MiningRules
from tests.labels.builders import graded, judged_set

GOLD = "query-id\tcorpus-id\tscore\nq1\td1\t1\nq1\td2\t0\nq2\td0\t1\nq3\td2\t1\n"


@pytest.fixture
def gold_file(tmp_path: Path) -> Path:
    path = tmp_path / "gold.tsv.gz"
    path.write_bytes(gzip.compress(GOLD.encode()))
    return path


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    """q1: d1 is gold, and the judge overlooked it, in doubt; q2: all well; q3: no positive at all; q4: no gold."""
    doubtful = [graded(2, 0.6), graded(1, 0.35), graded(0)]
    ledger.commit([judged_set("q1", outcomes=doubtful), judged_set("q2"), judged_set("q3", outcomes=[graded(0)] * 3)])
    ledger.commit([judged_set("q4")])
    return ledger


def test_gold_is_what_has_a_score_above_zero(gold_file: Path) -> None:
    assert read_gold([gold_file]) == {"q1": {"d1"}, "q2": {"d0"}, "q3": {"d2"}}


def test_a_line_that_is_no_qrel_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gold.tsv"
    path.write_text("query-id\tcorpus-id\tscore\nq1 0 d1 1\n")
    with pytest.raises(MalformedInput, match=r"gold.tsv:2: 4 fields for 3 columns"):
        read_gold([path])


def test_false_negatives_are_counted_with_and_without_guards(filled: Ledger, gold_file: Path) -> None:
    queries, tallies = measure(filled, "docs", read_gold([gold_file]), MiningRules())
    counts = {name: (tally.examples, tally.mined, tally.mined_false) for name, tally in tallies.items()}
    assert queries == 3
    assert counts["no guards"] == (2, 6, 2)
    assert counts["only max_share_of_best"] == (2, 2, 0)
    assert counts["only confident_positive"] == (2, 3, 1)
    assert counts["all guards"] == (2, 2, 0)
    assert tallies["no guards"].exported_false == 1


def test_every_guard_is_measured_alone_and_left_out_alone() -> None:
    named = variants(rules_with(["guard_margin=0.1"]))
    assert set(named) == {"no guards", "all guards"} | {
        f"{how} {rule}" for how in ("only", "all but") for rule in OFF
    }


def test_a_rule_takes_another_number() -> None:
    assert rules_with(["agreement_rank=3", "siblings=0"]) == MiningRules(agreement_rank=3, siblings=False)
    assert rules_with(["0-3=3"]).relevant_grades == {"0-1": 1, "0-3": 3, "1-4": 3}
    with pytest.raises(InputError, match="there is no such rule"):
        rules_with(["wishes=3"])


def test_the_report_gives_shares_with_intervals(
    filled: Ledger, ledger_url: str, gold_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--ledger", ledger_url, "--collection", "docs", "--qrels", str(gold_file), "--show", "5"]
    main([*asked, "--json"])
    found = json.loads(capsys.readouterr().out)["variants"]
    mined = found["no guards"]["mined"]
    assert (mined["negatives"], mined["false"]) == (6, 2)
    assert mined["share"] == pytest.approx(1 / 3)
    assert mined["low"] < mined["share"] < mined["high"]
    assert [each["passage_id"] for each in found["no guards"]["false_negatives"]] == ["d1#0"]
    main(asked)
    assert "docs: 3 queries with gold" in capsys.readouterr().out

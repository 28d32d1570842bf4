"""The false-negative rate is that of a sampled second label, and of nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from qrelay.errors import InputError, UnknownCollection
from qrelay.identity import judge_digest
from qrelay.labels.audit.audit import Request, audit
from qrelay.labels.audit.false_negatives import Sample, SampledNegative
from qrelay.labels.audit.sample import draw, read_pairs, rejudge_command, write_sample
from qrelay.labels.importing import import_file
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.mining.rules import NEGATIVE, JudgedPassage, MiningRules, Verdict
from qrelay.types import Missing
from tests.labels.audit.sets import HASH, Row, commit, graded_rows, override, record, report, value
from tests.labels.builders import OTHER_JUDGE, graded, judgment, relabelled

AUDITOR = judge_digest(OTHER_JUDGE)


@pytest.fixture
def audited(ledger: Ledger) -> Ledger:
    """10 queries with 2 negatives each, of which a second judge graded those of 8, and found d1 of 2 relevant."""
    sets = [record(f"q{i}", *graded_rows(3, 0, 0)) for i in range(10)]
    commit(ledger, *sets)
    again = [
        relabelled(
            each,
            judgment("d1#0", graded(3 if i < 2 else 0), OTHER_JUDGE),
            judgment("d2#0", graded(1), OTHER_JUDGE),
        )
        for i, each in enumerate(sets[:8])
    ]
    assert ledger.rejudge(again) == [2] * 8
    return ledger


def test_the_rate_is_of_the_measured_with_wilsons_interval(audited: Ledger) -> None:
    found = report(audited, auditor=AUDITOR)
    check = found["checks"]["false_negatives"]
    counts = {name: check[name] for name in ("population", "sampled", "measured", "unmeasured", "false")}
    assert counts == {"population": 20, "sampled": 20, "measured": 16, "unmeasured": 4, "false": 2}
    assert value(found, "false_negative_rate") == 0.125
    # By hand: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n), p = 2/16, z = 1.96
    assert value(found, "false_negative_rate_low") == pytest.approx(0.0350, abs=1e-4)
    assert value(found, "false_negative_rate_high") == pytest.approx(0.3602, abs=1e-4)
    assert {(each["query_id"], each["passage_id"]) for each in check["examples"]} == {("q0", "d1#0"), ("q1", "d1#0")}


def test_the_rate_is_given_by_the_reason_that_chose_the_negative(ledger: Ledger) -> None:
    rows = graded_rows(3, 0, 0)
    rows[2] = Row("d2", graded(0), bm25=12)
    one = record("q1", *rows)
    commit(ledger, one)
    again = [judgment("d1#0", graded(0), OTHER_JUDGE), judgment("d2#0", graded(2), OTHER_JUDGE)]
    ledger.rejudge([relabelled(one, *again)])
    by_reason = report(ledger, auditor=AUDITOR)["checks"]["false_negatives"]["by_reason"]
    assert {name: (row["value"], row["n"]) for name, row in by_reason.items()} == {
        "top_rank": (0.0, 1),
        "bm25_only": (1.0, 1),
    }


def test_without_a_second_label_the_rate_is_not_measured_rather_than_zero(audited: Ledger) -> None:
    figure = report(audited)["figures"]["false_negative_rate"]
    assert (figure["value"], figure["low"], figure["n"]) == (None, None, None)
    assert "--auditor" in figure["why"]
    assert value(report(audited, overrides=True), "false_negative_rate") is None


def test_a_missing_second_label_is_unmeasured(ledger: Ledger) -> None:
    one = record("q1", *graded_rows(3, 0))
    commit(ledger, one)
    ledger.rejudge([relabelled(one, judgment("d1#0", Missing("timeout"), OTHER_JUDGE))])
    found = report(ledger, auditor=AUDITOR)
    assert (found["checks"]["false_negatives"]["unmeasured"], value(found, "false_negative_rate")) == (1, None)


def test_a_persons_override_is_a_second_label_before_the_auditors(audited: Ledger) -> None:
    override(audited, 1, "d1#0", 0)
    check = report(audited, auditor=AUDITOR, overrides=True)["checks"]["false_negatives"]
    assert (check["false"], check["by"]) == (1, {"auditor": 15, "human": 1})
    alone = report(audited, judge=HASH, overrides=True)["checks"]["false_negatives"]
    assert (alone["measured"], alone["false"]) == (1, 0)


def test_a_withdrawn_override_is_no_second_label(audited: Ledger) -> None:
    override(audited, 1, "d1#0", 3)
    override(audited, 1, "d1#0", None)
    assert value(report(audited, overrides=True), "false_negative_rate") is None


@pytest.mark.parametrize("judge", [AUDITOR, AUDITOR[:9]])
def test_an_auditor_that_made_the_audited_labels_is_refused(audited: Ledger, judge: str) -> None:
    with pytest.raises(InputError, match="agrees with itself"):
        report(audited, judge=judge, auditor=AUDITOR)


def test_an_auditor_that_made_all_labels_is_refused(ledger: Ledger) -> None:
    commit(ledger, record("q1", *graded_rows(3, 0)))
    with pytest.raises(InputError, match="made all labels"):
        report(ledger, auditor=HASH)


def test_an_unknown_collection_fails_in_words(audited: Ledger) -> None:
    with pytest.raises(UnknownCollection, match="docs"):
        audit(audited, "wiki", Request(), MiningRules())


def _negative(i: int) -> SampledNegative:
    (row,) = record("q", *graded_rows(0)).candidate_set.candidates
    return SampledNegative(f"q{i}", "", Verdict(JudgedPassage(row, 0, 0.1, "0-3"), NEGATIVE, "top_rank"))


def test_the_sample_does_not_depend_on_the_order_and_a_larger_one_contains_it() -> None:
    def ids(size: int, numbers: range, seed: int = 0) -> set[str]:
        sample = Sample(size, seed)
        for i in numbers:
            sample.add(_negative(i))
        return {each.query_id for each in sample.drawn()}

    assert ids(10, range(200)) == ids(10, range(199, -1, -1)) < ids(20, range(200))
    assert ids(10, range(200)) != ids(10, range(200), seed=1)
    assert len(ids(10, range(200))) == 10


def test_every_negative_is_as_likely_to_be_sampled() -> None:
    drawn = dict.fromkeys(range(20), 0)
    for seed in range(300):
        sample = Sample(5, seed)
        for i in drawn:
            sample.add(_negative(i))
        for each in sample.drawn():
            drawn[int(each.query_id[1:])] += 1
    # 75 expected of each; 5 standard deviations of a binomial(300, 1/4) are 37
    assert all(38 <= count <= 112 for count in drawn.values())


def test_the_sample_that_was_written_is_audited_even_where_negatives_came_since(
    audited: Ledger, tmp_path: Path
) -> None:
    request = Request(judge=HASH, sample_size=6)
    drawn, population = draw(audited, "docs", request, MiningRules())
    assert (len(drawn), population) == (6, 20)
    write_sample(tmp_path / "sample.tsv", drawn)
    pairs = read_pairs(tmp_path / "sample.tsv")
    assert pairs == [(each.query_id, each.passage_id) for each in drawn]
    commit(audited, *[record(f"later{i}", *graded_rows(3, 0)) for i in range(30)])
    check = report(audited, auditor=AUDITOR, pairs=[*pairs, ("q0", "d0#0")])["checks"]["false_negatives"]
    assert (check["sampled"], check["gone"], check["population"]) == (6, 1, 50)


def test_a_sample_that_people_filled_in_is_imported_and_audited(audited: Ledger, tmp_path: Path) -> None:
    drawn, _ = draw(audited, "docs", Request(judge=HASH, sample_size=5), MiningRules())
    path = tmp_path / "sample.tsv"
    write_sample(path, drawn)
    header, *rows = [line.split("\t") for line in path.read_text().splitlines()]
    for row, grade in zip(rows, ("3", "0", "1", "2", ""), strict=True):
        row[header.index("grade")] = grade
    path.write_text("\n".join("\t".join(row) for row in [header, *rows]) + "\n")
    written = import_file(audited, "docs", path, scale="0-3", author="ann").written
    assert written is not None
    assert written.added == 4
    check = report(audited, judge=HASH, overrides=True, pairs=read_pairs(path))["checks"]["false_negatives"]
    assert {name: check[name] for name in ("sampled", "measured", "false")} == {
        "sampled": 5,
        "measured": 4,
        "false": 2,
    }


def test_the_command_names_the_sample_and_nothing_else(tmp_path: Path) -> None:
    assert rejudge_command("docs", tmp_path / "a sample.tsv").endswith(
        f"--collection docs --pairs '{tmp_path}/a sample.tsv'"
    )

"""Which label counts where several judges labelled a pair, and what triples may lean on."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest

from qrelay.errors import InputError
from qrelay.identity import judge_digest
from qrelay.labels.exports.catalogue import QRELS, TRIPLES
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.mining.rules import MiningRules
from qrelay.types import Graded, JudgedSet, JudgeIdentity, Missing
from tests.labels.builders import (
    CASCADE,
    FUSED,
    JUDGE,
    LEANING,
    OTHER_JUDGE,
    graded,
    judged_set,
    judgment,
    relabelled,
    with_labels,
)
from tests.labels.exporting import export_bytes, export_file

LOST = Missing("timeout")


def grades(ledger: Ledger, judge: str | None = None) -> dict[str, int]:
    """passage_id -> grade of the qrels of q1."""
    lines = b"".join(export_bytes(ledger, "docs", QRELS, judge=judge)).decode().splitlines()
    return {passage: int(grade) for _, _, passage, grade in (line.split() for line in lines)}


def labelled(*labels: tuple[JudgeIdentity, Graded | Missing]) -> JudgedSet:
    """q1 with one passage d0#0, labelled by these judges."""
    record = judged_set(outcomes=[graded(0)])
    return relabelled(record, *(judgment("d0#0", outcome, judge) for judge, outcome in labels))


@pytest.mark.parametrize(
    ("stronger", "weaker"),
    [(CASCADE, FUSED), (FUSED, JUDGE), (CASCADE, OTHER_JUDGE)],
    ids=["cascade before fused", "fused before single", "cascade before single"],
)
def test_a_combined_label_counts_before_those_it_was_made_of(
    ledger: Ledger, stronger: JudgeIdentity, weaker: JudgeIdentity
) -> None:
    ledger.commit([labelled((weaker, graded(1)), (stronger, graded(3)))])
    assert grades(ledger) == {"d0#0": 3}


def test_a_cascades_missing_label_is_not_replaced_by_its_small_judges(ledger: Ledger) -> None:
    ledger.commit([labelled((CASCADE, LOST), (JUDGE, graded(3)))])
    assert grades(ledger) == {}


def test_of_one_kind_a_grade_counts_before_a_missing_one_and_then_the_lowest_hash(ledger: Ledger) -> None:
    low, high = sorted((JUDGE, OTHER_JUDGE), key=judge_digest)
    ledger.commit([labelled((low, LOST), (high, graded(2)))])
    assert grades(ledger) == {"d0#0": 2}
    other = dataclasses.replace(labelled((high, graded(2)), (low, graded(1))))
    query = dataclasses.replace(other.candidate_set.query, collection="more")
    ledger.commit([dataclasses.replace(other, candidate_set=dataclasses.replace(other.candidate_set, query=query))])
    assert b"".join(export_bytes(ledger, "more", QRELS)) == b"q1 0 d0#0 1\n"


@pytest.mark.parametrize("order", list(itertools.permutations((JUDGE, OTHER_JUDGE, FUSED))), ids=repr)
def test_the_order_of_a_panel_does_not_decide(tmp_path: Path, order: tuple[JudgeIdentity, ...]) -> None:
    values = {JUDGE: graded(0), OTHER_JUDGE: graded(1), FUSED: graded(2)}
    ledger = Ledger.open(tmp_path / "l.sqlite")
    ledger.commit([labelled(*((judge, values[judge]) for judge in order))])
    assert grades(ledger) == {"d0#0": 2}
    ledger.close()


def test_a_judge_is_named_by_the_beginning_of_its_hash_or_by_its_strategy(ledger: Ledger) -> None:
    binary = dataclasses.replace(JUDGE, strategy="binary")
    ledger.commit([labelled((JUDGE, graded(1)), (binary, graded(0)), (FUSED, graded(3)))])
    assert grades(ledger, judge_digest(JUDGE)[:10]) == {"d0#0": 1}
    assert grades(ledger, judge_digest(JUDGE)) == {"d0#0": 1}
    assert grades(ledger, "binary") == {"d0#0": 0}
    assert grades(ledger, "fused") == {"d0#0": 3}


def test_a_strategy_of_two_judges_is_refused_naming_both(ledger: Ledger) -> None:
    ledger.commit([labelled((JUDGE, graded(1)), (OTHER_JUDGE, graded(3)))])
    with pytest.raises(InputError, match=r"names 2 judges.*judge-1\.5b.*judge-7b|judge-7b.*judge-1\.5b"):
        grades(ledger, "graded")


def test_judges_of_other_collections_do_not_make_a_strategy_ambiguous(ledger: Ledger) -> None:
    ledger.commit([labelled((JUDGE, graded(1))), judged_set("w1", collection="wiki", judge=OTHER_JUDGE)])
    assert grades(ledger, "graded") == {"d0#0": 1}


@pytest.mark.parametrize("wanted", ["zz", "cascade", "query_likelihood"])
def test_an_unknown_judge_is_refused_naming_those_that_there_are(ledger: Ledger, wanted: str) -> None:
    ledger.commit([labelled((JUDGE, graded(1)))])
    with pytest.raises(InputError, match=r"graded, judge-1\.5b@r1:q4"):
        grades(ledger, wanted)


def triples(ledger: Ledger, rules: MiningRules, judge: str | None = None) -> list[dict[str, object]]:
    chunks = export_bytes(ledger, "docs", TRIPLES, rules=rules, judge=judge, unmeasured=True)
    return [json.loads(line) for line in b"".join(chunks).splitlines()]


def fused_set(fused: JudgeIdentity) -> JudgedSet:
    """Two passages that the single judge finds relevant and irrelevant, and a fused judge the other way round."""
    record = judged_set(outcomes=[graded(3), graded(0)])
    return with_labels(record, judgment("d0#0", graded(0), fused), judgment("d1#0", graded(3), fused))


WITHOUT = MiningRules(without_stage_scores=True, guard_ratio=1.0)
WITH = MiningRules(guard_ratio=1.0)


def positives(rows: list[dict[str, object]]) -> list[str]:
    return [each["passage_id"] for row in rows for each in row["positives"]]  # type: ignore[attr-defined]


def test_without_stage_scores_a_leaning_label_falls_through_to_the_next(ledger: Ledger) -> None:
    ledger.commit([fused_set(LEANING)])
    assert positives(triples(ledger, WITHOUT)) == ["d0#0"]
    assert grades(ledger) == {"d0#0": 0, "d1#0": 3}, "qrels are no training data"


def test_a_fused_label_that_leans_on_no_stage_score_counts_in_triples(ledger: Ledger) -> None:
    record = judged_set(outcomes=[graded(0), graded(3)])
    ledger.commit([with_labels(record, judgment("d0#0", graded(3), FUSED), judgment("d1#0", graded(0), FUSED))])
    assert positives(triples(ledger, WITHOUT)) == positives(triples(ledger, WITH)) == ["d0#0"]


def test_a_combined_judge_that_does_not_say_is_taken_to_lean(ledger: Ledger) -> None:
    ledger.commit([fused_set(dataclasses.replace(FUSED, decoding="of=a,b"))])
    assert positives(triples(ledger, WITHOUT)) == ["d0#0"]


def test_where_every_label_leans_the_export_is_refused_naming_the_setting(ledger: Ledger) -> None:
    ledger.commit([fused_set(LEANING)])
    with pytest.raises(InputError, match="without_stage_scores"):
        triples(ledger, WITHOUT, judge="fused")


def test_the_manifest_says_whether_labels_may_lean_and_whether_they_do(ledger: Ledger, tmp_path: Path) -> None:
    ledger.commit([fused_set(FUSED)])
    manifest = export_file(ledger, "docs", TRIPLES, tmp_path / "t", rules=WITHOUT, judge="graded", unmeasured=True)
    assert manifest["rules"]["without_stage_scores"] is True
    assert [each["stage_scores"] for each in manifest["qualification"]["judges"].values()] == [False]
    ledger.commit([dataclasses.replace(fused_set(LEANING), candidate_set=judged_set("q2").candidate_set)])
    manifest = export_file(ledger, "docs", QRELS, tmp_path / "q")
    assert {each["stage_scores"] for each in manifest["qualification"]["judges"].values()} == {True, False}

"""Near-duplicates are found by their words, within a query and among training passages."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from qrelay.labels.audit.audit import Request, audit
from qrelay.labels.audit.texts import NEAR, NearTexts, letter_shingles, minhash, text_key, word_shingles
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.mining.rules import MiningRules
from tests.labels.audit.sets import Row, commit, graded_rows, record, report, value
from tests.labels.builders import graded


def words(seed: int, count: int = 80) -> list[str]:
    rng = random.Random(seed)
    return [f"w{rng.randrange(10_000)}" for _ in range(count)]


def altered(seed: int, replaced: int) -> str:
    """The text with its last words replaced: of 78 shingles of three words so many are others."""
    return " ".join(words(seed)[: 80 - replaced] + [f"x{i}" for i in range(replaced)])


def test_estimated_similarity_is_near_the_true_one() -> None:
    one, other = word_shingles(" ".join(words(1))), word_shingles(altered(1, 10))
    true = len(one & other) / len(one | other)
    assert true == pytest.approx(68 / 88)
    assert minhash(one).jaccard(minhash(other)) == pytest.approx(true, abs=0.2)  # four standard errors


def test_texts_are_the_same_by_their_words_and_nothing_is_the_same_as_no_word() -> None:
    assert text_key("Open  a file!") == text_key("open a FILE") != text_key("open the file")
    assert (text_key("…"), word_shingles("…"), letter_shingles("…")) == (0, set(), set())


def test_the_nearest_known_text_is_found_and_a_far_one_is_not() -> None:
    known = NearTexts()
    for seed in range(50):
        known.put(str(seed), " ".join(words(seed)))
    found = known.meet("", altered(7, 2), remember=False)
    assert found is not None
    assert found[0] == "7"
    assert found[1] >= NEAR
    assert known.meet("", altered(7, 60), remember=False) is None
    assert len(known) == 50


def test_a_negative_near_a_positive_is_counted_and_shown(ledger: Ledger) -> None:
    rows = graded_rows(3, 0, 0, 0)
    texts = [" ".join(words(1)), altered(1, 1), " ".join(words(2)), altered(2, 1)]
    commit(ledger, record("q1", *[replace(row, text=text) for row, text in zip(rows, texts, strict=True)]))
    found = report(ledger)
    near = found["checks"]["near_duplicates"]
    roles = {name: near[name] for name in ("pairs", "conflicts", "positive_pairs")}
    assert roles == {"pairs": 2, "conflicts": 1, "positive_pairs": 0}
    (example,) = near["examples"]
    assert (example["passages"], example["grades"]) == (["d0#0", "d1#0"], [3, 0])
    assert value(found, "near_duplicate_conflicts") == 1
    assert value(found, "near_duplicate_negatives") == 0  # for mining leaves it out
    lenient = audit(ledger, "docs", Request(), MiningRules(near_duplicate=1.0))
    assert value(lenient, "near_duplicate_negatives") == 1


def test_training_passages_are_compared_across_queries_up_to_the_limit(ledger: Ledger) -> None:
    for i, text in enumerate([" ".join(words(5)), altered(5, 1), " ".join(words(6))]):
        positive = Row("p", graded(3), "one answer for all", 1, 1)
        commit(ledger, record(f"q{i}", positive, Row(f"n{i}", graded(0), text, 2, 2)))
    training = {"passages": 4, "near_duplicates": 1, "complete": True}
    found = report(ledger)
    assert found["checks"]["near_duplicates"]["training"] == training
    assert value(found, "near_duplicate_share") == 0.25
    limited = report(ledger, limit=2)["checks"]["near_duplicates"]["training"]
    assert limited == {"passages": 2, "near_duplicates": 0, "complete": False}


def test_without_an_example_there_is_nothing_to_compare(ledger: Ledger) -> None:
    commit(ledger, record("q1", Row("a", graded(3), dense=1)))
    assert value(report(ledger), "near_duplicate_share") is None

"""Near-duplicates in mining: of a positive, and among negatives."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrelay.labels.mining.mine import mine
from qrelay.labels.mining.rules import NEGATIVE, NEITHER, POSITIVE, MiningRules
from qrelay.labels.mining.texts import jaccard, normalised, shingles
from tests.labels.test_mining import judged, positive, verdict_on

RULES = MiningRules()
WORDS = [f"w{i}" for i in range(40)]
TEXT = " ".join(WORDS)
ALMOST = " ".join(["other", *WORDS[1:]])
"""37 of 39 shingles of three words are shared."""


def similarity(one: str, other: str) -> float:
    return jaccard(shingles(normalised(one)), shingles(normalised(other)))


def test_similarity_is_the_share_of_common_shingles() -> None:
    assert similarity(TEXT, TEXT) == 1.0
    assert similarity(TEXT, ALMOST) == pytest.approx(37 / 39)
    assert similarity("a b c d", "d c b a") == 0.0
    assert similarity("a b", "A, b!") == 1.0
    assert similarity("", "") == 0.0


@pytest.mark.parametrize(("threshold", "reason"), [(0.9, "near_duplicate_of_positive"), (0.96, "top_rank")])
def test_a_passage_almost_like_a_positive_is_no_negative(threshold: float, reason: str) -> None:
    rules = replace(RULES, near_duplicate=threshold)
    assert verdict_on("d", positive(text=TEXT), judged("d", text=ALMOST), rules=rules)[1] == reason


def test_the_verdict_names_the_most_similar_positive_and_how_similar_it_is() -> None:
    nearer = " ".join([*WORDS[:-1], "more"])
    passages = [positive("a", text=" ".join([*WORDS[:-4], "x"])), positive("b", text=TEXT), judged("d", text=nearer)]
    found = mine(passages, RULES)[-1]
    assert (found.reason, found.because.other) == ("near_duplicate_of_positive", "b#0")
    assert found.because.value == pytest.approx(37 / 39)


def test_of_negatives_that_are_almost_the_same_the_hardest_stays() -> None:
    verdicts = mine([positive(), judged("a", dense=2, text=ALMOST), judged("b", dense=1, text=TEXT)], RULES)
    reasons = {v.passage_id: (v.role, v.reason) for v in verdicts}
    assert reasons["b#0"] == (NEGATIVE, "top_rank")
    assert reasons["a#0"] == (NEITHER, "near_duplicate_of_negative")


def test_an_easy_negative_is_no_copy_of_a_hard_one() -> None:
    passages = positive(), judged("h", text=TEXT), judged("e", dense=30, bm25=30, p=0.01, text=ALMOST)
    assert verdict_on("e", *passages) == (NEITHER, "not_hard")


@given(
    st.lists(st.lists(st.sampled_from("abcd"), max_size=9).map(" ".join), min_size=1, max_size=9),
    st.integers(0, 8),
)
def test_no_negative_is_a_near_duplicate_of_a_positive_or_of_another_negative(texts: list[str], good: int) -> None:
    rules = replace(RULES, near_duplicate=0.5)
    pool = [
        positive(f"p{i}", text=text, dense=i + 1)
        if i == good % len(texts)
        else judged(f"n{i}", text=text, dense=i + 1)
        for i, text in enumerate(texts)
    ]
    verdicts = mine(pool, rules)
    positives = [v.judged.candidate.passage.text for v in verdicts if v.role == POSITIVE]
    negatives = [v.judged.candidate.passage.text for v in verdicts if v.role == NEGATIVE]
    for i, text in enumerate(negatives):
        assert all(similarity(text, other) < 0.5 for other in positives + negatives[:i])

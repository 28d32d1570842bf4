"""A ledger that holds the toy task of `tiny`, judged."""

from __future__ import annotations

from pathlib import Path

from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.types import BM25, DENSE, Candidate, CandidateSet, JudgedSet, JudgeIdentity, Passage, Query, Score
from tests.labels.builders import NOW, graded, judgment
from tests.training import tiny

COLLECTION = "toy"
MINER = JudgeIdentity("miner-7b", "r1", "q4", "p" * 64, "graded", "0-3", "n=1")
WORDINGS = ("capital of country c{}", "country c{} capital", "c{} capital", "c{} has a capital in")
"""None of them is one of `sets.toy`'s."""


def toy_set(query_id: str, n: int, text: str) -> JudgedSet:
    """The right answer fourth, behind three that repeat the question."""
    right, *wrong = [each["text"] for each in tiny.answers(n)]
    candidates = [
        Candidate(
            Passage(text.replace(" ", "-"), text.replace(" ", "-"), "", text),
            (Score(BM25, 20.0 - i, i + 1), Score(DENSE, 0.9 - i / 10, i + 1)),
            True,
        )
        for i, text in enumerate([*wrong, right])
    ]
    query = Query(query_id, text, COLLECTION, NOW, {}, ())
    labels = tuple(
        judgment(each.passage.passage_id, graded(3 if each.passage.text == right else 0), MINER)
        for each in candidates
    )
    return JudgedSet(CandidateSet(query, tuple(candidates), "v1"), labels)


def toy_ledger(path: Path, wordings: tuple[str, ...] = WORDINGS) -> Path:
    """Every wording of every question."""
    ledger = Ledger.open(str(path))
    try:
        sets = [toy_set(f"w{w}q{n}", n, text.format(n)) for w, text in enumerate(wordings) for n in range(tiny.COUNT)]
        assert set(ledger.commit(sets)) == {CommitStatus.COMMITTED}
    finally:
        ledger.close()
    return path

"""A large ledger as the console meets it: two judges that differ, missing judgments, rounds, people, dead letters.

    python -m benchmarks.console_ledger PLACE [--judgments 1000000]

Queries with 40 candidates, of which 12 have a text of about 1 KB and two judges' labels: 24 judgments a query. One in
fifty judgments is missing, one query in a hundred has people's grades on a few pairs, one in twenty is of a later
round, and one in twenty ended as a dead letter.
"""

from __future__ import annotations

import argparse
import random
from datetime import timedelta
from pathlib import Path
from typing import Final

from qrelay.labels.ledger import overrides
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.labels.ledger.overrides import NewOverride
from qrelay.labels.ledger.times import moment
from qrelay.types import (
    SYSTEMS,
    Candidate,
    CandidateSet,
    DeadLetter,
    Graded,
    JudgedSet,
    JudgeIdentity,
    Judgment,
    Missing,
    Passage,
    Query,
    Score,
    with_reason,
)

COLLECTIONS: Final = ("bench", "bench", "bench", "bench", "small")
JUDGES: Final = (
    JudgeIdentity("judge-1.5b", "r1", "q4", "p" * 64, "query_likelihood", "0-3", "n=1"),
    JudgeIdentity("judge-0.5b", "r1", "q8", "r" * 64, "graded", "0-3", "n=1"),
)
PEOPLE: Final = ("ana", "ben", "chloe")
JUDGED: Final = 12
_NOW = moment(1_767_323_045_678_901)
_WORDS: Final = [f"{a}{b}{c}" for a in "bdfgklmn" for b in ("a", "e", "io", "ou") for c in ("ra", "tin", "lo", "ser")]


class Sets:
    """Makes sets cheaply: from a pool of candidates and outcomes."""

    def __init__(self, passages: int = 20_000) -> None:
        self._rng = rng = random.Random(7)
        self._pool = [self._candidate(number) for number in range(passages)]
        self._outcomes = [_outcome(rng) for _ in range(997)]

    def _candidate(self, number: int) -> Candidate:
        document = f"library/doc{number // 25}.html"
        text = " ".join(self._rng.choices(_WORDS, k=160))
        return Candidate(Passage(f"{document}#{number % 25}", document, f"About {document}", text), (), True)

    def make(self, number: int) -> JudgedSet:
        """The set of query number `number`."""
        rng = self._rng
        chosen = rng.sample(self._pool, 40)
        candidates = tuple(self._place(each.passage, place) for place, each in enumerate(chosen))
        judgments = tuple(
            Judgment(
                each.passage.passage_id, f"{rng.getrandbits(256):064x}", rng.choice(self._outcomes), judge, _NOW,
                False, with_reason("2", "it names the dose" if judge is JUDGES[1] else ""), 300,
            )
            for each in candidates[:JUDGED]
            for judge in JUDGES
        )  # fmt: skip
        query = Query(
            f"q{number:08d}", f"how do I {' '.join(rng.choices(_WORDS, k=5))} {number}?", COLLECTIONS[number % 5],
            _NOW + timedelta(seconds=number), round=int(number % 20 == 0),
        )  # fmt: skip
        return JudgedSet(CandidateSet(query, candidates, "v1"), judgments)

    def _place(self, passage: Passage, place: int) -> Candidate:
        scores = tuple(Score(system, self._rng.random() * 10, 1 + (place * 7) % 40) for system in SYSTEMS)
        text = passage if place < JUDGED else Passage(passage.passage_id, passage.doc_id, "", "")
        return Candidate(text, scores, place < JUDGED)


def _outcome(rng: random.Random) -> Graded | Missing:
    if rng.random() < 0.02:
        return Missing("timeout", "no answer in 30 s")
    weights = [rng.random() ** 3 for _ in range(4)]
    p = tuple(weight / sum(weights) for weight in weights)
    expected = sum(grade * share for grade, share in enumerate(p))
    return Graded(p.index(max(p)), 0, p, expected, 0.9, p[2] + p[3])


def fill(ledger: Ledger, judgments: int, batch: int = 256) -> int:
    """Commits that many judgments with what people and failures add; says how many queries there are."""
    sets, count = Sets(), max(1, judgments // (JUDGED * len(JUDGES)))
    for start in range(0, count, batch):
        made = [sets.make(number) for number in range(start, min(start + batch, count))]
        assert set(ledger.commit(made)) == {CommitStatus.COMMITTED}
        _people(ledger, [each for number, each in enumerate(made, start) if number % 100 == 0])
        ledger.record_dead_letters(
            [_letter(number) for number in range(start, start + len(made)) if number % 20 == 1]
        )
    return count


def _people(ledger: Ledger, sets: list[JudgedSet]) -> None:
    with ledger.writing("record overrides") as connection:
        for number, each in enumerate(sets):
            query = each.candidate_set.query
            for place, candidate in enumerate(each.candidate_set.candidates[:6]):
                for author in PEOPLE[: 1 + place % 3]:
                    grade = (number + place + len(author)) % 4
                    wanted = NewOverride(
                        query.query_id, candidate.passage.passage_id, grade, "0-3", author, "as read"
                    )
                    overrides.add(connection, query.collection, [wanted], ledger.now_us())


def _letter(number: int) -> DeadLetter:
    return DeadLetter(
        f"dead{number}", "judge", COLLECTIONS[number % 5], f"d{number:08d}", f"a text that failed {number}",
        "timeout", "no answer in 30 s", 5, _NOW, "qrelay.v1.bench.reranked", {}, b"x" * 1000,
    )  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("place", help="A path or a URL.")
    parser.add_argument("--judgments", type=int, default=1_000_000)
    arguments = parser.parse_args()
    ledger = Ledger.open(arguments.place if "://" in arguments.place else Path(arguments.place))
    print(f"{fill(ledger, arguments.judgments)} queries in {ledger.url}")
    ledger.close()


if __name__ == "__main__":
    main()

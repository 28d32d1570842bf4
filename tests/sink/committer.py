"""A process that commits judged sets and says so: `python -m tests.sink.committer LEDGER FIRST LAST BATCH`.

Prints each query_id after `commit` returned it as committed or a duplicate, flushed, so that what was
printed was acknowledged. The set of a number is the same in every process, and so is its half: a set is
whole when it has all of SIZE judgments.
"""

from __future__ import annotations

import sys

from qrelay.types import JudgedSet
from services.sink.ledger.ledger import CommitStatus, Ledger
from tests.sink.builders import graded, judged_set

SIZE = 8


def made(number: int) -> JudgedSet:
    return judged_set(f"q{number:05d}", outcomes=[graded(number % 4)] * SIZE)


def main() -> None:
    path, first, last, batch = sys.argv[1], *map(int, sys.argv[2:])
    ledger = Ledger.open(path)
    for start in range(first, last, batch):
        sets = [made(number) for number in range(start, min(start + batch, last))]
        results = ledger.commit(sets)
        for record, result in zip(sets, results, strict=True):
            assert isinstance(result, CommitStatus), result
            print(record.candidate_set.query.query_id, result.value, flush=True)


if __name__ == "__main__":
    main()

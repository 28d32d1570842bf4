"""A process that commits judged sets and says so: `python -m tests.labels.committer LEDGER FIRST LAST BATCH`.

Prints each query_id after `commit` returned it as committed or a duplicate, flushed, so that what was
printed was acknowledged. A set for which the database is unavailable is tried again, as a queue would deliver it
again. The set of a number is the same in every process, and so is its half: a set is whole when it has all of SIZE
judgments.
"""

from __future__ import annotations

import sys
import time

from qrelay.errors import BackendUnavailable
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.types import JudgedSet
from tests.labels.builders import graded, judged_set

SIZE = 8
TRIES = 100


def made(number: int) -> JudgedSet:
    return judged_set(f"q{number:05d}", outcomes=[graded(number % 4)] * SIZE)


def commit(ledger: Ledger, sets: list[JudgedSet]) -> None:
    for _ in range(TRIES):
        results = ledger.commit(sets)
        for record, result in zip(sets, results, strict=True):
            if isinstance(result, CommitStatus):
                print(record.candidate_set.query.query_id, result.value, flush=True)
        failed = [result for result in results if not isinstance(result, CommitStatus)]
        assert all(isinstance(result, BackendUnavailable) for result in failed), failed
        sets = [record for record, result in zip(sets, results, strict=True) if result in failed]
        if not sets:
            return
        time.sleep(0.1)
    raise SystemExit(f"still unavailable: {failed[0]}")


def main() -> None:
    path, first, last, batch = sys.argv[1], *map(int, sys.argv[2:])
    ledger = Ledger.open(path)
    for start in range(first, last, batch):
        commit(ledger, [made(number) for number in range(start, min(start + batch, last))])


if __name__ == "__main__":
    main()

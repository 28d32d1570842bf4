"""What a commit and an export cost: `python -m tests.sink.bench_ledger [--sets 1280] [--batch 32]`.

Each set has 40 candidates with four systems' scores, 25 of them with about 1 KB of text and a judgment.
Prints CPU and wall microseconds a set, bytes a set, and the same candidates written as one row a
candidate and system instead of one packed row a query: the figures behind `services/sink/ledger/schema.py`.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import sqlalchemy as sa

from qrelay.types import SYSTEMS, Candidate, CandidateSet, Graded, JudgedSet, Judgment, Passage, Query, Score
from services.sink.exports.export import FORMATS, export_file
from services.sink.ledger.database import writing
from services.sink.ledger.ledger import CommitStatus, Ledger
from tests.sink.builders import JUDGE, NOW

_WORDS = [f"w{number:05d}" for number in range(20_000)]


def judged_set(number: int, rng: random.Random) -> JudgedSet:
    """One set as the judge sends it: texts only of the sampled 25."""
    candidates, judgments = [], []
    for i in range(40):
        document = f"library/doc{rng.randrange(3000)}.html"
        text = " ".join(random.Random(f"{document}{i}").choices(_WORDS, k=160)) if i < 25 else ""
        scores = tuple(Score(system, rng.random() * 10, i + 1) for system in SYSTEMS)
        candidates.append(Candidate(Passage(f"{document}#{i}", document, "a title", text), scores, i < 25))
        if i < 25:
            weights = [rng.random() for _ in range(4)]
            p = tuple(weight / sum(weights) for weight in weights)
            outcome = Graded(p.index(max(p)), 0, p, 1.5, 0.9, p[2] + p[3])
            key = f"{rng.getrandbits(256):064x}"
            judgments.append(Judgment(f"{document}#{i}", key, outcome, JUDGE, NOW, False, "2", 300))
    query = Query(f"q{number}", f"how do I {rng.choice(_WORDS)} {number}?", "bench", NOW)
    return JudgedSet(CandidateSet(query, tuple(candidates), "v1"), tuple(judgments))


def timed(work: Callable[[], object], per: int) -> str:
    """CPU and wall microseconds a piece."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return f"{cpu / per * 1e6:7.0f} us CPU, {wall / per * 1e6:7.0f} us wall"


def as_rows(ledger: Ledger, sets: list[JudgedSet], batch: int) -> None:
    """The alternative: a row a candidate and system."""
    table = sa.Table(
        "candidate_rows",
        sa.MetaData(),
        sa.Column("query_no", sa.Integer, primary_key=True),
        sa.Column("passage_id", sa.Text, primary_key=True),
        sa.Column("system", sa.Text, primary_key=True),
        sa.Column("score", sa.Float),
        sa.Column("rank", sa.Integer),
        sqlite_with_rowid=False,
    )
    table.create(ledger._engine)
    for start in range(0, len(sets), batch):
        rows = [
            {"query_no": start + n, "passage_id": c.passage.passage_id, "system": s.system, "score": s.score,
             "rank": s.rank}
            for n, judged in enumerate(sets[start : start + batch])
            for c in judged.candidate_set.candidates
            for s in c.scores
        ]  # fmt: skip
        with writing(ledger._engine) as connection:
            connection.execute(table.insert(), rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1280)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    rng, count, batch = random.Random(1), arguments.sets, arguments.batch
    sets = [judged_set(number, rng) for number in range(count)]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        path = Path(folder) / "ledger.sqlite"
        ledger = Ledger.open(path)

        def commit(expected: CommitStatus) -> None:
            for start in range(0, count, batch):
                results = ledger.commit(sets[start : start + batch])
                assert all(result is expected for result in results), results

        print(f"{count} sets in batches of {batch}, a set:")
        print("commit          ", timed(lambda: commit(CommitStatus.COMMITTED), count))
        print("commit again    ", timed(lambda: commit(CommitStatus.DUPLICATE), count))
        with writing(ledger._engine) as connection:
            packed = connection.exec_driver_sql("SELECT avg(length(packed)) FROM candidate_sets").scalar()
        for kind in FORMATS:
            print(f"export {kind:9}", timed(partial(export_file, ledger, "bench", kind, path.with_name(kind)), count))
        before = path.stat().st_size
        print(f"{before / count:.0f} bytes a set, of which {packed:.0f} are packed candidates")
        print("candidate rows  ", timed(lambda: as_rows(ledger, sets, batch), count), "more, instead of packing")
        ledger.close()  # moves the log into the file
        print(f"{(path.stat().st_size - before) / count:.0f} bytes a set as rows (an upper bound: it holds the log)")


if __name__ == "__main__":
    main()

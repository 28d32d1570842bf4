"""Does a ledger stay fast as it grows? Bytes a judgment, and what commits and reads cost, from the beginning on.

    python -m benchmarks.ledger_growth [--judgments 1000000] [--batch 256] [--databases sqlite postgresql] [--json]

Sets of 25 judgments and 40 candidates over a collection of 20,000 passages of about 1 KB, whose texts are all in the
ledger after the first thousand sets, as with any corpus that is smaller than its queries times 25. Rates leave out
the making of the sets. Reads are the median of nine, each of another query: `stats` counts the collection, `lookup`
reads one judged set whole, `page` reads 256 queries with their labels from somewhere on, as an export does.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.ledger import JUDGE, a_server, fresh_database, judged_set
from benchmarks.processes import environment
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.labels.ledger.retention import compact, disk_bytes, table_bytes
from qrelay.labels.ledger.times import moment
from qrelay.types import Candidate, CandidateSet, Graded, JudgedSet, Judgment, Passage, Query, Score

STEPS = 10
_NOW = moment(1_767_323_045_678_901)


class Sets:
    """Makes sets cheaply: from a pool of candidates and outcomes."""

    def __init__(self, passages: int = 20_000) -> None:
        self._rng = rng = random.Random(7)
        words = [f"w{number:05d}" for number in range(20_000)]
        self._pool = []
        for number in range(passages):
            document = f"library/doc{number // 25}.html"
            text = " ".join(rng.choices(words, k=160))
            scores = tuple(Score(name, rng.random() * 10, 1 + rng.randrange(40)) for name in ("bm25", "dense"))
            self._pool.append(
                Candidate(Passage(f"{document}#{number % 25}", document, "a title", text), scores, True)
            )
        self._outcomes: list[Graded] = [
            judgment.outcome for judgment in judged_set(0, rng).judgments if isinstance(judgment.outcome, Graded)
        ]

    def make(self, number: int) -> JudgedSet:
        """The set of query number `number`."""
        rng = self._rng
        candidates = tuple(rng.sample(self._pool, 40))
        judgments = tuple(
            Judgment(c.passage.passage_id, f"{rng.getrandbits(256):064x}", outcome, JUDGE, _NOW, False, "2", 300)
            for c, outcome in zip(candidates, self._outcomes, strict=False)
        )
        query = Query(f"q{number:08d}", f"how do I open file {number}?", "bench", _NOW)
        return JudgedSet(CandidateSet(query, candidates, "v1"), judgments)


def grow(ledger: Ledger, sets: Sets, count: int, batch: int) -> list[dict[str, Any]]:
    """Commits `count` sets and measures after each of STEPS steps."""
    found = []
    for step in range(STEPS):
        first, last = count * step // STEPS, count * (step + 1) // STEPS
        spent = cpu = 0.0
        for start in range(first, last, batch):
            made = [sets.make(number) for number in range(start, min(start + batch, last))]
            began, before = time.perf_counter(), time.process_time()
            assert set(ledger.commit(made)) == {CommitStatus.COMMITTED}
            spent += time.perf_counter() - began
            cpu += time.process_time() - before
        found.append(
            {"judgments": last * 25, "sets_per_second": (last - first) / spent,
             "cpu_ms_per_set": cpu / (last - first) * 1000,
             "bytes_per_judgment": disk_bytes(ledger) / (last * 25), **reads(ledger, last)}
        )  # fmt: skip
    return found


def reads(ledger: Ledger, count: int) -> dict[str, float]:
    """Milliseconds of three reads on a ledger of `count` queries."""
    rng = random.Random(count)

    def lookup() -> None:
        with ledger.snapshot() as snapshot:
            assert snapshot.judged_set("bench", f"q{rng.randrange(count):08d}")

    def page() -> None:
        with ledger.snapshot() as snapshot:
            after = f"q{rng.randrange(count // 2):08d}"
            labelled = snapshot.labelled_queries("bench", candidates=False, after=after)
            assert sum(len(query.labels) for query in itertools.islice(labelled, 256)) > 0

    return {
        "stats_ms": _median_ms(lambda: ledger.stats("bench")),
        "lookup_ms": _median_ms(lookup),
        "page_ms": _median_ms(page),
    }


def _median_ms(work: Callable[[], object]) -> float:
    times = []
    for _ in range(9):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def measure(url: str | Path, judgments: int, batch: int) -> dict[str, Any]:
    """One database from empty to full, then compacted."""
    ledger = Ledger.open(url)
    steps = grow(ledger, Sets(), judgments // 25, batch)
    began = time.perf_counter()
    compact(ledger)
    after = {"compact_s": time.perf_counter() - began, **reads(ledger, judgments // 25)}
    after["bytes_per_judgment"] = disk_bytes(ledger) / judgments
    parts = {name: size / judgments for name, size in table_bytes(ledger).items()}
    ledger.close()
    return {"steps": steps, "compacted": after, "bytes_per_judgment_by_part": parts}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgments", type=int, default=1_000_000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--databases", nargs="+", choices=["sqlite", "postgresql"], default=["sqlite", "postgresql"])
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found: dict[str, Any] = {"environment": environment(), "batch": arguments.batch}
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in arguments.databases:
            server = stack.enter_context(a_server()) if name == "postgresql" else ""
            url = fresh_database(server, "grown") if server else folder / "grown.sqlite"
            found[name] = measure(url, arguments.judgments, arguments.batch)
            if not arguments.json:
                _print(name, found[name])
    if arguments.json:
        print(json.dumps(found, indent=2))


def _print(name: str, found: dict[str, Any]) -> None:
    print(f"{name}\n  judgments   sets/s  CPU ms/set  bytes/judgment  stats ms  lookup ms  page ms")
    for step in found["steps"]:
        print(
            f"  {step['judgments']:9} {step['sets_per_second']:8.0f} {step['cpu_ms_per_set']:11.2f}"
            f" {step['bytes_per_judgment']:15.0f} {step['stats_ms']:9.1f} {step['lookup_ms']:10.1f}"
            f" {step['page_ms']:8.1f}",
            flush=True,
        )
    after = found["compacted"]
    print(
        f"  compacted in {after['compact_s']:.0f} s: {after['bytes_per_judgment']:.0f} bytes a judgment, stats"
        f" {after['stats_ms']:.1f} ms, lookup {after['lookup_ms']:.1f} ms, page {after['page_ms']:.1f} ms"
    )


if __name__ == "__main__":
    main()

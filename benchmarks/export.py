"""What an export costs: rows a second and peak memory, from a ledger with very many judgments.

    python -m benchmarks.export --judgments 1000000 [--out results.json] [--keep FOLDER]

Commits queries with 25 judgments each (40 candidates, four systems, texts of 120 words that queries share) through
`Ledger.commit`, then exports in a process of its own per format, whose peak resident memory is Linux's VmHWM: of that
process alone, imports included (getrusage would count its parent's too); `start` is its memory before it reads a row.
Exports a fiftieth first, to show what grows with the ledger.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.processes import environment, peak_rss_mib
from qrelay.labels.exports.request import Options, Request
from qrelay.labels.exports.splits import parse_splits
from qrelay.labels.ledger.ledger import Ledger
from qrelay.types import SYSTEMS, Candidate, CandidateSet, Graded, JudgedSet, JudgeIdentity, Judgment, Passage, Query
from qrelay.types import Score as SystemScore

COLLECTION = "bench"
JUDGMENTS, CANDIDATES, BATCH = 25, 40, 128
DOCUMENTS, WORDS = 50_000, 120
JUDGE = JudgeIdentity("bench", "r1", "q4", "p" * 64, "graded", "0-3", "n=1")
CASES: dict[str, dict[str, Any]] = {
    "qrels": {},
    "triples": {},
    "st-triplet": {},
    "beir": {},
    "qrels, splits by document": {"splits": "train=0.8,dev=0.1,test=0.1"},
}


def texts() -> list[str]:
    """The passages of the corpus."""
    rng = random.Random(1)
    words = [f"w{number:05d}" for number in range(20_000)]
    return [" ".join(rng.choices(words, k=WORDS)) for _ in range(DOCUMENTS)]


def judged_set(number: int, corpus: list[str], now: Any) -> JudgedSet:
    """A query: about one passage in six is relevant."""
    rng = random.Random(number)
    chosen = rng.sample(range(DOCUMENTS), CANDIDATES)
    candidates, judgments = [], []
    for place, document in enumerate(chosen):
        judged = place < JUDGMENTS
        passage = Passage(f"d{document}#0", f"d{document}", f"title {document}", corpus[document] if judged else "")
        scores = tuple(SystemScore(system, rng.random() * 10, place + 1) for system in SYSTEMS)
        candidates.append(Candidate(passage, scores, judged))
        if judged:
            grade = rng.choices(range(4), weights=(10, 5, 2, 1))[0]
            p_relevant = (grade + rng.random()) / 4
            shares = tuple(0.7 if each == grade else 0.1 for each in range(4))
            outcome = Graded(grade, 0, shares, float(grade), 0.94, p_relevant)
            judgments.append(Judgment(passage.passage_id, f"{number:032x}{place:032x}", outcome, JUDGE, now))
    query = Query(f"q{number:07d}", f"how do I {number} with {rng.random()}?", COLLECTION)
    return JudgedSet(CandidateSet(query, tuple(candidates), "v1"), tuple(judgments))


def fill(ledger: Ledger, first: int, last: int, corpus: list[str]) -> float:
    """Commits these queries; seconds."""
    from datetime import UTC, datetime

    now, started = datetime.now(UTC), time.perf_counter()
    for start in range(first, last, BATCH):
        ledger.commit([judged_set(n, corpus, now) for n in range(start, min(start + BATCH, last))])
    return time.perf_counter() - started


def measure(ledger: Path, case: str, place: Path) -> dict[str, Any]:
    """One export, in this process."""
    from qrelay.labels.exports.export import write_export

    choices, kind = CASES[case], case.split(",")[0]
    splits = parse_splits(choices["splits"]) if "splits" in choices else None
    opened, before = Ledger.open(ledger, create=False), peak_rss_mib(os.getpid())
    started = time.perf_counter()
    request = Request(COLLECTION, kind, splits=splits, unmeasured=True, options=Options())
    manifest = write_export(opened, request, place, record=False)
    seconds = time.perf_counter() - started
    opened.close()
    size = sum(each["bytes"] for each in manifest["files"].values())
    judgments = sum(manifest["grades"].values())
    return {"case": case, "judgments": judgments, "rows": manifest["rows"], "queries": manifest["queries"],
            "bytes": size, "seconds": round(seconds, 1), "rows_per_s": round(manifest["rows"] / seconds),
            "judgments_per_s": round(judgments / seconds), "start_mib": round(before),
            "peak_mib": round(peak_rss_mib(os.getpid()))}  # fmt: skip


def in_a_child(ledger: Path, case: str, place: Path) -> dict[str, Any]:
    """`measure`, in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.export", "--child", case, str(ledger), str(place)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def run(judgments: int, folder: Path) -> list[dict[str, Any]]:
    """Every case on a fiftieth and on the whole."""
    queries, corpus, done, rows = judgments // JUDGMENTS, texts(), 0, []
    ledger = Ledger.open(folder / "ledger.sqlite")
    for upto in (queries // 50, queries):
        seconds = fill(ledger, done, upto, corpus)
        print(f"committed {upto - done} queries in {seconds:.0f} s", file=sys.stderr)
        done = upto
        for number, case in enumerate(CASES):
            rows.append(in_a_child(folder / "ledger.sqlite", case, folder / f"out{number}"))
            print("{case:28} {judgments:>9} judgments {rows:>9} rows {rows_per_s:>8} rows/s {judgments_per_s:>8}"
                  " judgments/s  start {start_mib} MiB  peak {peak_mib} MiB".format(**rows[-1]))  # fmt: skip
    ledger.close()
    return rows


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--judgments", type=int, default=100_000)
    parser.add_argument("--out", type=Path, help="results as JSON")
    parser.add_argument("--keep", type=Path, help="folder for the ledger and the exports, which stay")
    parser.add_argument("--child", nargs=3, metavar=("CASE", "LEDGER", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        case, ledger, place = arguments.child
        print(json.dumps(measure(Path(ledger), case, Path(place))))
        return
    with tempfile.TemporaryDirectory(dir=arguments.keep) as temporary:
        folder = arguments.keep or Path(temporary)
        rows = run(arguments.judgments, folder)
    if arguments.out:
        found = {"machine": environment(), "judgments": arguments.judgments, "exports": rows}
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()

"""What survives: SIGKILL at any moment, and several processes on one file."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from services.sink.ledger.ledger import Ledger
from tests.sink.committer import SIZE, made

ROOT = Path(__file__).resolve().parents[2]


def start(ledger: Path, first: int, last: int, batch: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.sink.committer", str(ledger), *map(str, (first, last, batch))]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def acknowledged(process: subprocess.Popen[str]) -> dict[str, str]:
    """query_id -> status of what the process printed whole."""
    assert process.stdout is not None
    with process.stdout as stream:  # the stream itself: what `readline` has buffered is not lost to it
        out = stream.read()
    process.wait(60)
    lines = out.split("\n")[:-1]  # the last line may be cut
    return dict(line.split() for line in lines)


def assert_whole(path: Path, ids: set[str]) -> set[str]:
    """Every acknowledged query is there, and whatever is there is there whole."""
    ledger = Ledger.open(path)
    with ledger.snapshot() as snapshot:
        found = {q.query_id: q for q in snapshot.labelled_queries("docs")}
        for query_id, query in found.items():
            assert snapshot.judged_set("docs", query_id) == made(int(query_id[1:]))
            assert len(query.labels) == SIZE
    ledger.close()
    assert ids <= found.keys()
    return set(found)


def test_sigkill_at_any_moment_loses_nothing_acknowledged_and_leaves_nothing_half_written(tmp_path: Path) -> None:
    rng = random.Random(20260102)
    path, known, last = tmp_path / "ledger.sqlite", set[str](), 20_000
    for _ in range(6):
        process = start(path, 0, last, rng.choice([1, 7, 32]))
        assert process.stdout is not None
        process.stdout.readline()  # past the imports
        time.sleep(rng.uniform(0, 0.25))
        process.send_signal(signal.SIGKILL)
        known |= acknowledged(process).keys()
        assert_whole(path, known)
    assert 0 < len(known) < last, "killed in the middle"
    final = start(path, 0, 40, 32)
    assert len(acknowledged(final)) == 40
    assert_whole(path, known | {f"q{n:05d}" for n in range(40)})


def test_two_processes_that_commit_the_same_queries_commit_each_once(tmp_path: Path) -> None:
    path, count = tmp_path / "ledger.sqlite", 300
    processes = [start(path, 0, count, 7), start(path, 0, count, 16), start(path, 100, count, 3)]
    answers = [acknowledged(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert assert_whole(path, set()) == {f"q{n:05d}" for n in range(count)}
    for query_id in answers[0]:
        verdicts = [answer[query_id] for answer in answers if query_id in answer]
        assert verdicts.count("committed") == 1, query_id


def test_several_threads_may_share_a_ledger(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: ledger.commit([made(n % 10)])[0], range(40)))
    assert sorted(getattr(r, "value", str(r)) for r in results) == ["committed"] * 10 + ["duplicate"] * 30
    ledger.close()

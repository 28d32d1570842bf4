"""What survives: SIGKILL at any moment, and several processes on one ledger."""

from __future__ import annotations

import contextvars
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from qrelay.errors import MalformedInput, QueryConflict
from qrelay.labels.ledger import audit_log, on_postgresql, schema
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.security.identity import Kind, Principal, acting
from tests.labels.builders import OTHER_JUDGE, graded, judged_set, judgment, relabelled
from tests.labels.committer import SIZE, made

ROOT = Path(__file__).resolve().parents[2]


def start(ledger: str, first: int, last: int, batch: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.labels.committer", ledger, *map(str, (first, last, batch))]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def acknowledged(process: subprocess.Popen[str]) -> dict[str, str]:
    """query_id -> status of what the process printed whole."""
    assert process.stdout is not None
    with process.stdout as stream:  # the stream itself: what `readline` has buffered is not lost to it
        out = stream.read()
    process.wait()
    lines = out.split("\n")[:-1]  # the last line may be cut
    return dict(line.split() for line in lines)


def assert_whole(url: str, ids: set[str], checked: set[str] | None = None) -> set[str]:
    """Every acknowledged query is there, and whatever is there is there whole; `checked`: what was looked at before,
    of which only the labels are counted."""
    ledger = Ledger.open(url)
    with ledger.snapshot() as snapshot:
        found = {q.query_id: q for q in snapshot.labelled_queries("docs")}
        for query_id, query in found.items():
            if query_id not in (checked or ()):
                assert snapshot.judged_set("docs", query_id) == made(int(query_id[1:]))
            assert len(query.labels) == SIZE
    ledger.close()
    assert ids <= found.keys()
    return set(found)


def test_sigkill_at_any_moment_loses_nothing_acknowledged_and_leaves_nothing_half_written(ledger_url: str) -> None:
    rng = random.Random(20260102)
    known, whole, last = set[str](), set[str](), 20_000
    for _ in range(4):
        process = start(ledger_url, 0, last, rng.choice([1, 7, 32]))
        assert process.stdout is not None
        process.stdout.readline()  # past the imports
        time.sleep(rng.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        known |= acknowledged(process).keys()
        whole = assert_whole(ledger_url, known, whole)
    assert 0 < len(known) < last, "killed in the middle"
    final = start(ledger_url, 0, 40, 32)
    assert len(acknowledged(final)) == 40
    assert_whole(ledger_url, known | {f"q{n:05d}" for n in range(40)}, whole)


def test_two_processes_that_commit_the_same_queries_commit_each_once(ledger_url: str) -> None:
    count = 240
    processes = [start(ledger_url, 0, count, 7), start(ledger_url, 0, count, 16), start(ledger_url, 100, count, 3)]
    answers = [acknowledged(process) for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert assert_whole(ledger_url, set()) == {f"q{n:05d}" for n in range(count)}
    for query_id in answers[0]:
        verdicts = [answer[query_id] for answer in answers if query_id in answer]
        assert verdicts.count("committed") == 1, query_id


def test_several_threads_may_share_a_ledger(ledger_url: str) -> None:
    ledger = Ledger.open(ledger_url)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda n: ledger.commit([made(n % 10)])[0], range(40)))
    assert sorted(getattr(r, "value", str(r)) for r in results) == ["committed"] * 10 + ["duplicate"] * 30
    ledger.close()


def numbers_by_collection(ledger: Ledger) -> dict[str, list[int]]:
    """collection -> the change numbers of its generations, sorted."""
    columns = schema.generations.c.change_no, schema.queries.c.collection
    joined = schema.generations.join(schema.queries, schema.generations.c.query_no == schema.queries.c.query_no)
    found: dict[str, list[int]] = {}
    with ledger.snapshot() as snapshot:
        for number, collection in snapshot.connection.execute(sa.select(*columns).select_from(joined)):
            found.setdefault(collection, []).append(number)
    return {name: sorted(numbers) for name, numbers in found.items()}


def test_replicas_that_write_collections_in_any_order_lose_nothing_and_number_each_change_once(
    ledger_url: str,
) -> None:
    names = ("a", "b", "c")

    def replica(number: int) -> int:
        """Commits each batch's sets in an order of its own, and judges some of them again."""
        ledger, rng, written = Ledger.open(ledger_url), random.Random(number), 0
        for start in range(0, 30, 5):
            sets = [judged_set(f"q{n}", collection=name) for n in range(start, start + 5) for name in names]
            rng.shuffle(sets)
            written += sum(getattr(result, "value", result) == "committed" for result in ledger.commit(sets))
            again = [relabelled(each, judgment("d0#0", graded(1), OTHER_JUDGE)) for each in sets[:3]]
            written += sum(result == 1 for result in ledger.rejudge(again))
        ledger.close()
        return written

    Ledger.open(ledger_url).close()
    with ThreadPoolExecutor(3) as pool:
        written = sum(pool.map(replica, range(3)))
    ledger = Ledger.open(ledger_url)
    assert [stats.queries for stats in ledger.stats()] == [30, 30, 30]
    numbers = numbers_by_collection(ledger)
    assert sum(map(len, numbers.values())) == written, "each commit and each re-judgment succeeded exactly once"
    with ledger.snapshot() as snapshot:
        assert all(max(numbers[name]) <= snapshot.change_no(name) for name in names)
    ledger.close()


def test_a_reader_that_has_seen_a_change_has_seen_all_before_it(ledger_url: str) -> None:
    ledger = Ledger.open(ledger_url)
    ledger.commit([judged_set("first")])
    seen, last = set[str](), 0
    with ThreadPoolExecutor(3) as pool:
        writers = [
            pool.submit(lambda k=k: [ledger.commit([judged_set(f"{k}-{n}")]) for n in range(25)]) for k in range(3)
        ]
        for _ in itertools.count():
            done = all(writer.done() for writer in writers)
            with ledger.snapshot() as snapshot:
                now = snapshot.change_no("docs")
                found = [q.query_id for q in snapshot.labelled_queries("docs", changes=(last, now))]
            assert seen.isdisjoint(found)
            seen, last = seen | set(found), now
            if done:
                break
    assert len(seen) == 76
    ledger.close()


def together(ledger: Ledger, calls: Sequence[Callable[[], Any]]) -> list[Any]:
    """What the calls answer that all come while somebody else writes."""
    with ThreadPoolExecutor(len(calls)) as pool:
        with ledger.writing("hold the file"):
            answers = [pool.submit(contextvars.copy_context().run, call) for call in calls]
            while len(ledger._together._waiting) < len(calls):
                wait(answers, timeout=0.01, return_when=FIRST_COMPLETED)
                assert not any(answer.done() for answer in answers)
        return [answer.result() for answer in answers]


def test_what_comes_while_a_file_is_written_goes_in_one_transaction_and_each_call_gets_its_own_answers(
    tmp_path: Path,
) -> None:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    bad = replace(judged_set("bad"), judgments=(judgment("nobody#0", graded(1)),))
    other = judged_set("q1", "another text")
    sets = [[judged_set("q1")], [judged_set("q2"), bad, judged_set("q3")], [judged_set("q1")], [other], []]
    found = together(ledger, [partial(ledger.commit, each) for each in sets[:4]])
    committed = CommitStatus.COMMITTED
    assert sorted(str(each[0]) for each in (found[0], found[2])) == [
        "CommitStatus.COMMITTED",
        "CommitStatus.DUPLICATE",
    ]
    assert found[1][0] is found[1][2] is committed and isinstance(found[1][1], MalformedInput)
    assert isinstance(found[3][0], QueryConflict)
    assert numbers_by_collection(ledger) == {"docs": [1, 1, 1]}
    assert ledger.commit(sets[4]) == []
    ledger.close()


def test_what_different_callers_send_at_once_is_in_the_audit_log_under_their_own_names(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path / "ledger.sqlite")

    def by(name: str, query_id: str) -> list[Any]:
        acting.set(Principal(name, Kind.PERSON))
        return ledger.commit([judged_set(query_id)], audited=True)

    together(ledger, [partial(by, name, f"{name}{n}") for name in ("ana", "ben") for n in range(2)])
    with ledger.snapshot() as snapshot:
        acts = audit_log.page(snapshot.connection).acts
    assert {(each.who, " ".join(sorted(each.subject.split()))) for each in acts} == {
        ("ana", "ana0 ana1"), ("ben", "ben0 ben1"),
    }  # fmt: skip
    ledger.close()


def test_what_a_shared_write_raises_befalls_each_call_and_the_next_one_is_written(tmp_path: Path) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("on purpose")

    ledger = Ledger.open(tmp_path / "ledger.sqlite", after_commit=fail)
    calls = [partial(pytest.raises, RuntimeError, ledger.commit, [judged_set(f"q{n}")]) for n in range(3)]
    together(ledger, calls)
    ledger._after_commit = None
    assert ledger.commit([judged_set("q0")]) == [CommitStatus.COMMITTED]
    ledger.close()


def test_what_a_commit_answered_is_in_the_log_on_disk(postgresql_url: str) -> None:
    def where(name: str, connection: sa.Connection) -> str:
        return str(connection.exec_driver_sql(f"SELECT pg_current_wal_{name}_lsn()").scalar())

    written: list[str] = []
    ledger = Ledger.open(postgresql_url, after_commit=lambda c, *_: written.append(where("insert", c)))
    for number in range(5):
        assert ledger.commit([judged_set(f"q{number}")]) == [CommitStatus.COMMITTED]
        with ledger.snapshot() as snapshot:
            on_disk = where("flush", snapshot.connection)
            asked = sa.text("SELECT CAST(:on_disk AS pg_lsn) >= CAST(:written AS pg_lsn)")
            assert snapshot.connection.execute(asked, {"on_disk": on_disk, "written": written[-1]}).scalar()
    ledger.close()


def test_a_commit_that_waits_for_the_disk_holds_no_collection_and_is_not_answered(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting, on_disk, await_disk = threading.Event(), threading.Event(), on_postgresql.await_disk

    def slow_disk(connection: sa.Connection) -> None:
        waiting.set()
        assert on_disk.wait(60)
        await_disk(connection)

    slow, other = Ledger.open(postgresql_url), Ledger.open(postgresql_url)
    with ThreadPoolExecutor(1) as pool:
        monkeypatch.setattr(on_postgresql, "await_disk", slow_disk)
        answer = pool.submit(slow.commit, [judged_set("q1")])
        assert waiting.wait(60)
        monkeypatch.setattr(on_postgresql, "await_disk", await_disk)
        assert other.commit([judged_set("q1"), judged_set("q2")]) == [CommitStatus.DUPLICATE, CommitStatus.COMMITTED]
        assert not answer.done()
        on_disk.set()
        assert answer.result() == [CommitStatus.COMMITTED]
    assert numbers_by_collection(other) == {"docs": [1, 2]}
    slow.close()
    other.close()


@pytest.mark.parametrize(("point", "stored"), [("sink.commit.before", 0), ("sink.commit.after", 4)])
def test_the_fault_points_lie_on_either_side_of_the_databases_commit(
    ledger_url: str, tmp_path: Path, point: str, stored: int
) -> None:
    Ledger.open(ledger_url).close()
    folder = tmp_path / "faults"
    folder.mkdir()
    (folder / point).write_text("1")
    command = [sys.executable, "-m", "tests.labels.committer", ledger_url, "0", "4", "4"]
    environment = {**os.environ, "QRELAY_FAULTS": str(folder)}
    killed = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert killed.stdout == "", "nothing was acknowledged"
    assert len(assert_whole(ledger_url, set())) == stored
    assert len(acknowledged(start(ledger_url, 0, 4, 4))) == 4
    assert len(assert_whole(ledger_url, set())) == 4

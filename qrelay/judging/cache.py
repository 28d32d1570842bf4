"""The judgment cache, keyed by full identity: SQLite for one machine, PostgreSQL (cache_postgres.py) for many.

A key covers query, passage, model, prompt, scale and decoding (`qrelay.identity.judgment_key`), so two
judges can never share a label, and changing any of them asks anew. Only grades are ever stored: a failure
is not a measurement. The first writer of a key wins. Killed at any moment, the cache is intact and at worst
lacks the last moment's labels, which are judged again.

Beside the labels it counts the prompt tokens spent a day, so that replicas share a day's budget (budget.py).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from qrelay.errors import BackendUnavailable, ConfigError
from qrelay.identity import judge_digest
from qrelay.judging.cache_records import (
    CacheRecord,
    CacheStats,
    JudgeStats,
    Pruned,
    PruneRule,
    decode,
    encode,
    judge_values,
    refuse_failures,
)
from qrelay.types import Graded, JudgeIdentity, Judgment

NO_CACHE = ":none:"
POSTGRES = ("postgresql://", "postgres://")
_BUSY_S = 10.0
_KEYS_PER_SELECT = 500
_SCHEMA_VERSION = 1
_COLUMNS = "judgment_key, judge_hash, outcome, raw_reply, prompt_tokens, created_at"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS judges(
    judge_hash TEXT PRIMARY KEY, model TEXT NOT NULL, revision TEXT NOT NULL, quantisation TEXT NOT NULL,
    prompt_hash TEXT NOT NULL, strategy TEXT NOT NULL, scale TEXT NOT NULL, decoding TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS judgments(
    judgment_key TEXT PRIMARY KEY, judge_hash TEXT NOT NULL, outcome TEXT NOT NULL, raw_reply TEXT NOT NULL,
    prompt_tokens INTEGER NOT NULL, created_at TEXT NOT NULL
) WITHOUT ROWID;
"""
_SPEND = "CREATE TABLE IF NOT EXISTS spend(day TEXT PRIMARY KEY, tokens INTEGER NOT NULL) WITHOUT ROWID"
"""Came later than the rest; a cache without it gets it when it is opened."""


class JudgmentCache(Protocol):
    """A store of graded judgments. Methods block: call them off the event loop.

    Every method raises BackendUnavailable where the store cannot be reached, read or written.
    """

    def get_many(self, keys: Sequence[str]) -> dict[str, Judgment]:
        """The judgments that are there, by key, `cached` and without cost; passage_id is empty."""

    def put_many(self, judgments: Sequence[Judgment]) -> None:
        """Store them; a key that is there keeps its first judgment.

        Raises:
            InternalError: one of them is not graded.
        """

    def stats(self) -> CacheStats:
        """Counts, judge by judge."""

    def records(self, after: str = "", limit: int = 1000) -> list[CacheRecord]:
        """The next labels in the order of their keys, from above `after`; none at the end."""

    def prune(self, rule: PruneRule, *, dry_run: bool = False) -> Pruned:
        """Remove the labels of a rule, or say what it would remove."""

    def spent(self, day: str) -> int:
        """Prompt tokens counted for a day, as 2025-03-01 in UTC."""

    def spend(self, day: str, tokens: int) -> None:
        """Count prompt tokens for a day."""

    def close(self) -> None:
        """Release the file or connection."""


def open_cache(path: str) -> JudgmentCache:
    """The cache at `path` or at a postgresql:// address, or one that holds nothing for NO_CACHE.

    Raises:
        ConfigError: it cannot be opened or is no cache of this version.
    """
    if path.startswith(POSTGRES):
        from qrelay.judging.cache_postgres import PostgresCache

        return PostgresCache(path)
    return NoCache() if path == NO_CACHE else SqliteCache(Path(path))


class NoCache:
    """Holds nothing, but counts what this process spends."""

    def __init__(self) -> None:
        self._spent: dict[str, int] = {}

    def get_many(self, keys: Sequence[str]) -> dict[str, Judgment]:  # noqa: ARG002
        """Nothing."""
        return {}

    def put_many(self, judgments: Sequence[Judgment]) -> None:
        """Checks, and forgets."""
        refuse_failures(judgments)

    def stats(self) -> CacheStats:
        """No judges."""
        return CacheStats(())

    def records(self, after: str = "", limit: int = 1000) -> list[CacheRecord]:  # noqa: ARG002
        """Nothing."""
        return []

    def prune(self, rule: PruneRule, *, dry_run: bool = False) -> Pruned:  # noqa: ARG002
        """Nothing to remove."""
        return Pruned(0, 0)

    def spent(self, day: str) -> int:
        """By this process."""
        return self._spent.get(day, 0)

    def spend(self, day: str, tokens: int) -> None:
        """By this process."""
        self._spent[day] = self.spent(day) + tokens

    def close(self) -> None:
        """Nothing to release."""


class SqliteCache:
    """See the module. WAL mode; safe to call from several threads and processes."""

    def __init__(self, path: Path) -> None:
        """Open or create. Raises ConfigError when that cannot be."""
        self._lock = threading.Lock()
        self._judges: dict[str, JudgeIdentity] = {}
        self._hashes: dict[JudgeIdentity, str] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
            self._prepare()
        except (sqlite3.Error, OSError) as error:
            raise ConfigError(
                f"the judgment cache {path} cannot be opened ({error}): move it away to start an empty one, "
                f"or set judge.cache to another path or to {NO_CACHE}"
            ) from error

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version not in (0, _SCHEMA_VERSION):
            raise sqlite3.DatabaseError(f"its format is {version}, this qrelay's is {_SCHEMA_VERSION}")
        if version == 0:
            self._db.executescript(_SCHEMA + f"PRAGMA user_version={_SCHEMA_VERSION};")
        self._db.execute(_SPEND)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._db
        except sqlite3.Error as error:
            raise BackendUnavailable(f"the judgment cache cannot be read ({error}): see judge.cache") from error

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction that holds the file's write lock: whole, or rolled back on an error."""
        try:
            with self._lock:
                self._db.execute("BEGIN IMMEDIATE")
                with self._db:
                    yield self._db
        except sqlite3.Error as error:
            raise BackendUnavailable(f"the judgment cache cannot be written ({error}): see judge.cache") from error

    def get_many(self, keys: Sequence[str]) -> dict[str, Judgment]:
        """See JudgmentCache."""
        found: dict[str, Judgment] = {}
        with self._reading() as db:
            for start in range(0, len(keys), _KEYS_PER_SELECT):
                part = keys[start : start + _KEYS_PER_SELECT]
                marks = ",".join("?" * len(part))
                query = f"SELECT {_COLUMNS} FROM judgments WHERE judgment_key IN ({marks})"  # noqa: S608
                found.update((row[0], self._record(row).as_judgment()) for row in db.execute(query, part).fetchall())
        return found

    def put_many(self, judgments: Sequence[Judgment]) -> None:
        """See JudgmentCache."""
        refuse_failures(judgments)
        rows = [
            (each.judgment_key, self._hash(each.judge), encode(each.outcome), each.raw_reply,
             each.prompt_tokens, each.judged_at.isoformat())
            for each in judgments
            if isinstance(each.outcome, Graded)
        ]  # fmt: skip
        judges = [(self._hash(judge), *judge_values(judge)) for judge in {each.judge for each in judgments}]
        with self._writing() as db:
            db.executemany("INSERT OR IGNORE INTO judges VALUES(?,?,?,?,?,?,?,?)", judges)
            db.executemany("INSERT OR IGNORE INTO judgments VALUES(?,?,?,?,?,?)", rows)

    def stats(self) -> CacheStats:
        """See JudgmentCache."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT judge_hash, count(*), sum(prompt_tokens), min(created_at), max(created_at)"
                " FROM judgments GROUP BY judge_hash ORDER BY judge_hash"
            ).fetchall()
            return CacheStats(
                tuple(
                    JudgeStats(hashed, self._judge(hashed), labels, tokens, *map(datetime.fromisoformat, times))
                    for hashed, labels, tokens, *times in rows
                )
            )

    def records(self, after: str = "", limit: int = 1000) -> list[CacheRecord]:
        """See JudgmentCache."""
        query = f"SELECT {_COLUMNS} FROM judgments WHERE judgment_key > ? ORDER BY judgment_key LIMIT ?"  # noqa: S608
        with self._reading() as db:
            return [self._record(row) for row in db.execute(query, (after, limit)).fetchall()]

    def prune(self, rule: PruneRule, *, dry_run: bool = False) -> Pruned:
        """See JudgmentCache. The file keeps its size; new labels use the room."""
        keep = sorted(rule.keep or ())
        marks = ",".join(f"?{n}" for n in range(3, 3 + len(keep)))
        kept = f" AND judge_hash NOT IN ({marks})" if keep else ""
        chosen = "FROM judgments WHERE substr(judge_hash, 1, length(?1)) = ?1 AND created_at < ?2" + kept
        before = rule.before.isoformat() if rule.before else "~"  # sorts after every digit
        values = (rule.judge, before, *keep)
        with self._writing() as db:
            found = db.execute(f"SELECT count(*), coalesce(sum(prompt_tokens), 0) {chosen}", values)
            pruned = Pruned(*found.fetchone())
            if not dry_run:
                db.execute(f"DELETE {chosen}", values)
        return pruned

    def spent(self, day: str) -> int:
        """See JudgmentCache."""
        with self._reading() as db:
            row = db.execute("SELECT tokens FROM spend WHERE day=?", (day,)).fetchone()
        return int(row[0]) if row else 0

    def spend(self, day: str, tokens: int) -> None:
        """See JudgmentCache."""
        with self._writing() as db:
            db.execute(
                "INSERT INTO spend VALUES(?,?) ON CONFLICT(day) DO UPDATE SET tokens = tokens + excluded.tokens",
                (day, tokens),
            )

    def close(self) -> None:
        """Release the file."""
        with self._lock:
            self._db.close()

    def _hash(self, judge: JudgeIdentity) -> str:
        if judge not in self._hashes:
            self._hashes[judge] = judge_digest(judge)
        return self._hashes[judge]

    def _judge(self, judge_hash: str) -> JudgeIdentity:
        if judge_hash not in self._judges:
            row = self._db.execute("SELECT * FROM judges WHERE judge_hash=?", (judge_hash,)).fetchone()
            self._judges[judge_hash] = JudgeIdentity(*row[1:])
        return self._judges[judge_hash]

    def _record(self, row: Sequence[Any]) -> CacheRecord:
        key, judge_hash, outcome, raw_reply, tokens, created_at = row
        when = datetime.fromisoformat(created_at)
        return CacheRecord(key, judge_hash, self._judge(judge_hash), decode(outcome), raw_reply, tokens, when)

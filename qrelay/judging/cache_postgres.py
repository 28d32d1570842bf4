"""The judgment cache in PostgreSQL, for judges on many machines. Same rules as cache.py: the first writer wins.

Needs the extra `judge-postgres` (psycopg). The user must be allowed to create tables at the first start; they are
`qrelay_judges`, `qrelay_judgments`, `qrelay_spend` and `qrelay_cache_format`. A password belongs in PGPASSWORD or
~/.pgpass rather than in the address. A connection that breaks is opened again by the next call.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, Final

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

FORMAT: Final = 1
_CONNECT_S: Final = 10
_LOCK: Final = 7_191_523_046
"""Advisory lock under which the tables are made: CREATE TABLE IF NOT EXISTS alone can collide with itself."""
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS qrelay_cache_format(format INTEGER PRIMARY KEY);
CREATE TABLE IF NOT EXISTS qrelay_judges(
    judge_hash TEXT PRIMARY KEY, model TEXT NOT NULL, revision TEXT NOT NULL, quantisation TEXT NOT NULL,
    prompt_hash TEXT NOT NULL, strategy TEXT NOT NULL, scale TEXT NOT NULL, decoding TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS qrelay_judgments(
    judgment_key TEXT COLLATE "C" PRIMARY KEY, judge_hash TEXT NOT NULL REFERENCES qrelay_judges,
    outcome TEXT NOT NULL, raw_reply TEXT NOT NULL, prompt_tokens BIGINT NOT NULL, created_at TIMESTAMPTZ NOT NULL
);
CREATE TABLE IF NOT EXISTS qrelay_spend(day TEXT PRIMARY KEY, tokens BIGINT NOT NULL);
"""
_RECORDS: Final = """
SELECT g.judgment_key, g.judge_hash, g.outcome, g.raw_reply, g.prompt_tokens, g.created_at AT TIME ZONE 'UTC',
       j.model, j.revision, j.quantisation, j.prompt_hash, j.strategy, j.scale, j.decoding
FROM qrelay_judgments g JOIN qrelay_judges j USING (judge_hash)
"""
_STATS: Final = """
SELECT s.*, j.model, j.revision, j.quantisation, j.prompt_hash, j.strategy, j.scale, j.decoding
FROM (SELECT judge_hash, count(*), sum(prompt_tokens)::BIGINT, min(created_at) AT TIME ZONE 'UTC',
             max(created_at) AT TIME ZONE 'UTC' FROM qrelay_judgments GROUP BY judge_hash) s
JOIN qrelay_judges j USING (judge_hash) ORDER BY judge_hash
"""
_CHOSEN: Final = """
FROM qrelay_judgments WHERE starts_with(judge_hash, %(judge)s)
AND (%(before)s::TIMESTAMPTZ IS NULL OR created_at < %(before)s) AND judge_hash <> ALL(%(keep)s::TEXT[])
"""


class PostgresCache:
    """See the module. One connection, used by one thread at a time."""

    def __init__(self, address: str) -> None:
        """Connect, and make the tables where there are none. Raises ConfigError when that cannot be."""
        try:
            import psycopg
        except ImportError as error:
            raise ConfigError(
                "judge.cache names a PostgreSQL database, but psycopg is not installed: pip install "
                "'qrelay[judge-postgres]'"
            ) from error
        self._psycopg = psycopg
        self._address = address
        self._lock = threading.Lock()
        self._connection: Any = None
        try:
            self._prepare()
        except BackendUnavailable as error:
            raise ConfigError(f"{error}; check the address, the server and the user's rights") from error

    def _prepare(self) -> None:
        with self._using() as db:
            db.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            db.execute(_SCHEMA)
            db.execute(
                "INSERT INTO qrelay_cache_format SELECT %s WHERE NOT EXISTS (SELECT 1 FROM qrelay_cache_format)",
                (FORMAT,),
            )
            found = db.execute("SELECT format FROM qrelay_cache_format").fetchone()[0]
        if found != FORMAT:
            raise ConfigError(
                f"the judgment cache {self.address} has format {found}, this qrelay's is {FORMAT}: name another "
                "database in judge.cache"
            )

    @property
    def address(self) -> str:
        """The address without a password."""
        return without_password(self._address)

    @contextmanager
    def _using(self) -> Iterator[Any]:
        """The connection in a transaction: whole, or rolled back on an error."""
        try:
            with self._lock:
                if self._connection is None or self._connection.closed:
                    self._connection = self._psycopg.connect(
                        self._address, autocommit=True, connect_timeout=_CONNECT_S
                    )
                with self._connection.transaction():
                    yield self._connection
        except self._psycopg.Error as error:
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise BackendUnavailable(
                f"the judgment cache {self.address} does not answer as it should ({said}): see judge.cache"
            ) from error

    def get_many(self, keys: Sequence[str]) -> dict[str, Judgment]:
        """See JudgmentCache."""
        with self._using() as db:
            rows = db.execute(_RECORDS + " WHERE g.judgment_key = ANY(%s)", (list(keys),)).fetchall()
        return {row[0]: _record(row).as_judgment() for row in rows}

    def put_many(self, judgments: Sequence[Judgment]) -> None:
        """See JudgmentCache. Sorted by key, so that two writers cannot wait for each other."""
        refuse_failures(judgments)
        hashes = {judge: judge_digest(judge) for judge in {each.judge for each in judgments}}
        judges = sorted((hashed, *judge_values(judge)) for judge, hashed in hashes.items())
        rows = sorted(
            (each.judgment_key, hashes[each.judge], encode(each.outcome), _storable(each.raw_reply),
             each.prompt_tokens, each.judged_at)
            for each in judgments
            if isinstance(each.outcome, Graded)
        )  # fmt: skip
        with self._using() as db, db.cursor() as cursor:
            insert = "INSERT INTO {} VALUES ({}) ON CONFLICT DO NOTHING"
            cursor.executemany(insert.format("qrelay_judges", ",".join(["%s"] * 8)), judges)
            cursor.executemany(insert.format("qrelay_judgments", ",".join(["%s"] * 6)), rows)

    def stats(self) -> CacheStats:
        """See JudgmentCache."""
        with self._using() as db:
            rows = db.execute(_STATS).fetchall()
        return CacheStats(
            tuple(
                JudgeStats(hashed, JudgeIdentity(*judge), labels, tokens, _utc(oldest), _utc(newest))
                for hashed, labels, tokens, oldest, newest, *judge in rows
            )
        )

    def records(self, after: str = "", limit: int = 1000) -> list[CacheRecord]:
        """See JudgmentCache."""
        wanted = " WHERE g.judgment_key > %s ORDER BY g.judgment_key LIMIT %s"
        with self._using() as db:
            return [_record(row) for row in db.execute(_RECORDS + wanted, (after, limit)).fetchall()]

    def prune(self, rule: PruneRule, *, dry_run: bool = False) -> Pruned:
        """See JudgmentCache."""
        values = {"judge": rule.judge, "before": rule.before, "keep": sorted(rule.keep or ())}
        counted = "SELECT count(*), coalesce(sum(prompt_tokens), 0)::BIGINT "
        removed = "WITH gone AS (DELETE " + _CHOSEN + " RETURNING prompt_tokens) " + counted + "FROM gone"
        with self._using() as db:
            return Pruned(*db.execute(counted + _CHOSEN if dry_run else removed, values).fetchone())

    def spent(self, day: str) -> int:
        """See JudgmentCache."""
        with self._using() as db:
            row = db.execute("SELECT tokens FROM qrelay_spend WHERE day = %s", (day,)).fetchone()
        return int(row[0]) if row else 0

    def spend(self, day: str, tokens: int) -> None:
        """See JudgmentCache."""
        with self._using() as db:
            db.execute(
                "INSERT INTO qrelay_spend AS s VALUES (%s, %s)"
                " ON CONFLICT (day) DO UPDATE SET tokens = s.tokens + excluded.tokens",
                (day, tokens),
            )

    def close(self) -> None:
        """Close the connection."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()


def without_password(address: str) -> str:
    """A postgresql:// address that may be shown."""
    return re.sub(r"(//[^/@]*?):[^/@]*@", r"\1@", re.sub(r"password=[^&]*", "password=…", address))


def _record(row: Sequence[Any]) -> CacheRecord:
    key, judge_hash, outcome, raw_reply, tokens, created_at, *judge = row
    when = _utc(created_at)
    return CacheRecord(key, judge_hash, JudgeIdentity(*judge), decode(outcome), raw_reply, tokens, when)


def _utc(naive: datetime) -> datetime:
    return naive.replace(tzinfo=UTC)


def _storable(text: str) -> str:
    """PostgreSQL's texts hold no NUL."""
    return text.replace("\x00", "\ufffd")

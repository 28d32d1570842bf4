"""The judgment cache in a database: a SQLite file for one machine, PostgreSQL for judges on many.

SQLite: WAL mode, safe for several threads and processes. PostgreSQL needs the extra `judge-postgres` (psycopg); the
user must be allowed to create tables at the first start: `qrelay_judges`, `qrelay_judgments`, `qrelay_spend`,
`qrelay_notes` and `qrelay_cache_format`. A password belongs in PGPASSWORD or ~/.pgpass rather than in the address. A
connection that breaks is opened again by the next call.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from qrelay.chunks import chunks
from qrelay.errors import BackendUnavailable, ConfigError, QrelayError
from qrelay.files import disk_refusal
from qrelay.identity import judge_digest
from qrelay.judging.cache_records import (
    NO_CACHE,
    POSTGRES,
    CacheRecord,
    CacheStats,
    JudgeStats,
    Pruned,
    PruneRule,
    decode,
    encode,
    refuse_failures,
)
from qrelay.llm.base import Weights
from qrelay.settings.secrets import masked
from qrelay.types import Graded, JudgeIdentity, Judgment

FORMAT: Final = 1
_BUSY_S: Final = 10.0
_CONNECT_S: Final = 10
_KEYS_PER_SELECT: Final = 500
_LOCK: Final = 7_191_523_046
"""Advisory lock of PostgreSQL under which the tables are made."""
_JUDGE: Final = ("model", "revision", "quantisation", "prompt_hash", "strategy", "scale", "decoding")
_TOKENS: Final = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


class _Moment(sa.TypeDecorator[datetime]):
    """A time in UTC: text (ISO 8601, which sorts) in SQLite."""

    impl = sa.TIMESTAMP(timezone=True)
    cache_ok = True

    def load_dialect_impl(self, dialect: sa.Dialect) -> Any:
        return dialect.type_descriptor(sa.Text() if dialect.name == "sqlite" else sa.TIMESTAMP(timezone=True))

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> Any:
        return value.isoformat() if value and dialect.name == "sqlite" else value

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return datetime.fromisoformat(value) if dialect.name == "sqlite" else value.astimezone(UTC)


class SqlCache:
    """See the module. One connection, used by one thread at a time."""

    def __init__(self, address: str) -> None:
        """address: a file, or postgresql://. Makes the tables where there are none. Raises ConfigError when that
        cannot be."""
        self._lock = threading.Lock()
        self._judges: dict[str, JudgeIdentity] = {}
        self._hash = cache(judge_digest)
        self._sqlite = not address.startswith(POSTGRES)
        self._where = masked(address)
        self._define("" if self._sqlite else "qrelay_")
        try:
            name, connect = _sqlite(Path(address)) if self._sqlite else _postgres(address)
            self._engine = sa.create_engine(
                name, creator=connect, poolclass=sa.QueuePool, pool_size=1, max_overflow=0, hide_parameters=True
            )
            sa.event.listen(self._engine, "begin", self._begin)
            with self._using(write=True) as db:
                found = self._prepare(db)
                if found != FORMAT:
                    raise BackendUnavailable(f"its format is {found}, this qrelay's is {FORMAT}")
        except (BackendUnavailable, OSError) as error:
            if refusal := self._refusal(error):
                raise type(refusal)(f"{refusal}, or set judge.cache to another one or to {NO_CACHE}") from error
            remedy = (
                "move it away to start an empty one" if self._sqlite else "check the address, the server and rights"
            )
            raise ConfigError(
                f"the judgment cache {self._where} cannot be opened ({error}): {remedy}, or set judge.cache to "
                f"another one or to {NO_CACHE}"
            ) from error

    def _define(self, prefix: str) -> None:
        self._metadata = sa.MetaData()
        key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
        known = [] if self._sqlite else [sa.ForeignKey(f"{prefix}judges.judge_hash")]

        def table(name: str, *columns: sa.Column[Any]) -> sa.Table:
            return sa.Table(prefix + name, self._metadata, *columns, sqlite_with_rowid=False)

        self._judge_rows = table(
            "judges",
            sa.Column("judge_hash", sa.Text, primary_key=True),
            *(_column(name) for name in _JUDGE),
        )
        self._labels = table(
            "judgments",
            sa.Column("judgment_key", key, primary_key=True),
            sa.Column("judge_hash", sa.Text, *known, nullable=False),
            _column("outcome"),
            _column("raw_reply"),
            _column("prompt_tokens", _TOKENS),
            _column("created_at", _Moment()),
        )
        # These came later than the rest; a cache without them gets them when it is opened.
        self._notes = table("notes", sa.Column("key", key, primary_key=True), _column("text"))
        self._spend = table("spend", sa.Column("day", sa.Text, primary_key=True), _column("tokens", _TOKENS))
        self._by_keys = sa.select(self._labels).where(
            self._labels.c.judgment_key.in_(sa.bindparam("keys", expanding=True))
        )
        self._new_judges, self._new_labels = (
            self._insert(each).on_conflict_do_nothing() for each in (self._judge_rows, self._labels)
        )
        if not self._sqlite:
            self._format = table(
                "cache_format", sa.Column("format", sa.Integer, primary_key=True, autoincrement=False)
            )

    def _insert(self, table: sa.Table) -> Any:
        """An INSERT that takes ON CONFLICT; the other database's dialect is not imported."""
        if self._sqlite:
            from sqlalchemy.dialects.sqlite import insert
        else:
            from sqlalchemy.dialects.postgresql import insert  # type: ignore[assignment]
        return insert(table)

    def _prepare(self, db: sa.Connection) -> int:
        """The tables made where there are none; the format of what is there."""
        if self._sqlite:
            if (version := db.exec_driver_sql("PRAGMA user_version").scalar_one()) in (0, FORMAT):
                self._metadata.create_all(db)
                db.exec_driver_sql(f"PRAGMA user_version={FORMAT}")
            return int(version) or FORMAT
        db.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK)))
        self._metadata.create_all(db)
        found = db.scalar(sa.select(self._format.c.format))
        if found is None:
            db.execute(self._format.insert(), {"format": FORMAT})
        return FORMAT if found is None else int(found)

    def _begin(self, db: sa.Connection) -> None:
        """SQLite takes the file's write lock at once, so that writers queue up instead of failing half-way."""
        if self._sqlite and db.get_execution_options().get("write"):
            db.exec_driver_sql("BEGIN IMMEDIATE")

    @contextmanager
    def _using(self, *, write: bool = False) -> Iterator[sa.Connection]:
        """A transaction: whole, or rolled back on an error."""
        try:
            with self._lock, self._engine.connect().execution_options(write=write) as db, db.begin():
                yield db
        except SQLAlchemyError as error:
            cause = getattr(error, "orig", None) or error
            said = str(cause).strip().partition("\n")[0] or type(cause).__name__
            raise BackendUnavailable(
                str(self._refusal(error) or "")
                or f"the judgment cache {self._where} does not answer as it should ({said}): see judge.cache"
            ) from error

    def _refusal(self, error: BaseException) -> QrelayError | None:
        """What the disk under a SQLite file refuses, where that is the error's cause."""
        cause: Any = getattr(error, "orig", None) or getattr(error.__cause__, "orig", None) or error
        return disk_refusal(cause, f"the judgment cache {self._where}")

    def get_many(self, keys: Sequence[str]) -> dict[str, Judgment]:
        """See JudgmentCache."""
        found: dict[str, Judgment] = {}
        with self._using() as db:
            for part in chunks(keys, _KEYS_PER_SELECT):
                for row in db.execute(self._by_keys, {"keys": part}).all():
                    found[row[0]] = self._record(db, row).as_judgment()
        return found

    def put_many(self, judgments: Sequence[Judgment]) -> None:
        """See JudgmentCache. Sorted by key, so that two writers cannot wait for each other."""
        refuse_failures(judgments)
        hashes = {judge: self._hash(judge) for judge in {each.judge for each in judgments}}
        judges = [
            {"judge_hash": hashed, **{name: getattr(judge, name) for name in _JUDGE}}
            for judge, hashed in sorted(hashes.items(), key=lambda each: each[1])
        ]
        rows = [
            {
                "judgment_key": each.judgment_key,
                "judge_hash": hashes[each.judge],
                "outcome": encode(each.outcome),
                "raw_reply": each.raw_reply if self._sqlite else each.raw_reply.replace("\x00", "\ufffd"),
                "prompt_tokens": each.prompt_tokens,
                "created_at": each.judged_at,
            }
            for each in sorted(judgments, key=lambda each: each.judgment_key)
            if isinstance(each.outcome, Graded)
        ]
        with self._using(write=True) as db:
            for statement, values in ((self._new_judges, judges), (self._new_labels, rows)):
                if values:
                    db.execute(statement, values)

    def stats(self) -> CacheStats:
        """See JudgmentCache."""
        label, count = self._labels.c, sa.func
        columns = (count.count(), count.sum(label.prompt_tokens), count.min(label.created_at),
                   count.max(label.created_at))  # fmt: skip
        wanted = sa.select(label.judge_hash, *columns).group_by(label.judge_hash).order_by(label.judge_hash)
        with self._using() as db:
            return CacheStats(
                tuple(
                    JudgeStats(hashed, self._judge(db, hashed), labels, int(tokens), *times)
                    for hashed, labels, tokens, *times in db.execute(wanted).all()
                )
            )

    def records(self, after: str = "", limit: int = 1000) -> list[CacheRecord]:
        """See JudgmentCache."""
        key = self._labels.c.judgment_key
        with self._using() as db:
            rows = db.execute(sa.select(self._labels).where(key > after).order_by(key).limit(limit)).all()
            return [self._record(db, row) for row in rows]

    def prune(self, rule: PruneRule, *, dry_run: bool = False) -> Pruned:
        """See JudgmentCache. A SQLite file keeps its size; new labels use the room."""
        label = self._labels.c
        chosen = [sa.func.substr(label.judge_hash, 1, len(rule.judge)) == rule.judge]
        if rule.before is not None:
            chosen.append(label.created_at < rule.before)
        if rule.keep:
            chosen.append(label.judge_hash.not_in(sorted(rule.keep)))
        with self._using(write=True) as db:
            counted = sa.select(sa.func.count(), sa.func.coalesce(sa.func.sum(label.prompt_tokens), 0))
            labels, tokens = db.execute(counted.where(*chosen)).one()
            if not dry_run:
                db.execute(sa.delete(self._labels).where(*chosen))
        return Pruned(labels, int(tokens))

    def erase(self, keys: Collection[str], holds: Callable[[str], bool], *, dry_run: bool = False) -> int:
        """Remove the labels of these keys, and labels and notes whose texts `holds` knows; how many."""
        label, note = self._labels.c, self._notes.c
        gone = 0
        for table, key, text in (
            (self._labels, label.judgment_key, label.raw_reply),
            (self._notes, note.key, note.text),
        ):
            with self._using() as db:
                rows = db.execution_options(yield_per=_KEYS_PER_SELECT).execute(sa.select(key, text))
                chosen = [row[0] for row in rows if row[0] in keys or holds(row[1])]
            gone += len(chosen)
            for part in () if dry_run else chunks(chosen, _KEYS_PER_SELECT):
                with self._using(write=True) as db:
                    db.execute(sa.delete(table).where(key.in_(part)))
        return gone

    def compact(self) -> bool:
        """Rewrite the tables without what was removed. False: a reader of a SQLite file keeps its log for now."""
        with self._using() as db:  # which begins nothing on SQLite
            if self._sqlite:
                db.exec_driver_sql("VACUUM")
                return not db.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]
        with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as db:
            db.exec_driver_sql(f"VACUUM (ANALYZE) {', '.join(self._metadata.tables)}")
        return True

    def spent(self, day: str) -> int:
        """See JudgmentCache."""
        with self._using() as db:
            return int(db.scalar(sa.select(self._spend.c.tokens).where(self._spend.c.day == day)) or 0)

    def spend(self, day: str, tokens: int) -> None:
        """See JudgmentCache."""
        added = self._insert(self._spend).values(day=day, tokens=tokens)
        total = {"tokens": self._spend.c.tokens + added.excluded.tokens}
        with self._using(write=True) as db:
            db.execute(added.on_conflict_do_update(index_elements=["day"], set_=total))

    def recall(self, key: str) -> str | None:
        """See JudgmentCache."""
        with self._using() as db:
            return db.scalar(sa.select(self._notes.c.text).where(self._notes.c.key == key))

    def note(self, key: str, text: str) -> str:
        """See JudgmentCache."""
        with self._using(write=True) as db:
            db.execute(self._insert(self._notes).on_conflict_do_nothing(), {"key": key, "text": text})
            return str(db.scalar(sa.select(self._notes.c.text).where(self._notes.c.key == key)))

    def has_labels(self, weights: Weights, decodings: Sequence[str]) -> bool:
        """See JudgmentCache."""
        judge = self._judge_rows.c
        own = (judge.model == weights.model, judge.revision == weights.revision)
        wanted = sa.select(judge.judge_hash).where(*own, judge.quantisation == weights.quantisation)
        with self._using() as db:
            return db.execute(wanted.where(judge.decoding.in_(decodings)).limit(1)).first() is not None

    def close(self) -> None:
        """Release the file or the connection."""
        with self._lock:
            self._engine.dispose()

    def _judge(self, db: sa.Connection, judge_hash: str) -> JudgeIdentity:
        if judge_hash not in self._judges:
            row = db.execute(sa.select(self._judge_rows).where(self._judge_rows.c.judge_hash == judge_hash)).one()
            self._judges[judge_hash] = JudgeIdentity(*row[1:])
        return self._judges[judge_hash]

    def _record(self, db: sa.Connection, row: Sequence[Any]) -> CacheRecord:
        key, judge_hash, outcome, raw_reply, tokens, created_at = row
        return CacheRecord(
            key, judge_hash, self._judge(db, judge_hash), decode(outcome), raw_reply, tokens, created_at
        )


def _column(name: str, kind: sa.types.TypeEngine[Any] | None = None) -> sa.Column[Any]:
    return sa.Column(name, kind or sa.Text(), nullable=False)


def _sqlite(path: Path) -> tuple[str, Callable[[], Any]]:
    path.parent.mkdir(parents=True, exist_ok=True)

    def connect() -> sqlite3.Connection:
        connection = sqlite3.connect(path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        return connection

    return "sqlite://", connect


def _postgres(address: str) -> tuple[str, Callable[[], Any]]:
    try:
        import psycopg
    except ImportError as error:
        raise ConfigError(
            "judge.cache names a PostgreSQL database, but psycopg is not installed: pip install "
            "'qrelay[judge-postgres]'"
        ) from error
    _check(address)
    return "postgresql+psycopg://", lambda: psycopg.connect(address, connect_timeout=_CONNECT_S)


def _check(address: str) -> None:
    """Raises ConfigError: libpq would not take it, or would take a part of its password for something else."""
    from psycopg import ProgrammingError
    from psycopg.conninfo import conninfo_to_dict

    try:
        parts = {name: str(value) for name, value in conninfo_to_dict(address).items()}
    except ProgrammingError:
        parts = {"host": "@"}
    ports = parts.get("port", "").split(",")
    if any("@" in parts.get(name, "") for name in ("host", "dbname")) or not all(map(_is_port, ports)):
        raise ConfigError(
            f"judge.cache {masked(address)} is no postgresql://USER:PASSWORD@HOST/DATABASE: write odd characters of "
            "a password as %XX"
        )


def _is_port(text: str) -> bool:
    return not text or text.isdigit()

"""The judgment cache: SQLite in WAL mode, shared by the replicas of one machine, keyed by full identity.

A key covers query, passage, model, prompt, scale and decoding (`qrelay.identity.judgment_key`), so two
judges can never share a label, and changing any of them asks anew. Only grades are ever stored: a failure
is not a measurement. The first writer of a key wins. Killed at any moment, the file is intact and at worst
lacks the last moment's labels, which are judged again.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol

from qrelay.errors import BackendUnavailable, ConfigError, InternalError
from qrelay.identity import judge_digest
from qrelay.types import Graded, JudgeIdentity, Judgment

NO_CACHE = ":none:"
_BUSY_S = 10.0
_KEYS_PER_SELECT = 500
_SCHEMA_VERSION = 1
_COLUMNS = "judgment_key, judge_hash, outcome, raw_reply, created_at"
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


@dataclass(frozen=True, slots=True)
class CacheStats:
    """What a cache holds. judges: labels by (judge fingerprint, strategy, scale). prompt_tokens: what
    all of its labels cost when they were measured."""

    labels: int
    prompt_tokens: int
    judges: Mapping[tuple[str, str, str], int]


class JudgmentCache(Protocol):
    """A store of graded judgments. Methods block: call them off the event loop."""

    def get_many(self, keys: Sequence[str]) -> dict[str, Judgment]:
        """The judgments that are there, by key, `cached` and without cost; passage_id is empty."""

    def put_many(self, judgments: Sequence[Judgment]) -> None:
        """Store them; a key that is there keeps its first judgment.

        Raises:
            InternalError: one of them is not graded.
        """

    def stats(self) -> CacheStats:
        """Counts."""

    def close(self) -> None:
        """Release the file."""


def open_cache(path: str) -> JudgmentCache:
    """The cache at `path`, or one that holds nothing for NO_CACHE.

    Raises:
        ConfigError: the file cannot be opened or is no cache of this version.
    """
    return NoCache() if path == NO_CACHE else SqliteCache(Path(path))


def refuse_failures(judgments: Sequence[Judgment]) -> None:
    """Raises InternalError unless every judgment is graded."""
    for judgment in judgments:
        if not isinstance(judgment.outcome, Graded):
            raise InternalError(f"a missing judgment ({judgment.outcome.reason}) was about to be cached")


class NoCache:
    """Holds nothing."""

    def get_many(self, keys: Sequence[str]) -> dict[str, Judgment]:  # noqa: ARG002
        """Nothing."""
        return {}

    def put_many(self, judgments: Sequence[Judgment]) -> None:
        """Checks, and forgets."""
        refuse_failures(judgments)

    def stats(self) -> CacheStats:
        """Zeros."""
        return CacheStats(0, 0, {})

    def close(self) -> None:
        """Nothing to release."""


class SqliteCache:
    """See the module. Safe to call from several threads and processes."""

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

    def get_many(self, keys: Sequence[str]) -> dict[str, Judgment]:
        """See JudgmentCache. Raises BackendUnavailable when the file cannot be read."""
        found: dict[str, Judgment] = {}
        try:
            with self._lock:
                for start in range(0, len(keys), _KEYS_PER_SELECT):
                    part = keys[start : start + _KEYS_PER_SELECT]
                    marks = ",".join("?" * len(part))
                    rows = self._db.execute(
                        f"SELECT {_COLUMNS} FROM judgments WHERE judgment_key IN ({marks})",  # noqa: S608
                        part,
                    )
                    found.update((row[0], self._judgment(*row)) for row in rows.fetchall())
        except sqlite3.Error as error:
            raise BackendUnavailable(f"the judgment cache cannot be read ({error}): see judge.cache") from error
        return found

    def put_many(self, judgments: Sequence[Judgment]) -> None:
        """See JudgmentCache. Raises BackendUnavailable when the file cannot be written."""
        refuse_failures(judgments)
        rows = [
            (each.judgment_key, self._hash(each.judge), _encode(each.outcome), each.raw_reply,
             each.prompt_tokens, each.judged_at.isoformat())
            for each in judgments
            if isinstance(each.outcome, Graded)
        ]  # fmt: skip
        try:
            with self._lock:
                self._db.execute("BEGIN IMMEDIATE")
                with self._db:  # commits, or rolls back on an error
                    self._register({each.judge for each in judgments})
                    self._db.executemany("INSERT OR IGNORE INTO judgments VALUES(?,?,?,?,?,?)", rows)
        except sqlite3.Error as error:
            raise BackendUnavailable(f"the judgment cache cannot be written ({error}): see judge.cache") from error

    def _register(self, judges: set[JudgeIdentity]) -> None:
        for judge in judges:
            values = (judge.model, judge.revision, judge.quantisation, judge.prompt_hash, judge.strategy,
                      judge.scale, judge.decoding)  # fmt: skip
            self._db.execute("INSERT OR IGNORE INTO judges VALUES(?,?,?,?,?,?,?,?)", (self._hash(judge), *values))

    def stats(self) -> CacheStats:
        """Counts."""
        with self._lock:
            labels, tokens = self._db.execute(
                "SELECT count(*), coalesce(sum(prompt_tokens), 0) FROM judgments"
            ).fetchone()
            per_judge = self._db.execute(
                "SELECT judge_hash, count(*) FROM judgments GROUP BY judge_hash ORDER BY judge_hash"
            ).fetchall()
            counts: dict[tuple[str, str, str], int] = {}
            for judge_hash, count in per_judge:
                judge = self._judge(judge_hash)
                name = (judge.fingerprint, judge.strategy, judge.scale)
                counts[name] = counts.get(name, 0) + count
        return CacheStats(labels, tokens, counts)

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

    def _judgment(self, key: str, judge_hash: str, outcome: str, raw_reply: str, created_at: str) -> Judgment:
        return Judgment(
            passage_id="",
            judgment_key=key,
            outcome=_decode(outcome),
            judge=self._judge(judge_hash),
            judged_at=datetime.fromisoformat(created_at),
            cached=True,
            raw_reply=raw_reply,
        )


def _encode(outcome: Graded) -> str:
    """A JSON list: floats survive it exactly."""
    return json.dumps(
        [outcome.grade, outcome.min_grade, outcome.probabilities, outcome.expected_relevance,
         outcome.entropy, outcome.p_relevant, outcome.calibration]
    )  # fmt: skip


def _decode(text: str) -> Graded:
    grade, min_grade, probabilities, expected, entropy, p_relevant, calibration = json.loads(text)
    return Graded(grade, min_grade, tuple(probabilities), expected, entropy, p_relevant, calibration)

"""The cache: full identity, grades only, the first one wins, whole after a kill."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import pytest

from qrelay.errors import BackendUnavailable, ConfigError, InternalError
from qrelay.identity import judge_digest, judgment_key
from qrelay.types import MISSING_REASONS, Graded, JudgeIdentity, Judgment, Missing
from services.judge.cache import NO_CACHE, NoCache, SqliteCache, open_cache
from tests.judge.samples import NOW

JUDGE = JudgeIdentity("model", "rev", "q4", "hash", "graded", "0-3", "t=0")
GRADE = Graded(2, 0, (0.1, 0.2, 0.6, 0.1), 1.7, 1.0889, 0.7)


def judgment(key: str, outcome: Graded | Missing = GRADE, judge: JudgeIdentity = JUDGE) -> Judgment:
    return Judgment("d#1", key, outcome, judge, NOW, raw_reply="2", prompt_tokens=321)


@pytest.fixture
def cache(tmp_path: Path) -> SqliteCache:
    return SqliteCache(tmp_path / "cache.sqlite")


def test_what_comes_back_is_what_was_measured_without_cost(cache: SqliteCache) -> None:
    cache.put_many([judgment("a"), judgment("b")])
    found = cache.get_many(["a", "b", "absent"])
    assert found == {key: replace(judgment(key), passage_id="", cached=True, prompt_tokens=0) for key in ("a", "b")}


def test_more_keys_than_one_statement_takes(cache: SqliteCache) -> None:
    keys = [f"key{n}" for n in range(1234)]
    cache.put_many([judgment(key) for key in keys])
    assert cache.get_many(keys).keys() == set(keys)


def test_replicas_share_the_file_and_the_first_label_wins(tmp_path: Path) -> None:
    one, other = SqliteCache(tmp_path / "c.sqlite"), SqliteCache(tmp_path / "c.sqlite")
    one.put_many([judgment("a")])
    other.put_many([judgment("a", replace(GRADE, grade=0)), judgment("b")])
    assert one.get_many(["a"])["a"].outcome == GRADE
    assert one.get_many(["b"])["b"].outcome == GRADE


@pytest.mark.parametrize("reason", MISSING_REASONS)
def test_a_failure_is_never_stored_and_nothing_beside_it(cache: SqliteCache, reason: str) -> None:
    for store in (cache, NoCache()):
        with pytest.raises(InternalError, match=reason):
            store.put_many([judgment("good"), judgment("bad", Missing(reason))])
    assert cache.get_many(["good", "bad"]) == {}


@pytest.mark.parametrize("field", [each.name for each in fields(JudgeIdentity)])
def test_every_field_of_the_judge_makes_another_key(field: str) -> None:
    other = replace(JUDGE, **{field: "other"})
    assert judge_digest(other) != judge_digest(JUDGE)
    assert judgment_key("q", "t", "p", judge_digest(other)) != judgment_key("q", "t", "p", judge_digest(JUDGE))


def test_each_text_makes_another_key_and_none_can_lean_on_its_neighbour() -> None:
    base = ("query", "title", "text", judge_digest(JUDGE))
    keys = {judgment_key(*base)}
    for position in range(3):
        keys.add(judgment_key(*(f"{part}x" if n == position else part for n, part in enumerate(base))))
    keys.add(judgment_key("querytitle", "", *base[2:]))
    assert len(keys) == 5


def test_statistics_count_labels_by_judge(cache: SqliteCache) -> None:
    cache.put_many([judgment("a"), judgment("b"), judgment("c", judge=replace(JUDGE, scale="1-4"))])
    stats = cache.stats()
    assert (stats.labels, stats.prompt_tokens) == (3, 963)
    assert stats.judges == {("model@rev:q4", "graded", "0-3"): 2, ("model@rev:q4", "graded", "1-4"): 1}


def test_a_file_that_is_no_cache_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "c.sqlite").write_bytes(b"not a database, certainly not one of ours" * 100)
    with pytest.raises(ConfigError, match="move it away"):
        open_cache(str(tmp_path / "c.sqlite"))


def test_a_cache_of_another_format_is_refused(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "c.sqlite")
    database.execute("PRAGMA user_version=99")
    database.close()
    with pytest.raises(ConfigError, match="format is 99"):
        open_cache(str(tmp_path / "c.sqlite"))


def test_a_lost_table_is_an_error_that_can_be_retried(tmp_path: Path) -> None:
    cache = SqliteCache(tmp_path / "c.sqlite")
    database = sqlite3.connect(tmp_path / "c.sqlite")
    database.execute("DROP TABLE judgments")
    database.close()
    with pytest.raises(BackendUnavailable, match=r"judge\.cache"):
        cache.get_many(["a"])
    with pytest.raises(BackendUnavailable, match=r"judge\.cache"):
        cache.put_many([judgment("a")])


def test_no_cache_holds_nothing() -> None:
    cache = open_cache(NO_CACHE)
    cache.put_many([judgment("a")])
    assert cache.get_many(["a"]) == {}
    assert cache.stats().labels == 0


def test_killed_while_writing_the_file_is_whole_and_keeps_what_was_written(tmp_path: Path) -> None:
    path = tmp_path / "c.sqlite"
    program = (
        "import sys, pathlib\n"
        "from services.judge.cache import SqliteCache\n"
        "from tests.judge.test_cache import judgment\n"
        "cache = SqliteCache(pathlib.Path(sys.argv[1]))\n"
        "for n in range(10**6):\n"
        "    cache.put_many([judgment(f'{n}-{i}') for i in range(25)])\n"
        "    print(n, flush=True)\n"
    )
    writer = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    for _ in range(20):
        last = int(writer.stdout.readline())
    time.sleep(0.01)
    os.kill(writer.pid, signal.SIGKILL)
    writer.wait()
    writer.stdout.close()
    cache = SqliteCache(path)
    wanted = [f"{n}-{i}" for n in range(last + 1) for i in range(25)]
    assert len(cache.get_many(wanted)) == len(wanted)
    assert cache.stats().labels % 25 == 0, "a batch is stored whole or not at all"

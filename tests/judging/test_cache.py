"""The cache: full identity, grades only, the first one wins, whole after a kill; on SQLite and real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, fields, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.judge.group import judge as judge_command
from qrelay.errors import BackendUnavailable, ConfigError, InternalError
from qrelay.identity import judge_digest, judgment_key
from qrelay.judging.cache import JudgmentCache, NoCache, open_cache
from qrelay.judging.cache_records import NO_CACHE, CacheRecord, Pruned, PruneRule
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.judge import Judge
from qrelay.judging.strategies import make_strategy
from qrelay.llm.base import Weights
from qrelay.llm.fake import FakeBackend
from qrelay.types import MISSING_REASONS, Graded, JudgedSet, JudgeIdentity, Judgment, Missing, Utility
from tests.judging.samples import NOW, candidate_set
from tests.postgres import server_address

Opener = Callable[[], JudgmentCache]
JUDGE = JudgeIdentity("model", "rev", "q4", "hash", "graded", "0-3", "t=0")
GRADE = Graded(2, 0, (0.1, 0.2, 0.6, 0.1), 1.7, 1.0889, 0.7)


def judgment(key: str, outcome: Graded | Missing = GRADE, judge: JudgeIdentity = JUDGE) -> Judgment:
    return Judgment("d#1", key, outcome, judge, NOW, raw_reply="2", prompt_tokens=321)


@pytest.fixture(scope="session")
def postgres() -> str:
    """The address of a real server."""
    return server_address()


@pytest.fixture(params=["sqlite", "postgres"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens the same empty cache as often as it is called: a replica each time."""
    address = str(tmp_path / "cache.sqlite")
    if request.param == "postgres":
        address = request.getfixturevalue("postgres")
        _empty(address)
    replicas: list[JudgmentCache] = []

    def replica() -> JudgmentCache:
        replicas.append(open_cache(address))
        return replicas[-1]

    yield replica
    for each in replicas:
        each.close()


def _empty(address: str) -> None:
    import psycopg

    with psycopg.connect(address) as connection:
        connection.execute("DROP SCHEMA public CASCADE")
        connection.execute("CREATE SCHEMA public")


@pytest.fixture
def cache(opened: Opener) -> JudgmentCache:
    return opened()


def test_what_comes_back_is_what_was_measured_without_cost(cache: JudgmentCache) -> None:
    cache.put_many([judgment("a"), judgment("b")])
    found = cache.get_many(["a", "b", "absent"])
    assert found == {key: replace(judgment(key), passage_id="", cached=True, prompt_tokens=0) for key in ("a", "b")}


def test_more_keys_than_one_statement_takes(cache: JudgmentCache) -> None:
    keys = [f"key{n}" for n in range(1234)]
    cache.put_many([judgment(key) for key in keys])
    assert cache.get_many(keys).keys() == set(keys)


def test_replicas_share_the_labels_and_the_first_one_wins(opened: Opener) -> None:
    one, other = opened(), opened()
    one.put_many([judgment("a")])
    other.put_many([judgment("a", replace(GRADE, grade=0)), judgment("b")])
    assert one.get_many(["a"])["a"].outcome == GRADE
    assert one.get_many(["b"])["b"].outcome == GRADE


def test_two_replicas_may_write_the_same_keys_at_once(opened: Opener) -> None:
    replicas = [opened(), opened()]

    def write(number: int) -> None:
        for start in range(0, 200, 20):
            keys = [f"k{n:03}" for n in range(start, start + 20)]
            marked = replace(GRADE, grade=number)
            replicas[number].put_many([judgment(key, marked) for key in (keys if number else reversed(keys))])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, range(2)))
    first = replicas[0].get_many([f"k{n:03}" for n in range(200)])
    assert len(first) == 200
    assert replicas[1].get_many(list(first)) == first


@pytest.mark.parametrize("reason", MISSING_REASONS)
def test_a_failure_is_never_stored_and_nothing_beside_it(cache: JudgmentCache, reason: str) -> None:
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


def test_statistics_count_labels_tokens_and_times_by_judge(cache: JudgmentCache) -> None:
    other = replace(JUDGE, scale="1-4")
    late = NOW + timedelta(days=1)
    cache.put_many([judgment("a"), replace(judgment("b"), judged_at=late), judgment("c", judge=other)])
    stats = cache.stats()
    assert (stats.labels, stats.prompt_tokens) == (3, 963)
    found = {each.judge: (each.labels, each.prompt_tokens, each.oldest, each.newest) for each in stats.judges}
    assert found == {JUDGE: (2, 642, NOW, late), other: (1, 321, NOW, NOW)}


def test_all_records_come_out_once_page_by_page(cache: JudgmentCache) -> None:
    cache.put_many([judgment(f"key{n}") for n in range(25)])
    found: list[CacheRecord] = []
    while page := cache.records(found[-1].judgment_key if found else "", limit=10):
        found += page
    assert [each.judgment_key for each in found] == sorted(f"key{n}" for n in range(25))
    first = found[0]
    assert (first.judge, first.outcome, first.prompt_tokens, first.created_at) == (JUDGE, GRADE, 321, NOW)


def test_pruning_removes_what_every_part_of_the_rule_fits_and_says_so_beforehand(cache: JudgmentCache) -> None:
    other = replace(JUDGE, scale="1-4")
    old = NOW - timedelta(days=40)
    labels = {"old": (JUDGE, old), "new": (JUDGE, NOW), "other old": (other, old), "other new": (other, NOW)}
    rules = {
        PruneRule(judge=judge_digest(other)[:12]): {"old", "new"},
        PruneRule(before=NOW - timedelta(days=30)): {"new", "other new"},
        PruneRule(keep=frozenset({judge_digest(JUDGE)})): {"old", "new"},
        PruneRule(judge=judge_digest(JUDGE), before=NOW): {"new", "other old", "other new"},
        PruneRule(judge=judge_digest(JUDGE), keep=frozenset({judge_digest(JUDGE)})): set(labels),
        PruneRule(judge="%"): set(labels),
    }
    for rule, stay in rules.items():
        cache.put_many([replace(judgment(key, judge=judge), judged_at=at) for key, (judge, at) in labels.items()])
        told = cache.prune(rule, dry_run=True)
        assert cache.get_many(list(labels)).keys() == labels.keys()
        assert cache.prune(rule) == told == Pruned(4 - len(stay), 321 * (4 - len(stay)))
        assert cache.get_many(list(labels)).keys() == stay


def test_replicas_count_what_they_spend_a_day_together(opened: Opener) -> None:
    one, other = opened(), opened()
    for replica in (one, other, one):
        replica.spend("2025-03-01", 10)
    other.spend("2025-03-02", 5)
    assert (one.spent("2025-03-01"), one.spent("2025-03-02"), one.spent("2025-03-03")) == (30, 5, 0)


def test_replicas_share_their_notes_and_the_first_one_stays(opened: Opener) -> None:
    first, second = opened(), opened()
    assert first.recall("how") is None
    assert first.note("how", "so") == "so"
    assert second.note("how", "otherwise") == "so"
    assert second.recall("how") == "so"


def test_a_cache_knows_which_model_made_labels_with_which_decoding(cache: JudgmentCache) -> None:
    weights = Weights("model", "rev", "q4")
    assert not cache.has_labels(weights, ["t=0"])
    cache.put_many([judgment("a")])
    assert cache.has_labels(weights, ["another", "t=0"])
    assert not cache.has_labels(weights, ["another"])
    assert not cache.has_labels(replace(weights, revision="another"), ["t=0"])


def test_a_reply_with_any_character_is_stored(cache: JudgmentCache) -> None:
    cache.put_many([replace(judgment("a"), raw_reply="a\x00\u2028é")])
    assert "\u2028é" in cache.get_many(["a"])["a"].raw_reply


def test_a_label_from_before_there_were_utilities_is_read(tmp_path: Path) -> None:
    cache = SqlCache(str(tmp_path / "c.sqlite"))
    cache.put_many([judgment("a"), judgment("b", replace(GRADE, utility=Utility(1.5, 2.5, None, 0)))])
    database = sqlite3.connect(tmp_path / "c.sqlite")
    (text,) = database.execute("SELECT outcome FROM judgments WHERE judgment_key='a'").fetchone()
    with database:
        database.execute("UPDATE judgments SET outcome=? WHERE judgment_key='a'", (json.dumps(json.loads(text)[:7]),))
    database.close()
    found = cache.get_many(["a", "b"])
    assert found["a"].outcome == GRADE
    assert found["b"].outcome == replace(GRADE, utility=Utility(1.5, 2.5, None, 0))


def test_a_server_that_is_gone_is_an_error_that_can_be_retried_and_shows_no_password(postgres: str) -> None:
    with pytest.raises(ConfigError, match="check the address") as caught:
        open_cache("postgresql://judge:secret@127.0.0.1:1/none?connect_timeout=1")
    assert "secret" not in str(caught.value)
    assert "judge:***@127.0.0.1" in str(caught.value)
    _empty(postgres)
    cache = SqlCache(postgres)
    cache.put_many([judgment("a")])
    _empty(postgres)
    with pytest.raises(BackendUnavailable, match=r"judge\.cache"):
        cache.get_many(["a"])
    cache.close()


def test_a_connection_that_breaks_is_opened_again(postgres: str) -> None:
    import psycopg

    _empty(postgres)
    cache = SqlCache(postgres)
    cache.put_many([judgment("a")])
    with psycopg.connect(postgres, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()")
    with pytest.raises(BackendUnavailable):
        cache.get_many(["a"])
    assert cache.get_many(["a"]).keys() == {"a"}
    cache.close()


def run(folder: Path, *arguments: str) -> Any:
    env = {"QRELAY_JUDGE__BACKEND": "fake", "QRELAY_JUDGE__STRATEGY": "graded", "QRELAY_JUDGE__DATA_DIR": str(folder)}
    return CliRunner().invoke(judge_command, ["cache", *arguments], env=env)


def filled(folder: Path) -> SqlCache:
    """Two old labels of a judge that is gone, one of the configured one."""
    cache = SqlCache(str(folder / "judge-cache.sqlite"))
    old = [replace(judgment(key), judged_at=datetime.now(UTC) - timedelta(days=40)) for key in ("a", "b")]
    (each,) = asyncio.run(
        Judge(FakeBackend(), make_strategy("graded", "0-3"), cache).judge([candidate_set("a passage")])
    )
    assert isinstance(each, JudgedSet)
    cache.put_many(old)
    return cache


def test_the_command_prunes_by_age_by_judge_and_by_configuration(tmp_path: Path) -> None:
    for rule in (["--older-than", "30d"], ["--judge", judge_digest(JUDGE)[:10]], ["--not-configured"]):
        cache = filled(tmp_path)
        told = run(tmp_path, "prune", *rule, "--dry-run", "--json")
        assert json.loads(told.output)["labels"] == 2, rule
        assert cache.stats().labels == 3
        assert "2 labels" in run(tmp_path, "prune", *rule).output
        assert cache.stats().labels == 1
        cache.close()


@pytest.mark.parametrize("wrong", [[], ["--older-than", "soon"], ["--judge", "not hexadecimal"]])
def test_pruning_everything_by_mistake_is_not_possible(tmp_path: Path, wrong: list[str]) -> None:
    filled(tmp_path).close()
    assert run(tmp_path, "prune", *wrong).exit_code == 2


def test_the_command_exports_every_label_with_its_judge_tokens_and_time(tmp_path: Path) -> None:
    filled(tmp_path).close()
    result = run(tmp_path, "export", "--out", str(tmp_path / "labels.jsonl"))
    assert "3 labels" in result.output
    rows = [json.loads(line) for line in (tmp_path / "labels.jsonl").read_text().splitlines()]
    mine = next(row for row in rows if row["judgment_key"] == "a")
    assert mine["judge"] == asdict(JUDGE)
    assert mine["outcome"]["probabilities"] == list(GRADE.probabilities)
    assert mine["prompt_tokens"] == 321
    assert datetime.fromisoformat(mine["judged_at"]).tzinfo


def test_the_command_shows_tokens_and_times_by_judge(tmp_path: Path) -> None:
    filled(tmp_path).close()
    shown = json.loads(run(tmp_path, "stats", "--json").output)
    assert (shown["labels"], len(shown["judges"])) == (3, 2)
    mine = next(each for each in shown["judges"] if each["judge_hash"] == judge_digest(JUDGE))
    assert (mine["labels"], mine["prompt_tokens"], mine["judge"]) == (2, 642, "model@rev:q4")
    assert "642 tokens" in run(tmp_path, "stats").output


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
    cache = SqlCache(str(tmp_path / "c.sqlite"))
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
        "import sys\n"
        "from qrelay.judging.cache_sql import SqlCache\n"
        "from tests.judging.test_cache import judgment\n"
        "cache = SqlCache(sys.argv[1])\n"
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
    cache = SqlCache(str(path))
    wanted = [f"{n}-{i}" for n in range(last + 1) for i in range(25)]
    assert len(cache.get_many(wanted)) == len(wanted)
    assert cache.stats().labels % 25 == 0, "a batch is stored whole or not at all"

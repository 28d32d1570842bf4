"""SIGKILL while a judge asks by batches: whatever it cuts, every pair is labelled, and none is paid for twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
import sqlalchemy as sa

from qrelay.runtime import faults
from tests.judging.batch.dying import QUERIES
from tests.llm.batch_endpoint import BatchEndpoint, Plan, answer, hang_up
from tests.postgres import server_address

PAIRS = 3 * QUERIES
KILLS = 12
HALF = Plan("expired", carries=lambda place: place % 2 == 0, polls=2)


class Judges:
    """Starts judges on a cache, one after the other, and tells how each died."""

    def __init__(self, points: Path) -> None:
        self.points = points
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.judging.batch.dying"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, faults.VARIABLE: str(self.points)},
            text=True,
        )

    def at(self, folder: Path) -> Self:
        """Of this folder from now on, with nothing armed."""
        self.cache, self.out = str(folder / "cache.sqlite"), folder / "labels.json"
        self.disarm()
        return self

    def disarm(self) -> None:
        for armed in self.points.iterdir():
            armed.unlink()

    def arm(self, point: str, nth: int = 1) -> None:
        (self.points / point).write_text(str(nth))

    def run(self, endpoint: BatchEndpoint) -> int:
        """The signal that ended the judge, 0 where it was done."""
        assert self._process.stdin and self._process.stdout
        print(self.cache, endpoint.url, self.out, file=self._process.stdin, flush=True)
        status = int(self._process.stdout.readline())
        assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the judge failed by itself"
        return os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0

    def close(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        self._process.wait()


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judges]:
    started = Judges(tmp_path_factory.mktemp("points"))
    yield started
    started.close()


@pytest.fixture
def judges(process: Judges, tmp_path: Path) -> Judges:
    return process.at(tmp_path)


@pytest.fixture
def endpoint() -> Iterator[BatchEndpoint]:
    with BatchEndpoint() as running:
        yield running


def check(endpoint: BatchEndpoint, judges: Judges) -> None:
    """Every pair has its label, and was paid for once."""
    labels = json.loads(judges.out.read_text())
    assert {query: [grade for _, grade in own.values()] for query, own in labels.items()} == {
        f"q{n}": [3, 0, 0] for n in range(QUERIES)
    }
    assert (len(endpoint.paid), set(endpoint.paid.values())) == (PAIRS, {1})


@pytest.mark.parametrize("nth", [1, 2])
@pytest.mark.parametrize("point", faults.BATCH_POINTS)
def test_a_kill_at_any_step_loses_nothing_and_pays_for_nothing_twice(
    point: str, nth: int, judges: Judges, endpoint: BatchEndpoint
) -> None:
    endpoint.plans = [HALF]
    judges.arm(point, nth)
    died = judges.run(endpoint)
    assert died == signal.SIGKILL or (point == "batch.asked" and nth == 2)
    if died:
        assert judges.run(endpoint) == 0
    check(endpoint, judges)


@pytest.mark.parametrize("point", ["batch.planned", "batch.created", "batch.answers.some"])
def test_a_kill_on_postgresql_loses_nothing_either(point: str, judges: Judges, endpoint: BatchEndpoint) -> None:
    judges.cache = server_address()
    engine = sa.create_engine(judges.cache.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as db:
        for table in ("batches", "batch_requests", "judgments", "judges", "spend", "cache_format"):
            db.execute(sa.text(f"DROP TABLE IF EXISTS qrelay_{table} CASCADE"))
    endpoint.plans = [HALF]
    judges.arm(point)
    assert judges.run(endpoint) == signal.SIGKILL
    assert judges.run(endpoint) == 0
    check(endpoint, judges)


def test_kills_and_an_endpoint_that_misbehaves_together_pay_for_nothing_twice(
    judges: Judges, endpoint: BatchEndpoint
) -> None:
    chosen = random.Random(20251129)
    ways = [(False, answer(500, {})), (True, hang_up), (False, answer(429, {})), (True, answer(502, b"<html>"))]
    routes = ("POST /files", "GET /files", "POST /batches", "GET /batches", "GET /batches/*", "GET /files/*/content")
    endpoint.plans = [HALF, Plan("expired", carries=lambda _: False)]
    for _ in range(KILLS):
        judges.arm(chosen.choice(faults.BATCH_POINTS), chosen.randint(1, 2))
        endpoint.faults = {route: [chosen.choice(ways)] for route in chosen.sample(routes, 3)}
        judges.run(endpoint)
    judges.disarm()
    assert judges.run(endpoint) == 0
    check(endpoint, judges)

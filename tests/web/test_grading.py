"""What the screen says is graded is on disk: killed at any moment, and with twenty people at once."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import sqlalchemy as sa

from qrelay.labels.ledger import schema
from qrelay.labels.ledger.ledger import Ledger
from tests.conftest import LONG_S
from tests.labels.builders import graded, judged_set

PEOPLE = 20
PASSAGES = 4
QUERIES = 3
Said = tuple[str, str, str, int]
"""author, query_id, passage_id, grade."""


def until(condition: Callable[[], bool]) -> None:
    while not condition():
        time.sleep(0.01)


@contextlib.contextmanager
def console_process(folder: Path, ledger_url: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """A console in a process of its own, and its address."""
    told = folder / "run" / "console.json"
    told.unlink(missing_ok=True)
    settings = {"QRELAY_SINK__LEDGER": ledger_url, "QRELAY_CONSOLE__RUN_DIR": str(told.parent)}
    command = [sys.executable, "-m", "qrelay.cli.main", "console", "--port", "0", "--data-dir", str(folder)]
    process = subprocess.Popen(command, env={**os.environ, **settings}, stderr=subprocess.DEVNULL)
    try:
        until(lambda: told.exists() or process.poll() is not None)
        yield process, json.loads(told.read_text())["grpc"]
    finally:
        process.kill()
        process.wait()


class Person:
    """Somebody with a browser who grades every pair of the queries, in an order of their own."""

    def __init__(self, number: int) -> None:
        self.name = f"person {number}"
        self._http = httpx.Client(timeout=LONG_S)
        self.acknowledged: list[Said] = []
        self.unanswered: list[Said] = []
        pairs = [(f"q{query}", f"d{passage}#0") for query in range(QUERIES) for passage in range(PASSAGES)]
        pairs = pairs[number % len(pairs) :] + pairs[: number % len(pairs)]
        self.wanted = [(self.name, *pair, (number + place) % 4) for place, pair in enumerate(pairs)]

    def grade(self, url: str, said: Said) -> bool:
        """Whether the console said that it is saved."""
        headers = {"cookie": f"qrelay_person={quote(self.name)}; qrelay_csrf=t", "x-csrf-token": "t", "x-part": "1"}
        _, query_id, passage_id, grade = said
        fields = {"of": "docs", "id": query_id, "passage": passage_id, "grade": str(grade)}
        fields |= {"scale": "0-3", "known": "0", "number": "1"}
        try:
            answer = self._http.post(f"{url}/query/grade", data=fields, headers=headers)
        except httpx.TransportError:
            self.unanswered.append(said)
            return False
        assert answer.status_code == 200, answer.text
        assert f"You graded <strong>{grade}</strong>" in answer.text
        self.acknowledged.append(said)
        return True


def recorded(ledger: Ledger) -> Counter[Said]:
    columns = schema.overrides.c
    chosen = sa.select(columns.author, schema.queries.c.query_id, columns.passage_id, columns.grade).select_from(
        schema.overrides.join(schema.queries, columns.query_no == schema.queries.c.query_no)
    )
    with ledger.snapshot() as snapshot:
        return Counter((row[0], row[1], row[2], row[3]) for row in snapshot.connection.execute(chosen))


def prepared(ledger_url: str) -> Ledger:
    ledger = Ledger.open(ledger_url)
    ledger.commit([judged_set(f"q{number}", outcomes=[graded(0)] * PASSAGES) for number in range(QUERIES)])
    return ledger


@pytest.fixture
def opened(ledger_url: str) -> Iterator[Ledger]:
    ledger = prepared(ledger_url)
    yield ledger
    ledger.close()


def test_twenty_people_at_once_lose_and_duplicate_nothing(opened: Ledger, ledger_url: str, tmp_path: Path) -> None:
    people = [Person(number) for number in range(PEOPLE)]
    with console_process(tmp_path, ledger_url) as (_, url), ThreadPoolExecutor(PEOPLE) as pool:

        def work(person: Person) -> None:
            for said in person.wanted:
                assert person.grade(url, said)

        list(pool.map(work, people))
    wanted = Counter(said for person in people for said in person.wanted)
    assert recorded(opened) == wanted
    assert sum(wanted.values()) == PEOPLE * PASSAGES * QUERIES


def test_a_kill_loses_at_most_what_the_screen_had_not_acknowledged(
    opened: Ledger, ledger_url: str, tmp_path: Path
) -> None:
    people = [Person(number) for number in range(6)]
    with console_process(tmp_path, ledger_url) as (process, url), ThreadPoolExecutor(len(people)) as pool:
        futures = [pool.submit(lambda p: [p.grade(url, said) for said in p.wanted], person) for person in people]
        until(lambda: sum(len(person.acknowledged) for person in people) > 20)
        process.kill()
        for future in futures:
            future.result()
    acknowledged = {said for person in people for said in person.acknowledged}
    unanswered = {said for person in people for said in person.unanswered}
    found = recorded(opened)
    assert unanswered, "the kill came while people were grading"
    assert acknowledged <= found.keys() <= acknowledged | unanswered
    assert set(found.values()) == {1}
    with console_process(tmp_path, ledger_url) as (_, url):
        for person in people:
            for said in list(person.unanswered):
                assert person.grade(url, said)
    assert recorded(opened) == Counter(dict.fromkeys(acknowledged | unanswered, 1))

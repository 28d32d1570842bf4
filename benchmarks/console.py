"""How long the console's pages take on a large ledger, over HTTP, and by which plans the database finds them.

    python -m benchmarks.console [--ledger PLACE] [--judgments 1000000] [--requests 40] [--plans] [--json]

The console runs in a process of its own; one client asks for one page after another, each time another query, word or
place in the list. A page's first request is told apart, because something may be imported or counted for it. Without
--ledger one of `console_ledger` is made in a temporary folder. Grades are written into the ledger. --plans prints,
for SQLite, what EXPLAIN QUERY PLAN says of each page's statements.
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import sqlalchemy as sa

from benchmarks.console_installation import DATA, prepare
from benchmarks.console_ledger import fill
from qrelay.bench.environment import environment
from qrelay.labels.browse import letters, people, queries
from qrelay.labels.browse.choices import choices
from qrelay.labels.browse.one import whole
from qrelay.labels.browse.queries import Wanted
from qrelay.labels.ledger import schema
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.reader import Snapshot
from qrelay.labels.mining.rules import MiningRules

_NEXT = re.compile(r'rel="next" href="([^"]+)"')
_COUNTING = "are being counted"
_LEAST = 20
_FIELD = re.compile(r'name="(csrf|known|passage)" value="([^"]*)"')


@contextlib.contextmanager
def running(ledger: str) -> Iterator[tuple[httpx.Client, str]]:
    """A client of a console over this ledger, and the model version that serves there."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        version = prepare(Path(folder))
        told = Path(folder) / "run" / "console.json"
        settings = {"QRELAY_SINK__LEDGER": ledger, "QRELAY_CONSOLE__RUN_DIR": str(told.parent)}
        command = [sys.executable, "-m", "qrelay.cli.main", "console", "--port", "0", "--data-dir", folder]
        process = subprocess.Popen(command, env={**os.environ, **settings})
        stack.callback(process.wait)
        stack.callback(process.terminate)
        while not told.exists():
            assert process.poll() is None, "the console ended"
            time.sleep(0.05)
        url = json.loads(told.read_text())["grpc"]
        headers = {"accept": "text/html", "x-qrelay-person": "bench"}
        yield stack.enter_context(httpx.Client(base_url=url, headers=headers, timeout=60)), version


class Pages:
    """Addresses to ask for, another one each time."""

    def __init__(self, keys: list[tuple[str, str]], words: list[str]) -> None:
        self._rng, self._keys, self._words = random.Random(5), keys, words
        self.version = ""

    def key(self) -> dict[str, str]:
        """A query, as addresses name it."""
        collection, query_id = self._rng.choice(self._keys)
        return {"of": collection, "id": query_id}

    def word(self) -> str:
        """A word of some query."""
        return self._rng.choice(self._words)

    def two(self) -> str:
        """Two words."""
        return f"{self.word()} {self.word()}"

    def all(self) -> dict[str, Callable[[], tuple[str, dict[str, str]]]]:
        """Name -> path and parameters of one of its pages."""
        small = {"sort": "uncertainty", "collection": "small"}
        return {
            "list": lambda: ("/queries", {}),
            "list, by id in a collection": lambda: ("/queries", {"collection": "bench"}),
            "list, judges differ most": lambda: ("/queries", {"sort": "disagreement"}),
            "list, least certain, of a collection": lambda: ("/queries", small),
            "list, people apart": lambda: ("/queries", {"sort": "apart", "graded": "yes"}),
            "list, missing, of a round": lambda: ("/queries", {"sort": "missing", "missing": "1", "round": "1"}),
            "list, one judge, newest": lambda: ("/queries", {"sort": "newest", "judge": "44efea22"}),
            "search for a word": lambda: ("/queries", {"search": self.word()}),
            "search for two words, sorted": lambda: ("/queries", {"search": self.two(), "sort": "disagreement"}),
            "search in vain": lambda: ("/queries", {"search": f"{self.word()}x"}),
            "dead letters": lambda: ("/queries", {"dead": "1"}),
            "one query": lambda: ("/query", self.key()),
            "one query, in a sorted list": lambda: ("/query", {**self.key(), "sort": "disagreement"}),
            "one query, blind": lambda: ("/query", {**self.key(), "blind": "1"}),
            "people": lambda: ("/people", {"of": "bench"}),
            "home": lambda: ("/", {}),
            "judge": lambda: ("/judge", {}),
            "thresholds": lambda: ("/judge/thresholds", {"of": "bench"}),
            "pipeline": lambda: ("/pipeline", {}),
            "models": lambda: ("/models", {}),
            "one model": lambda: ("/model", {"version": self.version}),
            "judgments of a model": lambda: ("/model/judgments", {"version": self.version, "data": DATA}),
        }  # fmt: skip


def measured(client: httpx.Client, pages: Pages, requests: int) -> dict[str, list[float]]:
    """Name of a page -> milliseconds of its first request, and of `requests` more."""
    found: dict[str, list[float]] = {}
    for name, address in pages.all().items():
        found[name] = [_timed(partial(_page, client, *address()))]
        while _COUNTING in _page(client, *address()):
            pass
        found[name] += [_timed(partial(_page, client, *address())) for _ in range(requests)]
    at = "/queries?sort=disagreement"
    found["the next page, many times over"] = []
    for _ in range(requests + 1):
        made: list[str] = []
        found["the next page, many times over"].append(_timed(lambda: made.append(_page(client, at, {}))))  # noqa: B023
        at = html.unescape(_NEXT.findall(made[0])[-1])
    found["a grade, with the passage"] = [_grade(client, pages.key()) for _ in range(requests + 1)]
    return found


def _page(client: httpx.Client, path: str, parameters: dict[str, str]) -> str:
    answer = client.get(path, params=parameters or None)
    assert answer.status_code == httpx.codes.OK, answer.text[:500]
    return answer.text


def _grade(client: httpx.Client, key: dict[str, str]) -> float:
    fields = dict(_FIELD.findall(_page(client, "/query", key)))
    data = {**key, **{name: html.unescape(value) for name, value in fields.items()}}
    data |= {"grade": "2", "scale": "0-3", "number": "1"}
    headers = {"x-part": "1", "origin": str(client.base_url).rstrip("/")}

    def send() -> None:
        answer = client.post("/query/grade", data=data, headers=headers)
        assert answer.status_code == httpx.codes.OK, answer.text[:500]

    return _timed(send)


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def _figures(first: float, *others: float) -> dict[str, float]:
    p95 = statistics.quantiles(others, n=20, method="inclusive")[-1]
    return {"first_ms": first, "p50_ms": statistics.median(others), "p95_ms": p95}


def plans(ledger: Ledger, key: tuple[str, str]) -> dict[str, list[str]]:
    """Page -> how SQLite finds what its statements ask for."""
    asked: dict[str, Callable[[Snapshot], object]] = {
        "list": lambda s: queries.listed(s.connection, Wanted(), size=50),
        "list, judges differ most": lambda s: queries.listed(s.connection, Wanted(sort="disagreement"), size=50),
        "search, counted": lambda s: queries.counted(s.connection, Wanted(search="bara", collection="bench")),
        "dead letters": lambda s: letters.listed(s.connection, size=50),
        "what lists are narrowed to": choices,
        "one query": lambda s: whole(s, *key, MiningRules()),
        "people": lambda s: people.progress(s.connection, key[0], people.by_scale(s.connection, key[0])),
    }
    found: dict[str, list[str]] = {}
    for name, ask in asked.items():
        with ledger.snapshot() as snapshot:
            statements: list[tuple[str, Any]] = []
            listen = lambda *given: statements.append((given[2], given[3]))  # noqa: B023, E731
            sa.event.listen(snapshot.connection, "before_cursor_execute", listen)
            ask(snapshot)
            sa.event.remove(snapshot.connection, "before_cursor_execute", listen)
            found[name] = [
                str(row[3]) for text, values in statements
                for row in snapshot.connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values)
            ]  # fmt: skip
    return found


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ledger", help="A path or URL of a ledger that `console_ledger` made.")
    parser.add_argument("--judgments", type=int, default=1_000_000)
    parser.add_argument("--requests", type=int, default=40, help=f"Of each page after the first, at least {_LEAST}.")
    parser.add_argument("--plans", action="store_true")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.requests < _LEAST:
        parser.error(f"--requests {arguments.requests}: fewer than {_LEAST} have no 95th percentile")
    with contextlib.ExitStack() as stack:
        place = arguments.ledger or str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "ledger.sqlite")
        ledger = Ledger.open(place)
        stack.callback(ledger.close)
        if not arguments.ledger:
            fill(ledger, arguments.judgments)
        with ledger.snapshot() as snapshot:
            columns = schema.queries.c
            rows = snapshot.connection.execute(sa.select(columns.collection, columns.query_id, columns.text)).all()
            counts = {each.collection: each.judgments for each in snapshot.stats()}
        pages = Pages([(row[0], row[1]) for row in rows], [row[2].split()[3] for row in rows[:1000]])
        with running(place) as (client, pages.version):
            times = measured(client, pages, arguments.requests)
        told = plans(ledger, (rows[0][0], rows[0][1])) if arguments.plans else {}
    figures = {name: _figures(*each) for name, each in times.items()}
    if arguments.json:
        print(json.dumps({"environment": environment(), "judgments": counts, "pages": figures, "plans": told}))
        return
    print(f"{sum(counts.values()):,} judgments of {len(rows):,} queries\n{'page':42} first ms  p50 ms  p95 ms")
    for name, each in figures.items():
        print(f"{name:42} {each['first_ms']:8.0f} {each['p50_ms']:7.0f} {each['p95_ms']:7.0f}")
    for name, lines in told.items():
        print(f"\n{name}\n  " + "\n  ".join(lines))


if __name__ == "__main__":
    main()

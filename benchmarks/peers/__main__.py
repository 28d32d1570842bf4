"""qrelay beside auto-qrels' way and sentence-transformers, by turns.

    python -m benchmarks.peers endpoint [--short] [--out FOLDER]   # a judge behind HTTP that takes 0.3 s an answer
    python -m benchmarks.peers local [--short] [--out FOLDER]      # the judge on this machine

`--short` takes about 3 minutes, the whole run 20 (endpoint) and 120 (local) on two cores. Each finished turn is in
FOLDER/PROFILE.jsonl: the same command goes on where it was stopped. FOLDER/PROFILE.json has the figures; copied to
docs/benchmarks/peers-PROFILE.json they come into docs/benchmarks.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.peers import installed
from benchmarks.peers.autoqrels import AutoQrels
from benchmarks.peers.endpoints import running
from benchmarks.peers.installed import Installed
from benchmarks.peers.material import Label, Material, Way
from benchmarks.peers.mining import Mining
from benchmarks.peers.summary import Turn, agreement, rows
from benchmarks.references.turns import order_of
from qrelay.bench.environment import environment
from qrelay.bench.table import Grid, number, show_grid
from qrelay.types import Query

LATENCY_S, CONCURRENCY, SLOTS = "0.3", 32, "20"
"""Of the endpoint; qrelay's default of simultaneous requests; llama.cpp's slots in auto-qrels' start script."""
MODEL, SHORT_MODEL = "qwen2.5-coder-0.5b-instruct", "smollm2-135m-instruct"
BASE = "auto-qrels"
PLANS = {"endpoint": (6, 8), "local": (6, 8), "short": (2, 2)}
"""Rounds that count, and queries a round; one round more is thrown away."""
WAYS = {
    "endpoint": (BASE, "sentence-transformers", "qrelay", "qrelay-torch"),
    "local": (BASE, "qrelay", "qrelay-likelihood", "qrelay-early"),
}
_JUDGES = {"qrelay": installed.ASKED, "qrelay-likelihood": installed.LIKELIHOOD, "qrelay-early": installed.EARLY}


def way(name: str, material: Material, model: str, url: str) -> Way:
    """One of WAYS; url: of the endpoint, empty where the judge is on this machine."""
    if name == BASE:
        return AutoQrels(material, url or ("llamacpp", model, SLOTS), model)
    if name == "sentence-transformers":
        return Mining(material)
    judge = installed.endpoint(url, CONCURRENCY) if url else _JUDGES[name]
    return Installed(material, model, judge, "torch" if name.endswith("torch") else "openvino")


def rounds_of(queries: Sequence[Query], rounds: int, each: int) -> list[Sequence[Query]]:
    """Round 0, which is thrown away, and those that count; no query twice."""
    if (rounds + 1) * each > len(queries):
        raise SystemExit(f"{rounds + 1} rounds of {each} queries, and there are {len(queries)}: take fewer")
    return [queries[n * each : (n + 1) * each] for n in range(rounds + 1)]


def measure(names: Sequence[str], ways: dict[str, Way], rounds: list[Sequence[Query]], log: Path) -> list[Turn]:
    """All turns, those of an earlier run from its log."""
    turns = list(_read(log))
    done = {(turn.way, turn.number) for turn in turns}
    for number_, queries in enumerate(rounds):
        for name in order_of(names, number_):
            if (name, number_) in done and number_:
                continue
            turns.append(_turn(ways[name], name, number_, queries))
            print(f"{number_}: {name:<22} {turns[-1].seconds:8.1f} s, {len(turns[-1].labels)} labels", flush=True)
            with log.open("a") as file:
                file.write(json.dumps(asdict(turns[-1])) + "\n")
    return turns


def _turn(each: Way, name: str, number_: int, queries: Sequence[Query]) -> Turn:
    before, began = each.cpu_seconds(), time.perf_counter()
    each.label(queries)
    seconds, after = time.perf_counter() - began, each.cpu_seconds()
    spent = {process: used - before.get(process, 0.0) for process, used in after.items()}
    return Turn(name, number_, len(queries), seconds, spent, each.labels(queries))


def _read(log: Path) -> Iterator[Turn]:
    for line in log.read_text("utf8").splitlines() if log.exists() else ():
        found = json.loads(line)
        yield Turn(**found | {"labels": [Label(**each) for each in found["labels"]]})


def report(turns: Sequence[Turn], material: Material, *, hosted: bool) -> dict[str, Any]:
    """The figures of a profile."""
    by_way: dict[str, list[Label]] = {}
    for turn in turns:
        by_way.setdefault(turn.way, []).extend(turn.labels if turn.number else ())
    every = [label for labels in by_way.values() for label in labels]
    keys = ((each.query_id, each.passage_id) for each in every)
    right = dict(zip(keys, material.right(every), strict=True))
    others = [other for other in (BASE, "qrelay") if other in by_way]
    pairs = [(one, other) for one in by_way for other in others if one not in (BASE, other)]
    return {
        "environment": environment(),
        "ways": rows(turns, BASE, hosted=hosted),
        "agreement": [{"way": a, "with": b, **agreement(by_way[a], by_way[b], right)} for a, b in pairs],
    }


def shown(found: dict[str, Any]) -> None:
    """As tables."""
    from rich.console import Console

    for title in ("ways", "agreement"):
        table = [[number(v) if isinstance(v, float | None) else str(v) for v in row.values()] for row in found[title]]
        if table:
            show_grid(Grid(title, list(found[title][0]), table), Console(width=160))


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("profile", choices=WAYS)
    parser.add_argument("--short", action="store_true", help="2 rounds of 2 queries, the smallest model, fewer ways")
    parser.add_argument("--out", type=Path, default=Path("peers"))
    parser.add_argument("--index", type=Path, help="an index folder that holds the collection python-docs")
    parser.add_argument("--rounds", type=int, help="that count")
    parser.add_argument("--queries", type=int, help="a round")
    parser.add_argument("--ways", help="some of them, with commas")
    arguments = parser.parse_args()
    folder: Path = (arguments.out / ("short" if arguments.short else "whole")).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    material, model = Material(folder, arguments.index), SHORT_MODEL if arguments.short else MODEL
    names = arguments.ways.split(",") if arguments.ways else WAYS[arguments.profile]
    count, each = PLANS["short" if arguments.short else arguments.profile]
    log = folder / f"{arguments.profile}.jsonl"
    with contextlib.ExitStack() as stack:
        hosted = arguments.profile == "endpoint"
        url = stack.enter_context(running("double", LATENCY_S))[0] if hosted else ""
        ways = {name: stack.enter_context(way(name, material, model, url))
                for name in names}  # fmt: skip
        rounds = rounds_of(material.queries, arguments.rounds or count, arguments.queries or each)
        turns = measure(names, ways, rounds, log)
    found = report(turns, material, hosted=hosted)
    (folder / f"{arguments.profile}.json").write_text(json.dumps(found, indent=1) + "\n")
    shown(found)


if __name__ == "__main__":
    main()

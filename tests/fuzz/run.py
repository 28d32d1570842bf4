"""Runs parsers over their inputs, each in a process of its own: one that a parser kills is a finding too."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import IO, Any, Final

from tests.fuzz.attempt import Finding, attempt
from tests.fuzz.mutants import monsters, mutant
from tests.fuzz.parser import Parser
from tests.fuzz.parsers import PARSERS

_MOST_CPU_S: Final = 24 * 3600
_A_KIND: Final = 3
"""Findings of one cause that are kept."""


@dataclass(frozen=True)
class Plan:
    """examples: inputs of a parser that costs 1, monsters beside. seconds: instead, processor time of every parser.
    size_mib: of the largest monsters. first: number of the first mutant."""

    examples: int = 100
    seconds: float = 0.0
    size_mib: float = 10
    first: int = 0


@dataclass
class Outcome:
    """What came of one parser. findings: with the name of their input."""

    parser: str
    tried: int = 0
    seconds: float = 0.0
    findings: list[tuple[str, Finding]] = field(default_factory=list)


def seeds_of(parser: Parser) -> Sequence[bytes]:
    """Valid inputs, made anew."""
    with tempfile.TemporaryDirectory(prefix="qrelay-fuzz-seeds-") as folder:
        return parser.seeds(Path(folder))


def run(name: str, plan: Plan, keep: Path) -> Outcome:
    """One parser's run; inputs of findings are written to `keep`."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        with os.fdopen(writing, "w") as out:
            try:
                _child(PARSERS[name], plan, keep, out)
            except BaseException:
                found = Finding(name, "the fuzzer itself failed", "", traceback.format_exc())
                print(json.dumps({"finding": asdict(found), "input": ""}), file=out, flush=True)
        os._exit(0)
    os.close(writing)
    outcome, last = Outcome(name), ""
    with os.fdopen(reading) as lines:
        for line in lines:
            told: dict[str, Any] = json.loads(line)
            last = told.get("begins", last)
            outcome.tried, outcome.seconds = told.get("tried", outcome.tried), told.get("seconds", outcome.seconds)
            if "finding" in told:
                outcome.findings.append((told["input"], Finding(**told["finding"])))
    _, status = os.waitpid(child, 0)
    if status:
        killed = signal.Signals(status).name if status < 64 else f"exit {status >> 8}"
        outcome.findings.append((last, Finding(name, f"the process ended with {killed}", "", "")))
    return outcome


def _child(parser: Parser, plan: Plan, keep: Path, out: IO[str]) -> None:
    logging.disable(logging.CRITICAL)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    resource.setrlimit(resource.RLIMIT_CPU, (_MOST_CPU_S, _MOST_CPU_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    began, tried, kinds = time.process_time(), 0, dict[tuple[str, str, str], int]()
    for name, data in _inputs(parser, plan):
        path = keep / f"{re.sub(r'[^A-Za-z0-9]+', '-', parser.name)}-{name}"
        if tried % 50 == 0 or not name.isdigit():
            print(
                json.dumps({"begins": name, "tried": tried, "seconds": time.process_time() - began}),
                file=out,
                flush=True,
            )
        found = attempt(parser, data)
        tried += 1
        if found is not None and kinds.setdefault(found.key, 0) < _A_KIND:
            kinds[found.key] += 1
            keep.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            print(json.dumps({"finding": asdict(found), "input": str(path)}), file=out, flush=True)
    print(json.dumps({"tried": tried, "seconds": time.process_time() - began}), file=out, flush=True)


def _inputs(parser: Parser, plan: Plan) -> Iterator[tuple[str, bytes]]:
    """(name, input): the monsters, then the mutants."""
    seeds = seeds_of(parser)
    if parser.monsters:
        for name, data in monsters(seeds[0], plan.size_mib):
            yield re.sub(r"[^A-Za-z0-9]+", "-", name), data
    until = time.process_time() + plan.seconds
    most = max(4, plan.examples // parser.cost)
    for number in count(plan.first):
        if time.process_time() >= until if plan.seconds else number - plan.first >= most:
            return
        yield str(number), mutant(seeds, parser.form, number)

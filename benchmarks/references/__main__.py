"""Each service beside its bare library, by turns in one run.

    python -m benchmarks.references [retriever reranker judge sink] [--rounds 7] [--json] [--out FILE]

Starts each service as its own process with its real model, sends items over gRPC on two connections, and
does the same items with the bare library in this process. The service rests during the library's turn and the other
way round. The retriever's index is the demo's (Python documentation), built first unless --index names one.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.references import judge, reranker, retriever, sink
from benchmarks.references.databases import RawPostgresql, RawSqlite, a_server, fresh_database
from benchmarks.references.turns import ROUNDS, Comparison, Timer, by_turns, cpu_seconds
from qrelay import wire
from qrelay.bench.data import Generated, Source
from qrelay.bench.environment import environment
from qrelay.bench.running import Fleet, Plan
from qrelay.bench.targets.recorded import Recorded, read_queries
from qrelay.bench.targets.services import ServiceTarget
from qrelay.demo.answers import CORPUS
from qrelay.demo.answers import HERE as DEMO
from qrelay.models.catalogue import resolve
from qrelay.rundir import Endpoint

COLLECTION = "python-docs"
EMBEDDER, JUDGE = "all-MiniLM-L6-v2", "qwen2.5-coder-0.5b-instruct"
JUDGED_PASSAGES = 5
SETS_A_REQUEST = 32


@contextlib.contextmanager
def serving(service: str, environ: dict[str, str], data_dir: Path | None = None) -> Iterator[Endpoint]:
    """Where one service listens, started here."""
    with Fleet(Plan(environ=environ, data_dir=data_dir)) as fleet:
        yield fleet.start([service])[service]


async def send_all(target: ServiceTarget, items: range) -> None:
    """These items in requests of `target.items`, one outstanding on each connection."""
    requests = iter(range(items.start // target.items, items.stop // target.items))

    async def lane() -> None:
        for number in requests:
            answer = await target.send(number)
            if answer.ok != target.items:
                raise SystemExit(f"{target.name} failed: {target.errors or answer}")

    await asyncio.gather(*(lane() for _ in range(target.channels)))


async def compare(
    comparison: Comparison, address: str, source: Source, per_request: int, bare: Callable[[range], None], rounds: int
) -> dict[str, Any]:
    """The rounds; the comparison as JSON."""
    async with ServiceTarget(comparison.service, address, source, items=per_request) as target:
        comparison.details["items_per_request"] = per_request
        return (await by_turns(comparison, lambda items: send_all(target, items), bare, rounds)).as_json()


def batches(items: range, size: int) -> Iterator[list[int]]:
    """The numbers, `size` at a time."""
    for start in range(items.start, items.stop, size):
        yield list(range(start, min(start + size, items.stop)))


def run_retriever(rounds: int, index: Path, folder: Path) -> list[dict[str, Any]]:
    """Queries in batches of 32."""
    source = Recorded("query", read_queries(DEMO / "queries.jsonl", COLLECTION), tag="bench")
    library = retriever.Bare(index, COLLECTION, EMBEDDER)

    def bare(items: range) -> None:
        for numbers in batches(items, 32):
            library.search([source.item(number).text for number in numbers])

    comparison = Comparison("retriever", retriever.LIBRARY, "queries", 320, {"passages": library.passages})
    with serving("retriever", {"QRELAY_RETRIEVER__INDEX_DIR": str(index)}) as at:
        return [asyncio.run(compare(comparison, at.grpc, source, 32, bare, rounds))]


def run_reranker(rounds: int, index: Path, folder: Path) -> list[dict[str, Any]]:
    """Sets of 100 passages, two a request."""
    source = Generated("retrieved")
    path = reranker.make_cross_encoder(folder / "cross-encoder")
    library = reranker.Bare(path)

    def bare(items: range) -> None:
        for numbers in batches(items, 2):
            library.score([wire.from_proto(source.item(number)) for number in numbers])

    environ = {"QRELAY_RERANKER__SCORER": "cross_encoder", "QRELAY_RERANKER__CROSS_ENCODER": f"path:{path}",
               "QRELAY_RERANKER__MAX_LENGTH": str(reranker.MAX_LENGTH),
               "QRELAY_RERANKER__BATCH_PAIRS": str(reranker.BATCH_PAIRS)}  # fmt: skip
    comparison = Comparison("reranker", reranker.LIBRARY, "sets of 100 pairs", 4)
    with serving("reranker", environ) as at:
        return [asyncio.run(compare(comparison, at.grpc, source, 2, bare, rounds))]


class FewPassages:
    """Generated sets with so many passages left in the judge's sample."""

    def __init__(self, passages: int) -> None:
        self._passages, self._source = passages, Generated("reranked")

    def item(self, number: int) -> Any:
        """See data.Source."""
        message: Any = self._source.item(number)
        sampled = [candidate for candidate in message.candidates if candidate.sampled]
        for candidate in sampled[self._passages :]:
            candidate.sampled = False
        return message

    def describe(self) -> dict[str, Any]:
        """See data.Source."""
        return {**self._source.describe(), "sampled": self._passages}


def run_judge(rounds: int, index: Path, folder: Path) -> list[dict[str, Any]]:
    """One set a request."""
    source = FewPassages(JUDGED_PASSAGES)
    library = judge.Bare(resolve(JUDGE).path)

    def bare(items: range) -> None:
        for number in items:
            library.judge(wire.from_proto(source.item(number)))

    environ = {"QRELAY_JUDGE__BACKEND": "llamacpp", "QRELAY_JUDGE__MODEL": JUDGE, "QRELAY_JUDGE__STRATEGY": "graded"}
    comparison = Comparison("judge", judge.LIBRARY, f"sets of {JUDGED_PASSAGES} passages", 4, {"model": JUDGE})
    with serving("judge", environ) as at:
        return [asyncio.run(compare(comparison, at.grpc, source, 1, bare, rounds))]


def run_sink(rounds: int, index: Path, folder: Path) -> list[dict[str, Any]]:
    """Sets of 25 judgments in requests of 32: SQLite, then PostgreSQL."""
    with contextlib.ExitStack() as stack:
        address = stack.enter_context(a_server())
        postgresql = fresh_database(address, "raw")
        return [
            _sink(rounds, "sqlite", str(folder / "ledger.sqlite"), RawSqlite(folder / "raw.sqlite")),
            _sink(rounds, "postgresql", fresh_database(address, "ours"), RawPostgresql(postgresql)),
        ]


def _sink(rounds: int, database: str, ledger: str, raw: Any) -> dict[str, Any]:
    comparison = Comparison("sink", sink.LIBRARIES[database], "judged sets", 640, {"database": database})
    with serving("sink", {"QRELAY_SINK__LEDGER": ledger}) as at:
        return asyncio.run(_sink_rounds(comparison, at, sink.Bare(ledger, raw, SETS_A_REQUEST), rounds))


async def _sink_rounds(comparison: Comparison, at: Endpoint, bare: sink.Bare, rounds: int) -> dict[str, Any]:
    """The library can only insert what the service committed, so here the service always goes first. Requests are
    made before the turns; processor time is the service's, and of the library this process's."""
    timer = Timer({"wall": time.perf_counter, "service": lambda: cpu_seconds(at.pid), "library": time.process_time})
    source = sink.Made()
    async with ServiceTarget("sink", at.grpc, source, items=SETS_A_REQUEST) as target:
        for number in range(rounds + 1):
            items = range(number * comparison.items_per_round, (number + 1) * comparison.items_per_round)
            source.make(items)
            with timer.timed("service"):
                await send_all(target, items)
            rows = bare.read()
            with timer.timed("library"):
                bare.insert(rows)
    comparison.service_seconds, comparison.library_seconds = (
        timer.spent["wall", side][1:] for side in ("service", "library")
    )
    comparison.details["items_per_request"] = SETS_A_REQUEST
    comparison.details["cpu_ms"] = {
        side: statistics.median(timer.spent[side, side][1:]) / comparison.items_per_round * 1000
        for side in ("service", "library")
    }
    return comparison.as_json()


RUNS = {"retriever": run_retriever, "reranker": run_reranker, "judge": run_judge, "sink": run_sink}


def build_index(folder: Path) -> Path:
    """The demo's index."""
    command = [sys.executable, "-m", "qrelay.cli.main", "index", "build", CORPUS,
               "--collection", COLLECTION, "--out", str(folder)]  # fmt: skip
    subprocess.run(command, check=True, stdout=sys.stderr)
    return folder


def run(services: list[str], rounds: int = ROUNDS, index: Path | None = None) -> dict[str, Any]:
    """All that was asked for, one after the other."""
    with tempfile.TemporaryDirectory() as name:
        if index is None and "retriever" in services:
            index = build_index(Path(name) / "index")
        found = [each for service in services for each in RUNS[service](rounds, index or Path(name), Path(name))]
    return {"environment": environment(), "rounds": rounds, "comparisons": found}


def describe(report: dict[str, Any]) -> str:
    """A line a comparison."""
    return "\n".join(
        f"{each['service']:<10} {each['service_rate']:8.2f} {each['unit']}/s beside {each['library']} "
        f"{each['library_rate']:8.2f}: {each['ratio']:.2f} of it ({each['ratio_interval'][0]:.2f} to "
        f"{each['ratio_interval'][1]:.2f}){_cpu(each['details'])}"
        for each in report["comparisons"]
    )


def _cpu(details: dict[str, Any]) -> str:
    if "cpu_ms" not in details:
        return ""
    service, library = details["cpu_ms"]["service"], details["cpu_ms"]["library"]
    return f"; processor time {service:.2f} and {library:.2f} ms each: {library / service:.2f} of it"


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("services", nargs="*", choices=[*RUNS, []], help="All of them by default.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--index", type=Path, help="An index folder that holds the collection python-docs.")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    report = run(arguments.services or list(RUNS), arguments.rounds, arguments.index)
    if arguments.out:
        arguments.out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=2) if arguments.json else describe(report))


if __name__ == "__main__":
    main()

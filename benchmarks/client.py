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
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import numpy as np

from benchmarks.processes import cpu_seconds, environment
from qrelay import Client, wire
from qrelay.bench.data import Generated
from qrelay.bench.running import Fleet, Plan, simulated
from qrelay.client.methods import JUDGE
from qrelay.rundir import Endpoint
from qrelay.runtime.client import OPTIONS
from qrelay.stats.intervals import cluster_bootstrap
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


def rates(judge: Endpoint, sets: int, turns: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Of every way: sets a second, turn by turn; seconds of processor of this process and of the judge, in all. The
    order is turned each time."""
    source = Generated("reranked")
    asked = ways(judge.grpc, [wire.from_proto(source.item(number)) for number in range(sets)])
    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    used = {kind: [0.0, 0.0] for kind in KINDS}
    for turn in range(-1, turns):
        for kind in (*KINDS[turn % 3 :], *KINDS[: turn % 3]):
            before, began = [cpu_seconds(os.getpid()), cpu_seconds(judge.pid)], time.perf_counter()
            if asked[kind]() != sets:
                raise SystemExit(f"{kind}: not every set was judged")
            if turn >= 0:  # the first turn warms up
                found[kind].append(sets / (time.perf_counter() - began))
                after = cpu_seconds(os.getpid()), cpu_seconds(judge.pid)
                used[kind] = [u + a - b for u, a, b in zip(used[kind], after, before, strict=True)]
    return found, used


def ratio(found: dict[str, list[float]], kind: str) -> dict[str, float]:
    """Median of the turns' ratios to raw, and its interval."""
    ratios = np.array(found[kind]) / np.array(found["raw"])
    middle = cluster_bootstrap(lambda rows: float(np.median(ratios[rows])), np.arange(len(ratios)))
    return {"median": round(middle.estimate, 3), "low": round(middle.low, 3), "high": round(middle.high, 3)}


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=400)
    parser.add_argument("--turns", type=int, default=20)
    told = parser.parse_args()
    with Fleet(Plan(environ=simulated({"judge": 0.0}))) as fleet:
        found, used = rates(fleet.start(["judge"])["judge"], told.sets, told.turns)
    milliseconds = {
        kind: [round(1000 * each / told.sets / told.turns, 2) for each in both] for kind, both in used.items()
    }
    rows = {kind: round(float(np.median(each)), 1) for kind, each in found.items()}
    print(json.dumps({**rows, "ratio": ratio(found, "client"), "records_ratio": ratio(found, "records"),
                      "cpu_ms": milliseconds,
                      "sets": told.sets, "turns": told.turns, **environment()}))  # fmt: skip


if __name__ == "__main__":
    main()

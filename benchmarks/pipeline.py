"""The pipeline with fakes: what qrelay itself costs, beside what NATS alone costs for the same bytes.

    python -m benchmarks.pipeline [--queries 3000] [--sync always] [--secure] [--alone] [--json]

Four service processes and a real nats-server on this machine; the models are the shipped fakes (no
sleep, no model): the retriever answers 100 candidates of about 1 KB each, the reranker keeps 40 and samples
25, the judge grades 25, the sink commits to SQLite. Prints queries/s end to end, CPU-ms a query by process, how long
a query alone takes (no service time is in it), and the raw rate: the same payloads published and consumed by plain
nats-py in the same run.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nats

from benchmarks.references.turns import cpu_seconds
from qrelay import wire
from qrelay.bench.environment import environment
from qrelay.bench.probe import peak_mib
from qrelay.bench.targets.pipeline import PipelineTarget
from qrelay.cli.up import build, nats_tls, secured
from qrelay.config import NatsSettings, Transport
from qrelay.feed.feeder import Feeder
from qrelay.feed.journal import Journal
from qrelay.rundir import endpoints
from qrelay.runtime.client import channel
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.natsaccounts import with_seeds
from qrelay.runtime.natsserver import NatsServer
from qrelay.runtime.supervisor import Supervisor
from qrelay.runtime.topology import Queue
from qrelay.settings.effective import find, renewed
from qrelay.settings.load import transport_of
from qrelay.settings.record import write_record
from qrelay.settings.sections import settings_classes
from qrelay.types import Query
from qrelay.v1 import (
    judge_pb2,
    judge_pb2_grpc,
    reranker_pb2,
    reranker_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    sink_pb2,
    sink_pb2_grpc,
)

SERVICES = ("retriever", "reranker", "judge", "sink")
DOUBLES = {
    "QRELAY_RETRIEVER__ENGINE": "synthetic",
    "QRELAY_RERANKER__SCORER": "fake",
    "QRELAY_JUDGE__BACKEND": "fake",
    "QRELAY_JUDGE__CACHE": ":none:",
    "OMP_NUM_THREADS": "1",
}
COLLECTION = "bench"
_ALONE = 50
"""Queries asked one at a time."""
_ALONE_FROM = 500_000


def query(number: int) -> Query:
    """Query `number`: some forty characters."""
    return Query(f"q{number:06d}", f"how does number {number} relate to {number * 7919 % 1000}?", COLLECTION)


def start(folder: Path, sync: str, secure: bool) -> Supervisor:
    """NATS and the four services, ready; secure: with certificates and users of NATS, as `qrelay up --secure`."""
    os.environ.update(DOUBLES)
    if secure:
        secured(folder, renewed(find(None, folder)), lambda _: None)
    write_record(renewed(find(None, folder)), settings_classes())
    supervisor = build(folder, None, None, 0, SERVICES, print, transport_of(folder))
    if supervisor.nats is None:
        raise SystemExit("the benchmark needs the embedded NATS")
    port, accounts = int(supervisor.nats.url.rsplit(":", 1)[1]), supervisor.nats.accounts
    supervisor.nats = NatsServer(folder / "nats", port=port, sync=sync, tls=nats_tls(folder), accounts=accounts)
    supervisor.start()
    if accounts:
        asyncio.run(declare(queues(supervisor.nats.url, folder)))
    supervisor.await_ready(lambda: endpoints(folder))
    return supervisor


def queues(url: str, folder: Path) -> NatsSettings:
    """How to connect to the server, as its users where it has any."""
    return with_seeds(NatsSettings(url=url).by(transport_of(folder)), folder)


async def declare(nats: NatsSettings) -> None:
    """The streams, as nobody else does: where NATS has users no service may, and beside raw NATS there is none."""
    async with await JetStreamBroker.connect(nats, name="declare", owner=True):
        pass


async def feed(url: str, folder: Path, numbers: range) -> None:
    """Feed as `qrelay feed` does: acknowledged, journalled."""

    async def lines() -> Any:
        for number in numbers:
            each = query(number)
            yield json.dumps({"query_id": each.query_id, "text": each.text})

    async with await JetStreamBroker.connect(queues(url, folder), name="bench") as broker:
        with Journal(folder / "feed.sqlite") as journal:
            await Feeder(broker, journal, collection=COLLECTION).feed(lines())


def wait_for(address: str, transport: Transport, count: int) -> None:
    """Until the ledger holds `count` queries. Asks no sooner than 1,000 queries/s would have committed the rest: each
    answer is the sink's work too."""
    with channel(address, transport) as opened:
        stub = sink_pb2_grpc.SinkServiceStub(opened)

        def left() -> int:
            there = stub.GetStats(sink_pb2.GetStatsRequest(), timeout=10).collections
            return count - sum(each.queries for each in there)

        while (more := left()) > 0:
            time.sleep(max(0.05, more / 1000))


class Asked:
    """Queries that the throughput did not need: bench.data.Source."""

    def item(self, number: int) -> Any:
        """See data.Source."""
        return wire.to_proto(query(_ALONE_FROM + number))

    def describe(self) -> dict[str, Any]:
        """See data.Source."""
        return {}


async def alone(url: str, folder: Path, sink: str, count: int) -> list[float]:
    """Seconds from each query's publication until its commit is seen, one after another; ascending."""
    target = PipelineTarget(
        url, sink, Asked(), transport=transport_of(folder), nkey_seed=queues(url, folder).nkey_seed
    )
    took = []
    async with target:
        for number in range(count):
            began = time.monotonic()
            await target.send(number)
            took.append(time.monotonic() - began)
    return sorted(took)


def run_pipeline(folder: Path, sync: str, count: int, warm_up: int, secure: bool) -> dict[str, Any]:
    """The measured run: rates and CPU by process."""
    supervisor, transport = start(folder, sync, secure), transport_of(folder)
    try:
        url = supervisor.nats.url if supervisor.nats else ""
        found = endpoints(folder)
        pids = {name: found[name].pid for name in SERVICES}
        pids["nats-server"] = supervisor.nats.pid if supervisor.nats else 0
        pids["feeder"] = os.getpid()
        asyncio.run(feed(url, folder, range(warm_up)))
        wait_for(found["sink"].grpc, transport, warm_up)
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        started = time.monotonic()
        asyncio.run(feed(url, folder, range(warm_up, warm_up + count)))
        wait_for(found["sink"].grpc, transport, warm_up + count)
        elapsed = time.monotonic() - started
        cpu = {name: (cpu_seconds(pid) - before[name]) * 1000 / count for name, pid in pids.items()}
        took = asyncio.run(alone(url, folder, found["sink"].grpc, _ALONE))
        return {
            "queries_per_second": count / elapsed,
            "cpu_ms_per_query": cpu,
            "alone_ms": {"p50": 1000 * took[_ALONE // 2], "p90": 1000 * took[_ALONE * 9 // 10]},
            "peak_rss_mib": {name: peak_mib(pid) for name, pid in pids.items()},
            "payloads": payloads(found, transport),
        }
    finally:
        supervisor.stop()


def payloads(found: Any, transport: Transport) -> dict[Queue, bytes]:
    """One query's message in each queue, as the services make it."""
    each = query(0)
    with channel(found["retriever"].grpc, transport) as opened:
        request = retriever_pb2.RetrieveRequest(queries=[wire.to_proto(each)])
        retrieved = (
            retriever_pb2_grpc.RetrieverServiceStub(opened).Retrieve(request, timeout=10).results[0].candidate_set
        )
    with channel(found["reranker"].grpc, transport) as opened:
        to_rerank = reranker_pb2.RerankRequest(candidate_sets=[retrieved])
        reranked = (
            reranker_pb2_grpc.RerankerServiceStub(opened).Rerank(to_rerank, timeout=10).results[0].candidate_set
        )
    with channel(found["judge"].grpc, transport) as opened:
        to_judge = judge_pb2.JudgeRequest(candidate_sets=[reranked])
        judged = judge_pb2_grpc.JudgeServiceStub(opened).Judge(to_judge, timeout=10).results[0].judged_set
    records = {Queue.QUERIES: each, Queue.RETRIEVED: wire.from_proto(retrieved),
               Queue.RERANKED: wire.from_proto(reranked),
               Queue.JUDGED: wire.from_proto(judged)}  # fmt: skip
    return {queue: wire.encode(record)[0] for queue, record in records.items()}


async def raw_publish(url: str, sizes: dict[Queue, bytes], count: int) -> None:
    """Plain nats-py: each query's four payloads published with acknowledgement, 256 at a time."""
    client = await nats.connect(url, pending_size=64 * 1024**2)
    js = client.jetstream(timeout=30)
    gate = asyncio.Semaphore(256)

    async def one(queue: Queue, payload: bytes, number: int) -> None:
        async with gate:
            await js.publish(queue.subject(COLLECTION), payload, headers={"Nats-Msg-Id": f"{queue}-{number}"})

    for start_at in range(0, count, 256):
        numbers = range(start_at, min(start_at + 256, count))
        await asyncio.gather(*(one(queue, payload, n) for n in numbers for queue, payload in sizes.items()))
    await client.close()


async def raw_consume(url: str, queues: Sequence[Queue], count: int) -> None:
    """Plain nats-py: fetch in batches of 32, double-ack."""
    client = await nats.connect(url, pending_size=64 * 1024**2)
    js = client.jetstream(timeout=30)

    async def drain(queue: Queue) -> None:
        lane = next(lane for lane in queue.lanes if lane.takes(queue.subject(COLLECTION)))
        subscription, seen = await js.pull_subscribe_bind(lane.consumer, stream=lane.stream), 0
        while seen < count:
            try:
                messages = await subscription.fetch(32, timeout=5)
            except nats.errors.TimeoutError:
                continue
            await asyncio.gather(*(message.ack_sync(timeout=5) for message in messages))
            seen += len(messages)

    await asyncio.gather(*(drain(queue) for queue in queues))
    await client.close()


def run_raw(folder: Path, sync: str, sizes: dict[Queue, bytes], count: int) -> dict[str, Any]:
    """The same bytes through the same streams without qrelay: publisher and consumer in two processes."""
    server = NatsServer(folder / "raw-nats", sync=sync)
    server.start()
    try:
        asyncio.run(declare(NatsSettings(url=server.url)))
        command = [sys.executable, "-m", "benchmarks.pipeline", "--raw-consumer", server.url, "--queries", str(count)]
        before = cpu_seconds(os.getpid()), cpu_seconds(server.pid)
        started = time.monotonic()
        consumer = subprocess.Popen(command)
        asyncio.run(raw_publish(server.url, sizes, count))
        if consumer.wait():
            raise SystemExit("the raw consumer failed")
        elapsed = time.monotonic() - started
        return {
            "queries_per_second": count / elapsed,
            "cpu_ms_per_query": {
                "publisher": (cpu_seconds(os.getpid()) - before[0]) * 1000 / count,
                "nats-server": (cpu_seconds(server.pid) - before[1]) * 1000 / count,
            },
        }
    finally:
        server.kill()


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=3000)
    parser.add_argument("--sync", default="always", help="sync_interval of the nats-server")
    parser.add_argument("--secure", action="store_true", help="certificates on every connection")
    parser.add_argument("--alone", action="store_true", help="without raw NATS")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--raw-consumer", metavar="URL", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    queues = [queue for queue in Queue if queue is not Queue.DLQ]
    if arguments.raw_consumer:
        asyncio.run(raw_consume(arguments.raw_consumer, queues, arguments.queries))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pipeline = run_pipeline(folder, arguments.sync, arguments.queries, 200, arguments.secure)
        sizes = pipeline.pop("payloads")
        if arguments.alone:
            print(json.dumps({"environment": environment(), "queries": arguments.queries, "pipeline": pipeline}))
            return
        raw = run_raw(folder, arguments.sync, sizes, arguments.queries)
    report = {"environment": environment(), "sync_interval": arguments.sync, "queries": arguments.queries,
              "payload_bytes": {queue.value: len(payload) for queue, payload in sizes.items()},
              "pipeline": pipeline, "raw_nats": raw,
              "share_of_raw": pipeline["queries_per_second"] / raw["queries_per_second"]}  # fmt: skip
    print(json.dumps(report, indent=2) if arguments.json else describe(report))


def describe(report: dict[str, Any]) -> str:
    """The report as text."""
    pipeline, raw = report["pipeline"], report["raw_nats"]
    rows = [f"  {name:<12} {value:6.2f} ms  peak {pipeline['peak_rss_mib'][name]:5.0f} MiB"
            for name, value in pipeline["cpu_ms_per_query"].items()]  # fmt: skip
    total = sum(pipeline["cpu_ms_per_query"].values())
    return "\n".join([
        f"pipeline     {pipeline['queries_per_second']:7.1f} queries/s end to end ({report['queries']} queries, "
        f"sync_interval {report['sync_interval']}, {report['environment']['cores']} cores)",
        "CPU a query:", *rows, f"  {'all':<12} {total:6.2f} ms",
        f"a query alone: p50 {pipeline['alone_ms']['p50']:.1f} ms, p90 {pipeline['alone_ms']['p90']:.1f} ms",
        f"payload bytes {report['payload_bytes']}",
        f"raw NATS     {raw['queries_per_second']:7.1f} queries/s (the same four payloads published and consumed); "
        f"the pipeline reaches {report['share_of_raw']:.0%}",
    ])  # fmt: skip


if __name__ == "__main__":
    main()

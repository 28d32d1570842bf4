"""The retriever through its gRPC door: queries/s in batches of 32, beside its parts alone in the same run.

    python -m benchmarks.retriever --index DIR --collection NAME --queries FILE [--batch 32] [--json]

Without --index it builds one over the Python documentation first (a minute). The service is a process of
its own; the client sends one batch after another on two connections, so that encoding the next answer and
sending the last overlap. Queries are embedded anew each time: nothing is cached.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from benchmarks.processes import cpu_seconds, environment, peak_rss_mib
from qrelay.cli.up import Supervisor, build, is_ready
from qrelay.feed.lines import parse_line
from qrelay.models.embedder import load_embedder
from qrelay.rundir import endpoints
from qrelay.runtime.client import OPTIONS
from qrelay.v1 import records_pb2, retriever_pb2, retriever_pb2_grpc

DEMO_QUERIES = Path(__file__).resolve().parents[1] / "demo" / "queries.jsonl"


def read_queries(path: Path, collection: str) -> list[str]:
    """The texts of a query file."""
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf8") as file:
        return [parse_line(line, collection).text for line in file if line.strip()]


def start(folder: Path, index: Path) -> Supervisor:
    """The retriever alone, without the queue."""
    os.environ["QRELAY_RETRIEVER__INDEX_DIR"] = str(index)
    os.environ["QRELAY_RETRIEVER__WORKER__ENABLED"] = "false"
    supervisor = build(folder, None, "nats://127.0.0.1:9", None, 0, ("retriever",), print)
    supervisor.start()
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        supervisor.watch_once()
        found = endpoints(folder).get("retriever")
        if found and is_ready(found):
            return supervisor
        time.sleep(0.1)
    raise SystemExit("the retriever did not become ready within 120 s")


async def drive(address: str, collection: str, texts: list[str], batch: int) -> list[float]:
    """Every text once, in batches over two connections; latencies in seconds."""
    batches = [texts[start : start + batch] for start in range(0, len(texts), batch)]
    latencies: list[float] = []

    async def lane(number: int) -> None:
        async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
            stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
            for index, chosen in enumerate(batches):
                if index % 2 != number:
                    continue
                queries = [
                    records_pb2.Query(query_id=str(i), text=t, collection=collection) for i, t in enumerate(chosen)
                ]
                began = time.monotonic()
                answer = await stub.Retrieve(retriever_pb2.RetrieveRequest(queries=queries), timeout=60)
                latencies.append(time.monotonic() - began)
                bad = [result.error.message for result in answer.results if result.HasField("error")]
                if bad:
                    raise SystemExit(f"the retriever refused a query: {bad[0]}")

    await asyncio.gather(lane(0), lane(1))
    return latencies


def embedding_alone(texts: list[str], batch: int) -> float:
    """Queries/s of the bare embedder in this process, same batches."""
    embedder = load_embedder("all-MiniLM-L6-v2")
    embedder.encode(texts[:batch])
    began = time.monotonic()
    for start_at in range(0, len(texts), batch):
        embedder.encode(texts[start_at : start_at + batch])
    return len(texts) / (time.monotonic() - began)


def measure(index: Path, collection: str, texts: list[str], batch: int) -> dict[str, Any]:
    """The report."""
    with tempfile.TemporaryDirectory() as name:
        supervisor = start(Path(name), index)
        try:
            endpoint = endpoints(Path(name))["retriever"]
            asyncio.run(drive(endpoint.grpc, collection, texts[: 4 * batch], batch))
            cpu, began = cpu_seconds(endpoint.pid), time.monotonic()
            latencies = asyncio.run(drive(endpoint.grpc, collection, texts, batch))
            elapsed = time.monotonic() - began
            cpu_ms = (cpu_seconds(endpoint.pid) - cpu) * 1000 / len(texts)
            rss = peak_rss_mib(endpoint.pid)
        finally:
            supervisor.stop()
    alone = embedding_alone(texts, batch)
    rate = len(texts) / elapsed
    quantiles = np.quantile(latencies, [0.5, 0.9, 0.99])
    return {"environment": environment(), "collection": collection, "queries": len(texts), "batch": batch,
            "queries_per_second": rate, "cpu_ms_per_query": cpu_ms, "peak_rss_mib": rss,
            "batch_latency_s": dict(zip(("p50", "p90", "p99"), map(float, quantiles), strict=True)),
            "embedding_alone_queries_per_second": alone, "share_of_embedding_alone": rate / alone}  # fmt: skip


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--index", type=Path)
    parser.add_argument("--collection", default="python-docs")
    parser.add_argument("--queries", type=Path, default=DEMO_QUERIES)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        if arguments.index is None:
            arguments.index = Path(name)
            source = f"python-docs:@{DEMO_QUERIES.with_name('modules.txt')}"
            command = [sys.executable, "-m", "qrelay.cli.main", "index", "build", source,
                       "--collection", arguments.collection, "--out", name]  # fmt: skip
            subprocess.run(command, check=True)
        texts = read_queries(arguments.queries, arguments.collection)
        texts = (texts * (1 + 640 // len(texts)))[: max(len(texts), 640)]
        report = measure(arguments.index, arguments.collection, texts, arguments.batch)
    if arguments.json:
        print(json.dumps(report, indent=2))
        return
    latency = report["batch_latency_s"]
    print(f"retriever    {report['queries_per_second']:7.1f} queries/s through gRPC in batches of {report['batch']}, "
          f"embedding included ({report['queries']} queries on {report['collection']})\n"
          f"  batch latency p50 {latency['p50']:.3f} s, p99 {latency['p99']:.3f} s; "
        f"CPU {report['cpu_ms_per_query']:.2f} ms "
          f"a query; peak {report['peak_rss_mib']:.0f} MiB\n"
          f"  embedding alone {report['embedding_alone_queries_per_second']:.1f} queries/s: the service reaches "
          f"{report['share_of_embedding_alone']:.0%} of it")  # fmt: skip


if __name__ == "__main__":
    main()

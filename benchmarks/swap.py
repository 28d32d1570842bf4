"""What a hot swap costs: re-embedding against building, and requests while it goes on against an idle service.

    python -m benchmarks.swap [--corpus FILE] [--limit 400] [--embedder all-MiniLM-L6-v2] [--seconds 20] [--threads 1]

Prints one JSON line:

    build, alone, under_load: passages/s of `qrelay index build`, of re-embedding the same passages with nothing
        else to do, and of re-embedding beside a service that is asked all the time; ratio: alone / build
    idle, during: p50 and p99 in milliseconds of Retrieve with one query, 4 clients in closed loops; `during` counts
        the requests that began and ended while the other process embedded

The other models are copies of --embedder published as versions of a registry: the cost asks for no other bytes.
Both run on the same cores, so the figures depend on what else the machine does: read the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc.aio
import numpy as np

from benchmarks.processes import environment
from qrelay.index.build import BuildRequest, build_index
from qrelay.index.manifest import current_folder, read_manifest
from qrelay.index.reembed import under_way
from qrelay.index.reembed_job import Job, run
from qrelay.index.settings import RetrieverSettings
from qrelay.models.catalogue import resolve
from qrelay.models.embedder import load_embedder
from qrelay.models.registry import BI_ENCODER, Registry, ServedVersion
from qrelay.runtime.client import OPTIONS
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.server import GrpcServer
from qrelay.services.retriever.service import SERVICE
from qrelay.v1 import records_pb2, retriever_pb2, retriever_pb2_grpc

CLIENTS = 4
QUERIES = ("how do I parse a date?", "read a file line by line", "what raises KeyError?", "sort a list by two keys")


async def client(stub: Any, number: int, until: asyncio.Event, spans: list[tuple[float, float]]) -> None:
    """Retrieve, one query a call, until told to stop; (begin, end) of each call in seconds."""
    turn = number
    while not until.is_set():
        turn += 1
        query = records_pb2.Query(query_id=str(turn), text=QUERIES[turn % len(QUERIES)], collection="bench")
        began = time.monotonic()
        answer = await stub.Retrieve(retriever_pb2.RetrieveRequest(queries=[query]), timeout=60)
        spans.append((began, time.monotonic()))
        if answer.results[0].HasField("error"):
            raise SystemExit(f"the retriever refused a query: {answer.results[0].error.message}")


def percentiles(spans: list[tuple[float, float]]) -> dict[str, Any]:
    """p50 and p99 in milliseconds."""
    found = np.array([end - begin for begin, end in spans]) * 1000
    p50, p99 = np.percentile(found, [50, 99]) if len(found) else (float("nan"),) * 2
    return {"p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1), "requests": len(found)}


async def measure(settings: RetrieverSettings, registry: Registry, version: str, seconds: float) -> dict[str, Any]:
    """Idle for `seconds`, then from promotion until the switch."""
    context: ServiceContext[Any, Any] = ServiceContext("retriever", settings, "bench")
    server, home = GrpcServer(settings.grpc, SERVICE.grpc_name), settings.index_folder / "bench"
    SERVICE.add_servicer(server.raw, context)
    address = await server.start()
    context.core = await asyncio.to_thread(SERVICE.load, settings)
    await server.ready(True)
    stopping, spans = asyncio.Event(), list[tuple[float, float]]()
    assert SERVICE.background is not None
    beside = asyncio.ensure_future(SERVICE.background(context, stopping))
    async with grpc.aio.insecure_channel(address, options=OPTIONS) as channel:
        stub = retriever_pb2_grpc.RetrieverServiceStub(channel)
        clients = [asyncio.create_task(client(stub, number, stopping, spans)) for number in range(CLIENTS)]
        await asyncio.sleep(seconds)
        idle = list(spans)
        promote(registry, version)
        wanted, at_work = ServedVersion(version, BI_ENCODER, registry.model_dir(version)).fingerprint, list[float]()
        while wanted not in context.core.fingerprint:
            if under_way(home, wanted):
                at_work.append(time.monotonic())
            await asyncio.sleep(0.05)
        stopping.set()
        await asyncio.gather(*clients)
    await beside
    await server.drain(5)
    SERVICE.close(context.core)
    during = [(begin, end) for begin, end in spans if at_work and at_work[0] <= begin and end <= at_work[-1]]
    return {"idle": percentiles(idle), "during": percentiles(during)}


def promote(registry: Registry, version: str) -> None:
    """Let it serve."""
    registry.record_gate(version, {"passed": True, "against": registry.standing().serving(BI_ENCODER)})
    registry.promote(version)


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", default="python-docs:json,random,shlex,pathlib,collections,datetime,argparse")
    parser.add_argument("--limit", type=int, default=400, help="documents")
    parser.add_argument("--embedder", default="all-MiniLM-L6-v2")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the idle measurement")
    parser.add_argument("--threads", type=int, default=1, help="of the build, of the service and of re-embedding")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        request = BuildRequest(arguments.corpus, "bench", root / "index", arguments.limit)
        model = load_embedder(arguments.embedder, threads=arguments.threads)
        built = build_index(request, model, print).manifest
        registry = Registry(root / "registry")
        copies = [
            registry.publish(resolve(arguments.embedder).path, slot=BI_ENCODER, base=f"{model.fingerprint} copy {n}")
            for n in range(2)
        ]
        promote(registry, copies[0])
        (alone,) = run(Job(root / "index", (), "registry", root / "registry", arguments.threads))
        settings = RetrieverSettings(
            index_dir=root / "index", embedder=arguments.embedder, registry=root / "registry", registry_poll_s=0.2,
            threads=arguments.threads, reembed_threads=arguments.threads,
        )  # fmt: skip
        found = asyncio.run(measure(settings, registry, copies[1], arguments.seconds))
        made = read_manifest(current_folder(root / "index" / "bench"))
        rates = {
            "build": built.passages_per_second,
            "alone": alone["passages_per_second"],
            "under_load": made.passages_per_second,
        }
        ratio = round(alone["passages_per_second"] / built.passages_per_second, 2)
        print(json.dumps({"passages": made.passages, **rates, "ratio": ratio, **found, "machine": environment()}))


if __name__ == "__main__":
    main()

"""Runs the three NATS servers of a rendered installation as a cluster; prints what came of it as JSON.

    unshare NAMESPACES python -m tests.deploy.k8s.cluster_run FOLDER      # see namespaces.py

FOLDER holds installation.yaml. Each server has a network namespace and an address of its own, on a bridge: they find
each other by the names of their configuration.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from qrelay.config import NatsSettings, Transport
from qrelay.errors import TransientError
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import Queue
from qrelay.security.tls import files_of
from tests.deploy.k8s.kubelet import Broken, Node, Pod, pods_of
from tests.deploy.k8s.local_run import bring_up, issued, load
from tests.deploy.k8s.namespaces import loopback_up

BATCH = 50
_ATTEMPTS = 60


def ip(*arguments: str) -> None:
    """ip(8), loudly."""
    subprocess.run(["ip", *arguments], check=True)


def connect(addresses: dict[str, str]) -> None:
    """A bridge, and behind it a network namespace of each pod's name with its address."""
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)  # where ip(8) keeps the names
    ip("link", "add", "pods", "type", "bridge")
    ip("addr", "add", "10.77.0.254/24", "dev", "pods")
    ip("link", "set", "pods", "up")
    for pod, address in addresses.items():
        ip("netns", "add", pod)
        ip("link", "add", f"to-{pod}", "type", "veth", "peer", "name", "eth0", "netns", pod)
        ip("link", "set", f"to-{pod}", "master", "pods", "up")
        ip("-netns", pod, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-netns", pod, "link", "set", "eth0", "up")
        ip("-netns", pod, "link", "set", "lo", "up")


async def publish(broker: JetStreamBroker, first: int) -> None:
    """A batch of messages, each until it is acknowledged."""
    for number in range(first, first + BATCH):
        for _ in range(_ATTEMPTS):
            try:
                await broker.publish(Queue.QUERIES.subject("docs"), b"{}", {}, f"message-{number}")
                break
            except TransientError:
                await asyncio.sleep(0.5)
        else:
            raise Broken(f"message {number} was never acknowledged")


async def use(settings: NatsSettings, pods: list[Pod]) -> dict[str, Any]:
    """Publish with all three, while one ends as the kubelet ends it, with two, and with that one back."""
    broker = await JetStreamBroker.connect(settings, name="test", owner=True)
    await publish(broker, 0)
    ending = asyncio.create_task(asyncio.to_thread(pods[0].stop))
    await publish(broker, BATCH)
    exits = await ending
    await publish(broker, 2 * BATCH)
    await asyncio.to_thread(bring_up, pods[0])
    await publish(broker, 3 * BATCH)
    held = await pending(broker, 4 * BATCH)
    await broker.close()
    return {"exits": exits, "held": held}


async def pending(broker: JetStreamBroker, expected: int) -> int:
    """Messages that wait for the consumer. The server that leads it hears of a stored message after the publisher
    does, so a count below `expected` is looked at again."""
    found = 0
    for _ in range(_ATTEMPTS):
        found = {stats.queue: stats.pending for stats in await broker.stats()}[Queue.QUERIES]
        if found >= expected:
            break
        await asyncio.sleep(0.5)
    return found


def main(folder: Path) -> dict[str, Any]:
    """The cluster up, used, and one server replaced."""
    loopback_up()
    objects = load(folder / "installation.yaml")
    node = Node(folder, [*objects, *issued(folder, objects)])
    servers = node.find("StatefulSet", "nats")
    pods = pods_of(node, servers)
    node.addresses = {pod.name: f"10.77.0.{number}" for number, pod in enumerate(pods, 1)}
    connect(node.addresses)
    subprocess.run(["mount", "--bind", str(node.hosts()), "/etc/hosts"], check=True)
    with ThreadPoolExecutor(len(pods)) as threads:
        ready = dict(zip((pod.name for pod in pods), threads.map(bring_up, pods), strict=True))
    names = ",".join(f"tls://{pod.name}.{servers['spec']['serviceName']}:4222" for pod in pods)
    settings = NatsSettings(url=names, replicas=len(pods), max_stream_bytes=64 * 1024**2).by(
        Transport(files_of(folder / "issued" / "sink-tls"))
    )
    return {"ready_s": ready, **asyncio.run(use(settings, pods))}


if __name__ == "__main__":
    try:
        print(json.dumps(main(Path(sys.argv[1]))), flush=True)
    except Broken as error:
        print(json.dumps({"broken": str(error)}), flush=True)
        os._exit(1)

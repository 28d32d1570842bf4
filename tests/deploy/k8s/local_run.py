"""Runs a rendered installation and a rendered feeder in namespaces of this machine; prints what came of it as JSON.

    unshare --user --map-root-user --mount --net python -m tests.deploy.k8s.local_run FOLDER

FOLDER holds installation.yaml and feeder.yaml; claims named in claims.json (name -> folder) are these folders.
"""

from __future__ import annotations

import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

from tests.deploy.k8s.kubelet import Broken, Node, Pod, pods_of

SERVING = ("StatefulSet", "Deployment")
QRELS = "/srv/qrelay/state/qrels.txt"


def load(file: Path) -> list[dict[str, Any]]:
    """The objects of a rendered file."""
    return [each for each in yaml.safe_load_all(file.read_text("utf8")) if each]


def come_up(node: Node) -> tuple[list[Pod], dict[str, float]]:
    """Start everything at once, as `kubectl apply` does. The serving pods, and seconds until each was ready."""
    serving = [pod for each in node.objects if each["kind"] in SERVING for pod in pods_of(node, each)]
    jobs = [pod for each in node.objects if each["kind"] == "Job" for pod in pods_of(node, each)]
    with ThreadPoolExecutor(len(serving) + len(jobs)) as threads:
        done = [threads.submit(run_job, pod) for pod in jobs]
        ready = {pod.name: threads.submit(bring_up, pod) for pod in serving}
        try:
            seconds = {name: each.result() for name, each in ready.items()}
            for each in done:
                each.result()
        except Broken:
            stop(serving)
            raise
    return serving, seconds


def bring_up(pod: Pod) -> float:
    """Start the pod and wait for its probes."""
    pod.start()
    return pod.await_ready()


def run_job(pod: Pod) -> None:
    """A Job's pod to its end."""
    pod.start()
    pod.complete()


def stop(pods: list[Pod]) -> dict[str, dict[str, int]]:
    """Stop all at once; exit codes by pod and container."""
    running = [pod for pod in pods if pod.processes]
    with ThreadPoolExecutor(max(1, len(running))) as threads:
        return dict(zip((pod.name for pod in running), threads.map(Pod.stop, running), strict=True))


def main(folder: Path) -> dict[str, Any]:
    """Up, feed, export, down."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    claims = {name: Path(path) for name, path in json.loads((folder / "claims.json").read_text("utf8")).items()}
    node = Node(folder, load(folder / "installation.yaml"), claims)
    serving, seconds = come_up(node)
    exits: dict[str, dict[str, int]] = {}
    try:
        node.objects += load(folder / "feeder.yaml")
        feeder = pods_of(node, node.find("Job", "feed"))[0]
        run_job(feeder)
        sink = next(pod for pod in serving if pod.name == "sink-0")
        export = ["qrelay", "export", "qrels", "--collection", "docs", "--out", QRELS, "--ledger"]
        sink.execute("sink", [*export, "/srv/qrelay/state/ledger.sqlite"])
    finally:
        services = [pod for pod in serving if pod.name != "nats-0"]
        exits = stop(services) | stop([pod for pod in serving if pod.name == "nats-0"])
    fed = json.loads(feeder.log_tail("feed").splitlines()[-1])
    qrels = (node.claim("sink-state") / Path(QRELS).name).read_text("utf8").splitlines()
    return {"ready_s": seconds, "fed": fed, "qrels": qrels, "exits": exits}


if __name__ == "__main__":
    try:
        print(json.dumps(main(Path(sys.argv[1]))))
    except Broken as error:
        print(json.dumps({"broken": str(error)}))
        sys.exit(1)

"""Runs a rendered installation and a rendered feeder in namespaces of this machine; prints what came of it as JSON.

    unshare NAMESPACES python -m tests.deploy.k8s.local_run FOLDER      # see namespaces.py

FOLDER holds installation.yaml and feeder.yaml; claims named in claims.json (name -> folder) are these folders.
"""

from __future__ import annotations

import json
import os
import ssl
import sys
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import yaml

from qrelay.security.certs import authority, issue
from tests.deploy.k8s.kubelet import Broken, Node, Pod, pods_of
from tests.deploy.k8s.namespaces import loopback_up
from tests.deploy.k8s.outside import RESOLVER, call_outside, listening

SERVING = ("StatefulSet", "Deployment")
QRELS = "/srv/qrelay/state/qrels.txt"
STATS = "127.0.0.1:7405/v1/stats"


def load(file: Path) -> list[dict[str, Any]]:
    """The objects of a rendered file."""
    return [each for each in yaml.safe_load_all(file.read_text("utf8")) if each]


def issued(folder: Path, objects: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The Secrets that cert-manager would make of these Certificates, by one authority a folder."""
    signer, made = authority(folder / "authority"), []
    for each in (one for one in objects if one["kind"] == "Certificate" and not one["spec"].get("isCA")):
        spec, files = each["spec"], folder / "issued" / each["spec"]["secretName"]
        issue(files, signer, *spec["uris"], [*spec.get("dnsNames", []), *spec.get("ipAddresses", [])])
        data = {name: (files / name).read_text("utf8") for name in ("tls.crt", "tls.key", "ca.crt")}
        made.append({"kind": "Secret", "metadata": {"name": spec["secretName"]}, "stringData": data})
    return made


def counted(folder: Path) -> list[list[Any]]:
    """[collection, queries] by the console, over HTTP, as through `kubectl port-forward`."""
    secure = (folder / "issued").exists()
    context = ssl.create_default_context(cafile=str(folder / "authority" / "ca.crt")) if secure else None
    with urlopen(f"{'https' if secure else 'http'}://{STATS}", timeout=60, context=context) as answer:
        return [[each["collection"], each["queries"]] for each in json.load(answer)["collections"]]


def come_up(node: Node) -> tuple[list[Pod], dict[str, float]]:
    """Start everything at once, as `kubectl apply` does. The serving pods, and seconds until each was ready."""
    serving = [pod for each in node.objects if each["kind"] in SERVING for pod in pods_of(node, each)]
    jobs = [pod for each in node.objects if each["kind"] == "Job" for pod in pods_of(node, each)]
    threads = ThreadPoolExecutor(len(serving) + len(jobs))
    done = [threads.submit(run_job, pod) for pod in jobs]
    ready = {pod.name: threads.submit(bring_up, pod) for pod in serving}
    started: list[Future[Any]] = [*done, *ready.values()]
    for each in as_completed(started):
        each.result()  # the first that breaks ends it all
    return serving, {name: seconds.result() for name, seconds in ready.items()}


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
    with ThreadPoolExecutor(len(pods)) as threads:
        return dict(zip((pod.name for pod in pods), threads.map(Pod.stop, pods), strict=True))


def main(folder: Path) -> dict[str, Any]:
    """`run`, and what was sent to other machines meanwhile; `heard`: whether that would have been noticed."""
    loopback_up()
    with listening(folder) as packets:
        found = run(folder)
        outside = sorted(packets - known_names(folder))
        call_outside()
    return {**found, "outside": outside, "heard": sorted(packets - known_names(folder) - {*outside})}


def known_names(folder: Path) -> set[str]:
    """Questions to the cluster's DNS for Services of the installation: gRPC asks for an address of each kind."""
    services = (each for each in load(folder / "installation.yaml") if each["kind"] == "Service")
    return {f"dns {RESOLVER}: {each['metadata']['name']}" for each in services}


def run(folder: Path) -> dict[str, Any]:
    """Up, feed, export, down."""
    claims = {name: Path(path) for name, path in json.loads((folder / "claims.json").read_text("utf8")).items()}
    objects = load(folder / "installation.yaml")
    node = Node(folder, [*objects, *issued(folder, objects)], claims)
    serving, seconds = come_up(node)
    feeders = load(folder / "feeder.yaml")
    node.objects += [*feeders, *issued(folder, feeders)]
    feeder = pods_of(node, node.find("Job", "feed"))[0]
    run_job(feeder)
    sink = next(pod for pod in serving if pod.name == "sink-0")
    sink.execute("sink", ["qrelay", "export", "qrels", "--collection", "docs", "--out", QRELS])
    labelled = counted(folder)
    nats = [pod for pod in serving if pod.name == "nats-0"]
    exits = stop([pod for pod in serving if pod not in nats]) | stop(nats)
    fed = json.loads(feeder.log_tail("feed").splitlines()[-1])
    qrels = (node.claim("sink-state") / Path(QRELS).name).read_text("utf8").splitlines()
    return {"ready_s": seconds, "fed": fed, "qrels": qrels, "counted": labelled, "exits": exits}


if __name__ == "__main__":
    try:
        print(json.dumps(main(Path(sys.argv[1]))), flush=True)
    except Broken as error:
        print(json.dumps({"broken": str(error)}), flush=True)
        os._exit(1)  # threads may still wait for pods that will never be ready

"""A tiny kubelet: runs rendered pods as processes of this machine, by what their manifests say.

Every container gets its exact command, arguments and environment (ConfigMaps, Secrets and fields of the pod
resolved), its volumes at their mount paths and nothing else that it may write to; init containers run first, Jobs to
their end; probes are those of the manifest with their numbers; the end is preStop, SIGTERM, and the grace period.

To be run in a user, mount and network namespace of its own (namespaces.py), where pods share one address, 127.0.0.1
(their ports differ), unless the node gives them addresses of their own (cluster_run.py). What it does not do: images
(the programs are this environment's), users and groups (user 0 of the namespace), memory and CPU limits,
NetworkPolicies, scheduling, restarts.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.deploy.k8s.probes import passes

Object = dict[str, Any]
IMAGE_CWD = "/srv/qrelay"
CHECKOUT = Path(__file__).resolve().parents[3]
_TAIL_LINES = 15
_MOUNTABLE = ("/srv/", "/tmp", "/dev/shm")


class Broken(Exception):
    """Something that would not have come up, or not gone down, in a cluster either; the text says what."""


@dataclass
class Node:
    """What pods share: the folder of volumes and logs, the objects of the cluster, and given folders for claims."""

    folder: Path
    objects: list[Object]
    claims: dict[str, Path] = field(default_factory=dict)
    addresses: dict[str, str] = field(default_factory=dict)
    """Pod -> address, of pods that have a network namespace of their own (by the pod's name, see `ip netns`)."""

    def find(self, kind: str, name: str) -> Object:
        """The object of this kind and name."""
        for each in self.objects:
            if each["kind"] == kind and each["metadata"]["name"] == name:
                return each
        raise Broken(f"there is no {kind} {name}, which a pod needs")

    def data(self, kind: str, name: str) -> dict[str, str]:
        """The data of a ConfigMap or Secret as text."""
        found = self.find(kind, name)
        encoded = {} if kind == "ConfigMap" else found.get("data", {})
        plain = found.get("data", {}) if kind == "ConfigMap" else found.get("stringData", {})
        return {**plain, **{key: base64.b64decode(value).decode() for key, value in encoded.items()}}

    def hosts(self) -> Path:
        """/etc/hosts with every Service, and every pod of a StatefulSet below its Service."""
        names = [("localhost", ""), (socket.gethostname(), "")]  # the pod's own name, as there
        for each in self.objects:
            if each["kind"] == "Service":
                names.append((each["metadata"]["name"], ""))
            if each["kind"] == "StatefulSet":
                pods = [f"{each['metadata']['name']}-{n}" for n in range(each["spec"].get("replicas", 1))]
                names += [(f"{pod}.{each['spec']['serviceName']}", pod) for pod in pods]
        file = self.folder / "hosts"
        lines = [f"{self.address(pod)} {name}\n" for name, pod in names]
        file.write_text("".join(lines), "utf8")
        return file

    def address(self, pod: str) -> str:
        """Where the pod answers."""
        return self.addresses.get(pod, "127.0.0.1")

    def claim(self, name: str, *, templated: bool = False) -> Path:
        """The folder of a claim; one that is not declared is an error, as the pod would wait for it."""
        if not templated:
            self.find("PersistentVolumeClaim", name)
        folder = self.claims.get(name, self.folder / "claims" / name)
        folder.mkdir(parents=True, exist_ok=True)
        return folder


@dataclass
class Pod:
    """One pod of a workload. `templates`: names of a StatefulSet's claim templates."""

    node: Node
    name: str
    spec: Object
    metadata: Object
    templates: frozenset[str] = frozenset()
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def start(self) -> None:
        """Init containers in order, each to its end; then the containers.

        Raises:
            Broken: an init container failed; its last log lines are in the text.
        """
        for container in self.spec.get("initContainers", []):
            code = self.run(container).wait()
            if code:
                raise Broken(f"init container {container['name']} of {self.name} ended with {code}:\n"
                             f"{self.log_tail(container['name'])}")  # fmt: skip
        for container in self.spec["containers"]:
            self.processes[container["name"]] = self.run(container)

    def run(self, container: Object, argv: list[str] | None = None, log: str = "") -> subprocess.Popen[bytes]:
        """The container's process, or (as `kubectl exec`) another one with its environment and volumes."""
        argv = argv or [*container.get("command", []), *container.get("args", [])]
        inside = {
            "argv": argv,
            "env": self.environment(container),
            "cwd": container.get("workingDir", IMAGE_CWD),
            "hosts": str(self.node.hosts()),
            "mounts": [self._mount(each) for each in container.get("volumeMounts", [])],
            "programs": [str(CHECKOUT), sys.prefix, sys.base_prefix],
            "read_only_root": container.get("securityContext", {}).get("readOnlyRootFilesystem", False),
        }
        name = log or container["name"]
        spec = self._folder("specs") / f"{name}.json"
        spec.write_text(json.dumps(inside), "utf8")
        entry = Path(__file__).with_name("container.py")
        network = ["ip", "netns", "exec", self.name] if self.name in self.node.addresses else []
        with (self._folder("logs") / f"{name}.log").open("ab") as output:
            return subprocess.Popen(
                [
                    *network,
                    "unshare",
                    "--mount",
                    "--propagation",
                    "private",
                    "--",
                    sys.executable,
                    str(entry),
                    str(spec),
                ],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def environment(self, container: Object) -> dict[str, str]:
        """The image's PATH, then envFrom, then env; a reference that leads nowhere is an error."""
        found = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "LANG": "C.UTF-8"}
        found |= {"PYTHONPATH": str(CHECKOUT)}  # this checkout's code, wherever the environment was installed from
        found |= {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")}  # in the place of a CPU limit
        for source in container.get("envFrom", []):
            kind = "ConfigMap" if "configMapRef" in source else "Secret"
            found |= self.node.data(kind, source["configMapRef" if kind == "ConfigMap" else "secretRef"]["name"])
        for each in container.get("env", []):
            found[each["name"]] = each["value"] if "value" in each else self._referenced(each)
        return found

    def _referenced(self, variable: Object) -> str:
        source = variable["valueFrom"]
        if "fieldRef" in source:
            path = source["fieldRef"]["fieldPath"]
            return {"metadata.name": self.name, "metadata.namespace": str(self.metadata["namespace"])}[path]
        kind, key = ("Secret", "secretKeyRef") if "secretKeyRef" in source else ("ConfigMap", "configMapKeyRef")
        data = self.node.data(kind, source[key]["name"])
        if source[key]["key"] not in data:
            raise Broken(f"{kind} {source[key]['name']} has no key {source[key]['key']}, which {self.name} needs")
        return data[str(source[key]["key"])]

    def _mount(self, mounted: Object) -> Object:
        path = mounted["mountPath"]
        if not path.startswith(_MOUNTABLE):
            raise Broken(f"{self.name} mounts at {path}: this kubelet can at {', '.join(_MOUNTABLE)}")
        source = self._source(mounted["name"]) / mounted.get("subPath", "")
        return {"source": str(source), "path": path, "read_only": mounted.get("readOnly", False)}

    def _source(self, name: str) -> Path:
        """The folder behind a volume."""
        if name in self.templates:
            return self.node.claim(f"{name}-{self.name}", templated=True)
        volumes = {each["name"]: each for each in self.spec.get("volumes", [])}
        if name not in volumes:
            raise Broken(f"{self.name} mounts the volume {name}, which it does not have")
        volume = volumes[name]
        if "persistentVolumeClaim" in volume:
            return self.node.claim(volume["persistentVolumeClaim"]["claimName"])
        folder = self._folder(f"volumes/{name}")
        for kind, key in (("ConfigMap", "configMap"), ("Secret", "secret")):
            if key in volume:
                for file, text in self.node.data(kind, volume[key].get("name") or volume[key]["secretName"]).items():
                    (folder / file).write_text(text, "utf8")
        return folder

    def _folder(self, name: str) -> Path:
        folder = self.node.folder / "pods" / self.name / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log_tail(self, name: str) -> str:
        """The last lines that a container wrote."""
        text = (self._folder("logs") / f"{name}.log").read_text("utf8", "replace")
        return "\n".join(text.splitlines()[-_TAIL_LINES:])

    def await_ready(self) -> float:
        """Startup probe, then readiness, then liveness once, as the manifest says. Seconds until ready.

        Raises:
            Broken: a container ended, or its startup probe failed `failureThreshold` times in a row, or one of the
                others fails that long after the start.
        """
        began = time.monotonic()
        for container in self.spec["containers"]:
            for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
                if kind in container:
                    self._await(container, kind)
        return time.monotonic() - began

    def _await(self, container: Object, kind: str) -> None:
        probe = container[kind]
        time.sleep(probe.get("initialDelaySeconds", 0))
        for _ in range(probe.get("failureThreshold", 3)):
            due = time.monotonic() + probe.get("periodSeconds", 10)
            if self._passes(container, probe):
                return
            self.check_running(container["name"])
            time.sleep(max(0.0, due - time.monotonic()))
        raise Broken(f"{kind} of {self.name} never passed:\n{self.log_tail(container['name'])}")

    def _passes(self, container: Object, probe: Object) -> bool:
        """One probe; a command runs inside the pod."""
        if "exec" in probe:
            return self.run(container, probe["exec"]["command"], log="probe").wait() == 0
        return passes(probe, self.node.address(self.name))

    def check_running(self, name: str) -> None:
        """Raises Broken where the container has ended."""
        code = self.processes[name].poll()
        if code is not None:
            raise Broken(f"container {name} of {self.name} ended with {code}:\n{self.log_tail(name)}")

    def complete(self) -> None:
        """Wait for every container to end with 0, as a Job's pod must.

        Raises:
            Broken: one failed.
        """
        for name, process in self.processes.items():
            code = process.wait()
            if code:
                raise Broken(
                    f"container {name} of the Job's pod {self.name} ended with {code}:\n{self.log_tail(name)}"
                )

    def execute(self, container: str, argv: list[str]) -> str:
        """`kubectl exec`: what the command wrote. Raises Broken where it failed."""
        spec = next(each for each in self.spec["containers"] if each["name"] == container)
        code = self.run(spec, argv, log="exec").wait()
        if code:
            raise Broken(f"{' '.join(argv)} in {self.name} ended with {code}:\n{self.log_tail('exec')}")
        return self.log_tail("exec")

    def stop(self) -> dict[str, int]:
        """preStop, SIGTERM, the grace period. Exit codes by container; one that had to be killed is -9."""
        due = time.monotonic() + self.spec.get("terminationGracePeriodSeconds", 30)
        for container in self.spec["containers"]:
            hook = container.get("lifecycle", {}).get("preStop")
            if hook:
                self.run(container, hook["exec"]["command"], log="prestop").wait(max(1.0, due - time.monotonic()))
            self.processes[container["name"]].send_signal(signal.SIGTERM)
        codes = {}
        for name, process in self.processes.items():
            try:
                codes[name] = process.wait(max(0.1, due - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                codes[name] = process.wait()
        return codes


def pods_of(node: Node, workload: Object) -> list[Pod]:
    """The pods that a Deployment, StatefulSet or Job would have."""
    spec, name = workload["spec"], workload["metadata"]["name"]
    metadata = {**spec["template"]["metadata"], "namespace": workload["metadata"]["namespace"]}
    templates = frozenset(each["metadata"]["name"] for each in spec.get("volumeClaimTemplates", []))
    count = 1 if workload["kind"] == "Job" else spec.get("replicas", 1)
    return [Pod(node, f"{name}-{number}", spec["template"]["spec"], metadata, templates) for number in range(count)]

"""The cluster behind the double of the API server: its store, and the controllers that a test plays step by step."""

from __future__ import annotations

import copy
import itertools
import threading
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

Object = dict[str, Any]

NAMESPACE = "qrelay-training"
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def matches(thing: Object, selector: str) -> bool:
    """Whether an object's labels satisfy `key=value,…`."""
    labels = thing["metadata"].get("labels", {})
    return all(
        labels.get(key) == value for key, _, value in (part.partition("=") for part in selector.split(",") if part)
    )


@dataclass
class Cluster:
    """Jobs and pods by name, and what a test does to them. One second passes with each change."""

    namespaces: dict[str, str] = field(default_factory=lambda: {NAMESPACE: str(uuid.uuid4())})
    jobs: dict[str, Object] = field(default_factory=dict)
    pods: dict[str, Object] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    created: list[str] = field(default_factory=list)
    _version: int = 100
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    # what the API server asks

    def create(self, job: Object) -> Object | None:
        """The Job as stored; None: there is one of its name."""
        name = job["metadata"]["name"]
        with self._lock:
            if name in self.jobs:
                return None
            self.created.append(name)
            stored = copy.deepcopy(job)
            stored["metadata"] |= {"uid": str(uuid.uuid4()), "creationTimestamp": self._now()}
            stored["status"] = {}
            self.jobs[name] = stored
            self._change(stored)
            if not stored["spec"].get("suspend"):
                self._begin(stored)
            return copy.deepcopy(stored)

    def job(self, name: str) -> Object | None:
        with self._lock:
            return copy.deepcopy(self.jobs.get(name))

    def listed_pods(self, selector: str) -> list[Object]:
        with self._lock:
            return [copy.deepcopy(each) for each in self.pods.values() if matches(each, selector)]

    def log_of(self, pod: str) -> str | None:
        """None: its container never started."""
        with self._lock:
            return self.logs.get(pod)

    # what a test plays

    def only(self) -> str:
        """The name of the one Job."""
        (name,) = self.jobs
        return name

    def admit(self, name: str) -> None:
        """Kueue lets a suspended Job begin."""
        with self._lock:
            job = self.jobs[name]
            job["spec"]["suspend"] = False
            self._begin(job)

    def runs(self, name: str, log: str = "") -> None:
        """The container of the Job's last pod starts, and has printed so much."""
        with self._lock:
            pod = self.last_pod(name)
            pod["status"] |= {"phase": "Running", "conditions": []}
            self._container(pod, {"running": {"startedAt": self._now()}})
            self.logs[pod["metadata"]["name"]] = log

    def exits(self, name: str, code: int, log: str = "", reason: str = "", message: str = "") -> None:
        """The last pod's container ends, and the Job controller does what the Job's own spec says."""
        with self._lock:
            self.runs(name, log)
            pod = self.last_pod(name)
            pod["status"]["phase"] = "Failed" if code else "Succeeded"
            ended = {"exitCode": code, "reason": reason or ("Error" if code else "Completed")}
            self._container(pod, {"terminated": {**ended, **({"message": message} if message else {})}})
            if code:
                self._after_failure(self.jobs[name], pod, code)
            else:
                self._end(self.jobs[name], "Complete", "CompletionsReached", "")

    def disrupted(self, name: str) -> None:
        """The cluster takes the last pod's node away."""
        with self._lock:
            pod = self.last_pod(name)
            taken = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI",
                     "message": "Eviction API: evicting"}  # fmt: skip
            pod["status"] |= {"phase": "Failed", "conditions": [taken]}
            self._container(pod, {"terminated": {"exitCode": 143, "reason": "Error"}})
            self._after_failure(self.jobs[name], pod, 143)

    def cannot_schedule(self, name: str, message: str) -> None:
        """No node takes the pod."""
        with self._lock:
            unscheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}
            self.last_pod(name)["status"]["conditions"] = [unscheduled]

    def cannot_pull(self, name: str, message: str) -> None:
        """The image is not to be had."""
        with self._lock:
            self._container(self.last_pod(name), {"waiting": {"reason": "ImagePullBackOff", "message": message}})

    def deadline(self, name: str, *, keep_pods: bool = True) -> None:
        """activeDeadlineSeconds are over; the controller deletes pods that still run."""
        with self._lock:
            if not keep_pods:
                for pod in self.pods_of(name):
                    del self.pods[pod["metadata"]["name"]]
            self._end(self.jobs[name], "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")

    def delete(self, name: str) -> None:
        """The TTL is over, or somebody deleted it: the Job and its pods."""
        with self._lock:
            for pod in self.pods_of(name):
                del self.pods[pod["metadata"]["name"]]
            self._change(self.jobs.pop(name))

    def pods_of(self, name: str) -> list[Object]:
        selector = f"batch.kubernetes.io/job-name={name}"
        return [pod for pod in self.pods.values() if matches(pod, selector)]

    def last_pod(self, name: str) -> Object:
        return self.pods_of(name)[-1]

    # the controllers

    def _begin(self, job: Object) -> None:
        job["status"] = {"startTime": self._now(), "active": 1}
        self._pod(job)
        self._change(job)

    def _pod(self, job: Object) -> None:
        name = job["metadata"]["name"]
        labels = {**job["spec"]["template"]["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
        pod = {
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": f"{name}-{next(self._numbers):05d}", "namespace": job["metadata"]["namespace"],
                         "labels": labels, "creationTimestamp": self._now()},
            "spec": copy.deepcopy(job["spec"]["template"]["spec"]),
            "status": {"phase": "Pending"},
        }  # fmt: skip
        self.pods[pod["metadata"]["name"]] = pod

    def _container(self, pod: Object, state: Object) -> None:
        container = pod["spec"]["containers"][0]
        pod["status"]["containerStatuses"] = [
            {"name": container["name"], "image": container["image"], "imageID": "", "ready": "running" in state,
             "restartCount": 0, "state": state}
        ]  # fmt: skip

    def _after_failure(self, job: Object, pod: Object, code: int) -> None:
        """The first rule of the podFailurePolicy that fits; without one the failure counts to the backoffLimit."""
        action = next((r["action"] for r in _rules(job) if _fits(r, pod, code)), "Count")
        status = job["status"]
        if action == "FailJob":
            return self._end(job, "Failed", "PodFailurePolicy", f"exit code {code} matching FailJob rule")
        if action == "Count":
            status["failed"] = status.get("failed", 0) + 1
            if status["failed"] > job["spec"]["backoffLimit"]:
                return self._end(job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
        self._pod(job)
        return self._change(job)

    def _end(self, job: Object, kind: str, reason: str, message: str) -> None:
        now = self._now()
        condition = {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
        job["status"] |= {"active": 0, "conditions": [condition]}
        if kind == "Complete":
            job["status"] |= {"completionTime": now, "succeeded": 1}
        self._change(job)

    def _change(self, job: Object) -> None:
        self._version += 1
        job["metadata"]["resourceVersion"] = str(self._version)

    def _now(self) -> str:
        return (BEGAN + timedelta(seconds=self._version)).isoformat().replace("+00:00", "Z")


def _rules(job: Object) -> list[Object]:
    rules: list[Object] = job["spec"].get("podFailurePolicy", {}).get("rules", [])
    return rules


def _fits(rule: Object, pod: Object, code: int) -> bool:
    if "onExitCodes" in rule:
        return bool((code in rule["onExitCodes"]["values"]) == (rule["onExitCodes"]["operator"] == "In"))
    held = {each["type"] for each in pod["status"].get("conditions", []) if each["status"] == "True"}
    return any(each["type"] in held for each in rule["onPodConditions"])

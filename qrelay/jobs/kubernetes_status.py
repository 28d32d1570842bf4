"""What a Job of batch/v1 and its pods say of a training: pure functions of JSON objects.

Conditions as of https://kubernetes.io/docs/concepts/workloads/controllers/job/#terminal-job-conditions: only
`Complete` and `Failed` are the end; before them a Job runs, also while it waits in a queue or for a node.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from qrelay.jobs.kubernetes_job import CONTAINER
from qrelay.jobs.launcher import JobStatus
from qrelay.labels.ledger.outbox_rows import FAILED, RUNNING, SUCCEEDED

Object = dict[str, Any]


def job_status(job: Object, pods: Sequence[Object] = ()) -> JobStatus:
    """Where the Job stands; `pods`, the oldest first, give a failed one's exit code and reason."""
    status = job.get("status") or {}
    began_us = _time_us(status.get("startTime"))
    if _condition(job, "Complete"):
        return JobStatus(SUCCEEDED, 0, "", began_us, _time_us(status.get("completionTime")))
    failed = _condition(job, "Failed")
    if failed is None:
        waits = "suspended: it waits in its queue" if (job.get("spec") or {}).get("suspend") else ""
        return JobStatus(RUNNING, None, waits, began_us)
    why = [_joined(failed.get("reason"), failed.get("message")), _why(pods[-1]) if pods else "its pods are gone"]
    reason = "; ".join(text for text in why if text)
    code = _exit_code(pods[-1]) if pods else None
    return JobStatus(FAILED, code, reason, began_us, _time_us(failed.get("lastTransitionTime")))


def waiting_lines(pod: Object) -> list[str]:
    """Why a pod has no log: it has no node, its image cannot be pulled, its container cannot be made."""
    status = pod.get("status") or {}
    name = pod["metadata"]["name"]
    lines = [
        f"{name}: {kind}: {_joined(each.get('reason'), each.get('message'))}"
        for kind, each in _conditions(pod)
        if each.get("status") == "False" and each.get("message")
    ]
    waiting = (_container(pod).get("state") or {}).get("waiting")
    if waiting:
        lines.append(f"{name}: the container waits: {_joined(waiting.get('reason'), waiting.get('message'))}")
    if status.get("reason") or status.get("message"):
        lines.append(f"{name}: {_joined(status.get('reason'), status.get('message'))}")
    return lines


def last_words(pod: Object) -> list[str]:
    """The container's termination message: its last lines where it failed and the log is gone."""
    state = _container(pod).get("state") or {}
    return str((state.get("terminated") or {}).get("message") or "").splitlines()


def started(pod: Object) -> bool:
    """Whether the container ever ran, so that there may be a log."""
    container = _container(pod)
    state = container.get("state") or {}
    return bool(state.get("running") or state.get("terminated") or container.get("restartCount"))


def _why(pod: Object) -> str:
    """How the last pod ended: exit code, out of memory, evicted, or that it never started."""
    status = pod.get("status") or {}
    parts = []
    terminated = (_container(pod).get("state") or {}).get("terminated")
    if terminated:
        named = terminated.get("reason") or ""
        parts.append(f"exit code {terminated['exitCode']}" + (f" ({named})" if named not in ("", "Error") else ""))
    parts.append(_joined(status.get("reason"), status.get("message")))
    parts += [
        _joined(each.get("reason"), each.get("message"))
        for kind, each in _conditions(pod)
        if kind == "DisruptionTarget" and each.get("status") == "True"
    ]
    if not terminated:
        parts += waiting_lines(pod)
    return "; ".join(dict.fromkeys(text for text in parts if text))


def _exit_code(pod: Object) -> int | None:
    terminated = (_container(pod).get("state") or {}).get("terminated") or {}
    code = terminated.get("exitCode")
    return None if code is None else int(code)


def _container(pod: Object) -> Object:
    statuses = (pod.get("status") or {}).get("containerStatuses") or []
    return next((each for each in statuses if each.get("name") == CONTAINER), {})


def _conditions(thing: Object) -> list[tuple[str, Object]]:
    return [(each.get("type", ""), each) for each in (thing.get("status") or {}).get("conditions") or []]


def _condition(job: Object, kind: str) -> Object | None:
    return next((each for name, each in _conditions(job) if name == kind and each.get("status") == "True"), None)


def _joined(reason: Any, message: Any) -> str:
    return ": ".join(str(text) for text in (reason, message) if text)


def _time_us(text: Any) -> int | None:
    """Microseconds since 1970 of an RFC 3339 time."""
    return None if not text else round(datetime.fromisoformat(str(text)).timestamp() * 1_000_000)

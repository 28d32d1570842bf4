"""The Job of batch/v1 that a training is: a pure function of the training and the settings.

Its name is the training's, so the API server itself lets it begin once. job.json travels as an annotation of the pod
that a downwardAPI volume turns into a file; a secret is named, never held. Fields as of
https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/, suspension as of
https://kueue.sigs.k8s.io/docs/tasks/run/jobs/.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from qrelay import __version__
from qrelay.identity import digest
from qrelay.jobs.launcher import LEDGER_VARIABLE, TrainingJob
from qrelay.jobs.runner import JOB_VARIABLE
from qrelay.parsing import json_document
from qrelay.rundir import DATA_DIR_VARIABLE
from qrelay.settings.kubernetes import KubernetesSettings

CONTAINER: Final = "trainer"
JOB_ANNOTATION: Final = "qrelay.dev/job"
QUEUE_LABEL: Final = "kueue.x-k8s.io/queue-name"
JOB_FILE: Final = Path("/srv/qrelay/job/job.json")
CONFIG_FILE: Final = Path("/srv/qrelay/config/qrelay.yaml")
_USER: Final = 10001
_SCRATCH: Final = "/tmp"  # noqa: S108 - a folder of the container, an emptyDir
_LABEL_CHARS: Final = 63
_LABEL: Final = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def job_object(job: TrainingJob, settings: KubernetesSettings) -> dict[str, Any]:
    """The object to create. `job.data_dir` is this machine's and is not read, nor is `job.secret_ledger`; with a
    `ledger_secret` the ledger's address is nowhere in it."""
    ledger = "" if settings.ledger_secret else job.ledger
    there = replace(job, data_dir=Path(settings.data_dir), ledger=ledger, secret_ledger="")
    labels = _labels(job)
    queue = {QUEUE_LABEL: settings.queue} if settings.queue else {}
    annotations = {JOB_ANNOTATION: there.document(JOB_FILE).decode()}
    spec: dict[str, Any] = {
        "parallelism": 1,
        "completions": 1,
        "backoffLimit": settings.backoff_limit,
        "activeDeadlineSeconds": settings.active_deadline_s,
        "ttlSecondsAfterFinished": settings.ttl_s,
        "podReplacementPolicy": "Failed",  # never two pods at work in one folder
        "podFailurePolicy": {"rules": _failure_rules(settings)},
        "template": {"metadata": {"labels": labels, "annotations": annotations}, "spec": _pod(there, settings)},
    }
    if settings.queue:
        spec["suspend"] = True  # until Kueue admits it
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job.name, "namespace": settings.namespace, "labels": {**labels, **queue},
                     "annotations": annotations},
        "spec": spec,
    }  # fmt: skip


def is_of(found: dict[str, Any], job: TrainingJob) -> bool:
    """Whether a Job of the cluster is this training's. Its command may differ: what was created first runs."""
    try:
        there = json_document(found["metadata"]["annotations"][JOB_ANNOTATION])
        about = (there["name"], there["collection"], there["change_no"])
    except (KeyError, TypeError, ValueError):
        return False
    return bool(about == (job.name, job.collection, job.change_no))


def _labels(job: TrainingJob) -> dict[str, str]:
    return {
        "app.kubernetes.io/name": "qrelay-trainer",
        "app.kubernetes.io/instance": "qrelay",
        "app.kubernetes.io/version": __version__,
        "app.kubernetes.io/component": "trainer",
        "app.kubernetes.io/part-of": "qrelay",
        "app.kubernetes.io/managed-by": "qrelay-sink",
        "qrelay.dev/collection": label_value(job.collection),
        "qrelay.dev/change-no": str(job.change_no),
        "qrelay.dev/rule": label_value(job.rule),
    }


def label_value(text: str) -> str:
    """The text where it is a valid label value (63 characters, a letter or digit at both ends), else its beginning
    with its hash, which no other text has."""
    if _LABEL.fullmatch(text):
        return text
    hashed = digest(text)[:12]
    begin = re.sub(r"[^A-Za-z0-9_.-]", "-", text)[: _LABEL_CHARS - 1 - len(hashed)].strip("-_.")
    return f"{begin}-{hashed}" if begin else hashed


def _failure_rules(settings: KubernetesSettings) -> list[dict[str, Any]]:
    """Some exit codes end the Job at once; a pod that the cluster took away (drain, preemption) is no attempt."""
    codes = list(settings.final_exit_codes)
    final = {"containerName": CONTAINER, "operator": "In", "values": codes}
    taken = {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}
    return [*([{"action": "FailJob", "onExitCodes": final}] if codes else []), taken]


def _pod(job: TrainingJob, settings: KubernetesSettings) -> dict[str, Any]:
    volumes, mounts = _volumes(settings)
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account or "default",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_container(job, settings, mounts)],
        "volumes": volumes,
    }
    if settings.node_selector:
        pod["nodeSelector"] = dict(settings.node_selector)
    if settings.tolerations:
        pod["tolerations"] = [_without_empty(each.model_dump()) for each in settings.tolerations]
    if settings.priority_class:
        pod["priorityClassName"] = settings.priority_class
    return pod


def _container(job: TrainingJob, settings: KubernetesSettings, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    gpus = {settings.gpu_resource: str(settings.gpus)} if settings.gpus else {}
    return {
        "name": CONTAINER,
        "image": settings.image,
        "command": [word.replace("$(", "$$(") for word in job.filled(JOB_FILE)],  # the kubelet expands $(NAME)
        "env": _environment(job, settings),
        "resources": {
            "requests": {"cpu": settings.cpu, "memory": settings.memory, **gpus},
            "limits": {"memory": settings.memory, **gpus},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",  # last lines that outlive the log
        "volumeMounts": mounts,
    }


def _environment(job: TrainingJob, settings: KubernetesSettings) -> list[dict[str, Any]]:
    """Caches go to scratch, for the root file system is read-only."""
    values = {JOB_VARIABLE: str(JOB_FILE), DATA_DIR_VARIABLE: settings.data_dir, "HOME": _SCRATCH}
    if settings.config_map:
        values["QRELAY_CONFIG"] = str(CONFIG_FILE)
    plain = [{"name": name, "value": value} for name, value in {**values, **settings.env}.items()]
    if not settings.ledger_secret:
        return [*plain, {"name": LEDGER_VARIABLE, "value": job.ledger}]
    key = {"name": settings.ledger_secret, "key": settings.ledger_secret_key}
    return [*plain, {"name": LEDGER_VARIABLE, "valueFrom": {"secretKeyRef": key}}]


def _volumes(settings: KubernetesSettings) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """(volumes, mounts): scratch, job.json, settings, claims, and a folder for the state where no claim holds it."""
    item = {"path": JOB_FILE.name, "fieldRef": {"fieldPath": f"metadata.annotations['{JOB_ANNOTATION}']"}}
    sources: list[tuple[str, dict[str, Any], str, bool]] = [
        ("scratch", {"emptyDir": {}}, _SCRATCH, False),
        ("job", {"downwardAPI": {"items": [item]}}, str(JOB_FILE.parent), True),
    ]
    if settings.gpus > 1:  # NCCL's processes share memory there, and a container has 64 MiB of it
        sources.append(("shared-memory", {"emptyDir": {"medium": "Memory"}}, "/dev/shm", False))  # noqa: S108
    if settings.config_map:
        sources.append(("config", {"configMap": {"name": settings.config_map}}, str(CONFIG_FILE.parent), True))
    for number, (claim, path) in enumerate(sorted(settings.volumes.items())):
        sources.append((f"claim-{number}", {"persistentVolumeClaim": {"claimName": claim}}, path, False))
    if not _held(settings):
        sources.append(("state", {"emptyDir": {}}, settings.data_dir, False))
    volumes = [{"name": name, **source} for name, source, _, _ in sources]
    mounts = [{"name": name, "mountPath": path, "readOnly": only} for name, _, path, only in sources]
    return volumes, mounts


def _held(settings: KubernetesSettings) -> bool:
    """Whether a claim is mounted at data_dir or above it."""
    state = PurePosixPath(settings.data_dir)
    return any(state.is_relative_to(path) for path in settings.volumes.values())


def _without_empty(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value != ""}

"""The settings of the launcher `kubernetes`, `sink.training.kubernetes.*`. Every problem is a field's, so that all
are reported at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import Field, field_validator

from qrelay.config import Section
from qrelay.exitcodes import EXIT_SETUP, EXIT_USAGE

_DNS_LABEL: Final = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
_DNS_NAME: Final = r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$"
_QUANTITY: Final = r"^[0-9]+(\.[0-9]+)?(m|k|[KMGTPE]i?)?$"
_KEY: Final = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
_VALUE: Final = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
_NOT_ENOUGH: Final = 5
"""`qrelay train --job`: too little data; the same again changes nothing (docs/loop.md, The job)."""
RESERVED: Final = ("QRELAY_JOB", "QRELAY_DATA_DIR", "QRELAY_SINK__LEDGER", "QRELAY_CONFIG")
"""Environment variables of a Job that the launcher sets itself."""
PLACES: Final = ("/tmp", "/dev/shm", "/srv/qrelay/job", "/srv/qrelay/config")  # noqa: S108 - of the container
"""Folders of a Job's container that the launcher mounts itself: scratch, shared memory, job.json, settings."""


class Toleration(Section):
    """A taint that a Job's pod bears: the fields of Kubernetes' core/v1 Toleration."""

    key: str = Field("", description="The taint's key; empty, with operator Exists: any taint")
    operator: Literal["Equal", "Exists"] = Field("Equal", description="Whether the value counts")
    value: str = Field("", description="The taint's value")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = Field("", description="Empty: every effect")


class KubernetesSettings(Section):
    """Where and how the launcher `kubernetes` runs a training as a Job of batch/v1."""

    kubeconfig: Path | None = Field(
        None, description="kubeconfig file; empty: the pod's own service account (in-cluster)"
    )
    namespace: str = Field("qrelay-training", pattern=_DNS_LABEL, description="Namespace of the Jobs; it must exist")
    image: str = Field("", description="Image of the trainer, best with its digest; launcher kubernetes needs it")
    service_account: str = Field(
        "default", pattern=_DNS_NAME, description="Service account of the Jobs' pods; its token is not mounted"
    )
    queue: str = Field("", pattern=_DNS_NAME, description="Kueue LocalQueue that admits the Jobs; empty: no Kueue")
    priority_class: str = Field("", pattern=_DNS_NAME, description="PriorityClass of the pods; empty: the cluster's")
    gpus: int = Field(0, ge=0, description="GPUs of a Job")
    gpu_resource: str = Field("nvidia.com/gpu", min_length=3, description="Name of the resource that a GPU is")
    cpu: str = Field("4", pattern=_QUANTITY, description="CPU cores that a Job requests, as a Kubernetes quantity")
    memory: str = Field(
        "16Gi",
        pattern=_QUANTITY,
        description="Memory that a Job requests and is limited to, as a Kubernetes quantity",
    )
    active_deadline_s: int = Field(
        86_400, ge=1, description="Seconds that a Job may run, all attempts together; time in a queue does not count"
    )
    ttl_s: int = Field(
        604_800,
        ge=60,
        description="Seconds after which a Job that ended is deleted; longer than any time without a sink, which "
        "must read its end before",
    )
    backoff_limit: int = Field(2, ge=0, description="Further attempts after one that failed and may be repeated")
    final_exit_codes: tuple[int, ...] = Field(
        (EXIT_USAGE, _NOT_ENOUGH, EXIT_SETUP),
        description="Exit codes after which no further attempt is made: usage, not enough data, setup",
    )
    node_selector: dict[str, str] = Field({}, description="Labels that a node must have")
    tolerations: tuple[Toleration, ...] = Field(
        (), description="Taints that the pods tolerate: a list of key, operator, value, effect"
    )
    volumes: dict[str, str] = Field(
        {}, description="PersistentVolumeClaim -> path in the container: state, registry, models"
    )
    config_map: str = Field(
        "", pattern=_DNS_NAME, description="ConfigMap whose qrelay.yaml is the trainer's settings; empty: none"
    )
    env: dict[str, str] = Field({}, description="Further environment variables of the container; no secrets")
    ledger_secret: str = Field(
        "", pattern=_DNS_NAME, description="Secret in the Jobs' namespace that holds the ledger's whole URL"
    )
    ledger_secret_key: str = Field("url", min_length=1, description="The URL's key in ledger_secret")
    data_dir: str = Field(
        "/srv/qrelay/state",
        pattern="^/.",
        description="{data_dir} of a Job, in its container; an emptyDir where no volume is mounted there or above",
    )
    request_timeout_s: float = Field(10.0, gt=0, description="Seconds to wait for an answer of the API server")

    def __repr_args__(self) -> Iterator[tuple[str, Any]]:
        """What was set, so that an error's text is not all the defaults."""
        return ((name, getattr(self, name)) for name in sorted(self.model_fields_set))

    @field_validator("final_exit_codes")
    @classmethod
    def _codes(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        """In order and without duplicates, as a podFailurePolicy demands."""
        if bad := [code for code in value if not 1 <= code <= 255]:
            raise ValueError(f"{', '.join(map(str, bad))}: exit codes of a failure are 1 to 255")
        return tuple(sorted(set(value)))

    @field_validator("node_selector")
    @classmethod
    def _labels(cls, value: dict[str, str]) -> dict[str, str]:
        bad = [k for k, v in value.items() if not (_KEY.fullmatch(k) and _VALUE.fullmatch(v))]
        if bad:
            raise ValueError(f"{', '.join(bad)}: not a label of Kubernetes with its value")
        return value

    @field_validator("volumes")
    @classmethod
    def _mounts(cls, value: dict[str, str]) -> dict[str, str]:
        bad = [name for name, path in value.items() if not re.match(_DNS_NAME, name) or not path.startswith("/")]
        if bad:
            raise ValueError(
                f"{', '.join(bad)}: give a claim's name and an absolute path, such as models: /srv/models"
            )
        taken = sorted({*PLACES} & {*value.values()})
        if taken or len({*value.values()}) < len(value):
            raise ValueError(f"each claim needs a path of its own, and none of {', '.join(PLACES)}")
        return value

    @field_validator("env")
    @classmethod
    def _free(cls, value: dict[str, str]) -> dict[str, str]:
        if taken := sorted({*RESERVED} & {*value}):
            raise ValueError(f"the launcher sets {', '.join(taken)} itself: take them out")
        return value

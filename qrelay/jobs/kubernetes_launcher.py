"""Trainings as Jobs of a Kubernetes cluster.

A Job's name is its training's: the API server lets one of a name begin, and a conflict means that it already runs.
`kubernetes_job.py` makes the object, `kubernetes_api.py` calls the server, `kubernetes_status.py` reads what the
cluster says. A look at a running Job is one request for it, every `sink.training.poll_s` seconds.

A Job that ended is deleted after `ttl_s`, and its name is free again: what the ledger has recorded (launched, ended)
stays; only a sink that dies between the creation and its record, and is away for the whole of `ttl_s`, would create
the Job a second time.
"""

from __future__ import annotations

import re
from typing import Final

import sqlalchemy as sa

from qrelay.errors import BackendUnavailable, ConfigError, InputError, QrelayError
from qrelay.jobs import kubernetes_status as status_of
from qrelay.jobs.kubernetes_api import Conflict, KubernetesApi, NotFound, Object
from qrelay.jobs.kubernetes_job import CONTAINER, is_of, job_object
from qrelay.jobs.launcher import JobStatus, Launched, TrainingJob
from qrelay.labels.ledger.outbox_rows import FAILED
from qrelay.labels.settings import SinkSettings
from qrelay.settings.kubernetes import KubernetesSettings

_LOG_BYTES: Final = 64 * 1024
_LINE_CHARS: Final = 500
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class KubernetesLauncher:
    """See the module."""

    name = "kubernetes"

    def __init__(self, settings: KubernetesSettings) -> None:
        """Contacts nobody yet. Raises ConfigError: no client library, or no way to a cluster."""
        self._settings = settings
        self._api = KubernetesApi(settings)
        self._place = ""

    @property
    def place(self) -> str:
        """The namespace with its uid: server addresses are alike in many clusters, and a uid is not. Read once.

        Raises:
            BackendUnavailable: the namespace cannot be read.
        """
        if not self._place:
            self._place = f"kubernetes:{self._api.namespace} {self._api.namespace_uid()}"
        return self._place

    def launch(self, job: TrainingJob) -> Launched:
        """See `Launcher`.

        Raises:
            BackendUnavailable: the server does not answer, or does not let this sink create a Job (yet).
            BackendTimeout: it did not answer in time; the Job may have been created, and asking again finds it.
            InputError: the server finds the object invalid, or another Job has its name.
        """
        try:
            self._api.create_job(job_object(job, self._settings))
        except Conflict as error:
            return self._already(job, error)
        return Launched.STARTED

    def _already(self, job: TrainingJob, error: Conflict) -> Launched:
        """What a conflict means: this Job, another one, or (no Job there) a quota that changed meanwhile."""
        try:
            found = self._api.read_job(job.name)
        except NotFound:
            raise BackendUnavailable(f"{error}; there is no Job {job.name}: it is tried again") from error
        if not is_of(found, job):
            raise InputError(
                f"namespace {self._api.namespace} holds another Job named {job.name}, not this training's: delete "
                "it, and trigger again"
            ) from error
        return Launched.ALREADY_THERE

    def status(self, name: str) -> JobStatus | None:
        """See `Launcher`."""
        try:
            found = self._api.read_job(name)
        except NotFound:
            return None
        failed = status_of.job_status(found).state == FAILED
        return status_of.job_status(found, self._api.list_pods(name) if failed else ())

    def tail(self, name: str, lines: int = 20) -> list[str]:
        """See `Launcher`: the log of the last pod that ever ran, and why a later one did not. Lines are cut at 500
        characters."""
        pods = self._api.list_pods(name)
        ran = [pod for pod in pods if status_of.started(pod)]
        found = self._log(ran[-1], lines) if ran else []
        if pods and pods[-1] not in ran:
            found += status_of.waiting_lines(pods[-1])
        return [_CONTROL.sub("\N{REPLACEMENT CHARACTER}", line)[:_LINE_CHARS] for line in found[-lines:]]

    def _log(self, pod: Object, lines: int) -> list[str]:
        """The log; where it cannot be had any more (its node is gone), the container's last words and that."""
        try:
            text = self._api.read_log(pod["metadata"]["name"], CONTAINER, lines, _LOG_BYTES)
        except QrelayError as error:
            return [*status_of.last_words(pod), f"(the whole log cannot be read: {error})"]
        return text.splitlines()

    def close(self) -> None:
        """See `Launcher`: closes idle connections."""
        self._api.close()


def kubernetes_launcher(settings: SinkSettings) -> KubernetesLauncher:
    """The launcher of a sink.

    Raises:
        ConfigError: there is no client library or no way to a cluster, or the ledger's password would have to be
            written into the Job.
    """
    ours = settings.training.kubernetes
    url = settings.ledger_url
    if not ours.ledger_secret and "://" in url and _has_password(url):
        raise ConfigError(
            "sink.ledger has a password, which no Job's object may hold: put the whole URL into a Secret of "
            f"namespace {ours.namespace}, and set sink.training.kubernetes.ledger_secret to its name"
        )
    return KubernetesLauncher(ours)


def _has_password(url: str) -> bool:
    parsed = sa.make_url(url)
    return bool(parsed.password or parsed.query.get("password"))

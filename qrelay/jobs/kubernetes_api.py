"""The few calls of the Kubernetes API that the launcher needs, as JSON in and out, and what their errors mean.

Each call takes one verb on one resource of one namespace (`VERBS`): that is the Role to grant. A refusal that an
operator can fix (401, 403, a namespace that is absent) is a reason to try again later; an object that the server
finds invalid (400, 413, 422) never can start. The client's own retries are off: the dispatcher retries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

from qrelay.errors import BackendTimeout, BackendUnavailable, ConfigError, InputError
from qrelay.parsing import json_document
from qrelay.settings.kubernetes import KubernetesSettings

VERBS: Final = {
    ("", "namespaces"): ("get",),
    ("batch", "jobs"): ("create", "get"),
    ("", "pods"): ("list",),
    ("", "pods/log"): ("get",),
}
"""All that the launcher is allowed to need in its namespace: (API group, resource) -> verbs."""
_INVALID: Final = (400, 413, 422)
_TEXT_CHARS: Final = 500

Object = dict[str, Any]


class NotFound(BackendUnavailable):
    """The server knows no object of this name."""


class Conflict(BackendUnavailable):
    """The server has an object of this name, or changed another one meanwhile."""


class KubernetesApi:
    """Calls of one namespace. Every method raises InputError or BackendUnavailable (NotFound, Conflict) as the module
    says."""

    def __init__(self, settings: KubernetesSettings) -> None:
        """Raises ConfigError: the client library is absent, or there is no way to the cluster."""
        configuration = _configuration(settings)
        from kubernetes import client

        self._client = client.ApiClient(configuration)
        self._batch, self._core = client.BatchV1Api(self._client), client.CoreV1Api(self._client)
        self._namespace = settings.namespace
        self._timeout_s = settings.request_timeout_s

    @property
    def namespace(self) -> str:
        """Where the Jobs are."""
        return self._namespace

    def namespace_uid(self) -> str:
        """The namespace's uid, which no other one has, in whichever cluster."""
        found = self._call("get", "namespaces", self._core.read_namespace, name=self._namespace)
        with self._errors("get", "namespaces"):
            if not isinstance(found["metadata"], dict) or "uid" not in found["metadata"]:
                raise ValueError("no namespace with a uid")
        return str(found["metadata"]["uid"])

    def create_job(self, body: Object) -> Object:
        """Creates it, once: Conflict where there is one of its name."""
        return self._call("create", "jobs", self._batch.create_namespaced_job, namespace=self._namespace, body=body)

    def read_job(self, name: str) -> Object:
        """The Job as it is now."""
        return self._call("get", "jobs", self._batch.read_namespaced_job, namespace=self._namespace, name=name)

    def list_pods(self, job_name: str) -> list[Object]:
        """The pods of a Job, the oldest first."""
        selector = f"batch.kubernetes.io/job-name={job_name}"
        listing = self._core.list_namespaced_pod
        found = self._call("list", "pods", listing, namespace=self._namespace, label_selector=selector)
        pods: list[Object] = found.get("items") or []
        return sorted(pods, key=lambda pod: (pod["metadata"].get("creationTimestamp", ""), pod["metadata"]["name"]))

    def read_log(self, pod: str, container: str, lines: int, limit_bytes: int) -> str:
        """The last lines of a container's log."""
        read = self._core.read_namespaced_pod_log
        with self._errors("get", "pods/log"):
            response = read(
                name=pod,
                namespace=self._namespace,
                container=container,
                tail_lines=lines,
                limit_bytes=limit_bytes,
                _request_timeout=self._timeout_s,
                _preload_content=False,  # the client would make one line's JSON something else
            )
            if response.status != 200:
                _raise_status(response)
            return bytes(response.data).decode(errors="replace")

    def close(self) -> None:
        """Closes idle connections."""
        self._client.close()

    def _call(self, verb: str, resource: str, call: Callable[..., Any], **arguments: Any) -> Object:
        """The answer as JSON."""
        with self._errors(verb, resource):
            answer = self._client.sanitize_for_serialization(call(**arguments, _request_timeout=self._timeout_s))
            if not isinstance(answer, dict) or "metadata" not in answer:
                raise ValueError("not an object")
            return answer

    @contextmanager
    def _errors(self, verb: str, resource: str) -> Iterator[None]:
        """Translates what the client library raises."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError, NewConnectionError
        from urllib3.exceptions import TimeoutError as NoAnswer

        where = f"{verb} {resource} in namespace {self._namespace}"
        try:
            yield
        except ApiException as error:
            raise _translated(error, verb, resource, self._namespace) from error
        except (HTTPError, OSError) as error:
            if isinstance(error, NoAnswer) and not isinstance(error, NewConnectionError):  # which urllib3 makes one
                raise BackendTimeout(
                    f"the Kubernetes API does not answer within {self._timeout_s:g} s ({where}): {error}"
                ) from error
            raise BackendUnavailable(f"the Kubernetes API cannot be reached ({where}): {error}") from error
        except Exception as error:  # whatever the client's models raise at JSON that is not theirs
            raise BackendUnavailable(
                f"the Kubernetes API answered what is not an object of its kind ({where}): {str(error)[:_TEXT_CHARS]}"
            ) from error


def _configuration(settings: KubernetesSettings) -> Any:
    try:
        from kubernetes import client, config
    except ImportError as error:
        raise ConfigError(
            "sink.training.launcher is kubernetes, and its client is not installed: pip install "
            "'qrelay[sink-kubernetes]'"
        ) from error
    configuration = client.Configuration()
    try:
        if settings.kubeconfig is None:
            config.load_incluster_config(configuration)
        else:
            file = str(settings.kubeconfig)
            config.load_kube_config(file, client_configuration=configuration, persist_config=False)
    except Exception as error:  # whatever the client's readers raise at a file that is no kubeconfig
        found = settings.kubeconfig or "no kubeconfig, and this is not a pod with a service account's token"
        raise ConfigError(
            f"cannot reach a Kubernetes cluster: {found}: {error}; set sink.training.kubernetes.kubeconfig"
        ) from error
    configuration.retries = False
    return configuration


def _raise_status(response: Any) -> None:
    from kubernetes.client.exceptions import ApiException

    raise ApiException(http_resp=response)


def _translated(error: Any, verb: str, resource: str, namespace: str) -> InputError | BackendUnavailable:
    """What an answer of the server means."""
    said, where = _said(error), f"{verb} {resource} in namespace {namespace}"
    if error.status == 404:
        return NotFound(f"the Kubernetes API finds nothing to {where}: {said}; does the namespace exist?")
    if error.status == 409:
        return Conflict(f"the Kubernetes API reports a conflict ({where}): {said}")
    if error.status in _INVALID:
        return InputError(
            f"the Kubernetes API refuses the object ({error.status}, {where}): {said}; correct "
            "sink.training.kubernetes and trigger again"
        )
    if error.status == 401:
        return BackendUnavailable(
            f"the Kubernetes API does not accept the credentials ({where}): {said}; renew the service account's "
            "token or the kubeconfig; it is tried again"
        )
    if error.status == 403:
        return BackendUnavailable(
            f"the sink's service account may not {where}: {said}; grant it verb {verb} on resource {resource} there, "
            "or raise the quota; it is tried again"
        )
    return BackendUnavailable(f"the Kubernetes API failed ({error.status}, {where}): {said}; it is tried again")


def _said(error: Any) -> str:
    """The message of the server's Status object, or what it sent instead."""
    body = str(error.body or error.reason or "no reason given")
    try:
        message = json_document(body)["message"]
    except (ValueError, KeyError, TypeError):
        message = body
    return " ".join(str(message).split())[:_TEXT_CHARS]

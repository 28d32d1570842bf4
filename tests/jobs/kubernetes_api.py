"""A double of the Kubernetes API server for trainings: HTTP on this machine, RBAC and mischief.

Speaks what the sink's launcher may use: Jobs (create, get), Pods (list), a pod's log, the namespace. A
Job that is posted is validated (`kubernetes_validation.py`) and kept in a `Cluster` (`kubernetes_cluster.py`), which
plays the controllers: a Job's pods, its podFailurePolicy and backoffLimit, Kueue's admission, deletion after the TTL.
https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import copy
import json
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import yaml

from qrelay.jobs.kubernetes_api import VERBS
from tests.jobs.kubernetes_cluster import Cluster
from tests.jobs.kubernetes_validation import problems

Object = dict[str, Any]
Rule = tuple[str, str, str]
"""(API group, resource, verb)"""

ALL_RULES: set[Rule] = {(group, kind, verb) for (group, kind), verbs in VERBS.items() for verb in verbs}
_PATHS = (
    ("", "namespaces", re.compile(r"/api/v1/namespaces/(?P<name>[^/]+)")),
    ("", "pods", re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/pods")),
    ("", "pods/log", re.compile(r"/api/v1/namespaces/(?P<namespace>[^/]+)/pods/(?P<name>[^/]+)/log")),
    ("batch", "jobs", re.compile(r"/apis/batch/v1/namespaces/(?P<namespace>[^/]+)/jobs(/(?P<name>[^/]+))?")),
)


@dataclass
class Mischief:
    """What the next `times` requests of a verb on a resource meet: an HTTP status; "garbage" (200, not JSON); "slow"
    (done, and answered after `slow_s`); "lost" (done, and the connection ends without an answer)."""

    verb: str
    resource: str
    what: int | str
    times: int = 1


@dataclass
class ApiServer:
    """A running server. `rules`: what the one account that asks may do; `asked`: (verb, resource, name) of every
    request, in order."""

    cluster: Cluster = field(default_factory=Cluster)
    rules: set[Rule] = field(default_factory=lambda: set(ALL_RULES))
    slow_s: float = 1.0
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    mischief: list[Mischief] = field(default_factory=list)
    url: str = ""

    def misbehave(self, verb: str, resource: str, what: int | str, times: int = 1) -> None:
        """See `Mischief`."""
        self.mischief.append(Mischief(verb, resource, what, times))

    def take(self, verb: str, resource: str) -> int | str | None:
        """The mischief that this request meets."""
        for each in self.mischief:
            if (each.verb, each.resource) == (verb, resource) and each.times > 0:
                each.times -= 1
                return each.what
        return None

    def count(self, verb: str, resource: str) -> int:
        """How often that was asked."""
        return sum((each[0], each[1]) == (verb, resource) for each in list(self.asked))

    def kubeconfig(self, folder: Path) -> Path:
        """A kubeconfig file for this server."""
        file = folder / "kubeconfig"
        context = {"name": "c", "context": {"cluster": "c", "user": "sink"}}
        document = {
            "apiVersion": "v1", "kind": "Config", "current-context": "c", "contexts": [context],
            "clusters": [{"name": "c", "cluster": {"server": self.url}}],
            "users": [{"name": "sink", "user": {"token": "a-token"}}],
        }  # fmt: skip
        file.write_text(yaml.safe_dump(document))
        return file


@contextmanager
def serving(server: ApiServer) -> Iterator[ApiServer]:
    """The server on a free port, until the block ends; then no request and no thread of it is left."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"api": server}))
    http.daemon_threads = True  # idle connections that a killed client's kernel keeps are not waited for
    server.url = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


class _Handler(BaseHTTPRequestHandler):
    api: ApiServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None:
        """Nothing: tests read what the launcher says."""

    def handle(self) -> None:
        with suppress(BrokenPipeError, ConnectionResetError):  # clients are killed
            super().handle()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def _answer(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        found = [(group, kind, match) for group, kind, path in _PATHS if (match := path.fullmatch(url.path))]
        if not found:
            return self._status(404, "NotFound", f"no such path: {url.path}")
        group, resource, match = found[0]
        parts = match.groupdict()
        name = parts.get("name") or ""
        verb = "create" if self.command == "POST" else "get" if name else "list"
        self.api.asked.append((verb, resource, name))
        if self.headers.get("Authorization") != "Bearer a-token":
            return self._status(401, "Unauthorized", "Unauthorized")
        if (group, resource, verb) not in self.api.rules:
            return self._status(403, "Forbidden", f'{resource} is forbidden: User "sink" cannot {verb} it')
        trouble = self.api.take(verb, resource)
        if isinstance(trouble, int):
            return self._status(trouble, "Trouble", "made on purpose")
        if trouble == "garbage":
            return self._send(200, b"<html>not an API server</html>", "text/html")
        answer = self._do(verb, resource, parts.get("namespace") or name, name, query, body)
        if trouble == "slow":
            time.sleep(self.api.slow_s)
        if trouble == "lost":
            self.close_connection = True
            return None
        return self._send(*answer)

    def _do(
        self, verb: str, resource: str, namespace: str, name: str, query: dict[str, str], body: bytes
    ) -> tuple[int, bytes, str]:
        """The request done; (HTTP status, body, content type)."""
        cluster = self.api.cluster
        if namespace not in cluster.namespaces:
            return _refusal(404, "NotFound", f'namespaces "{namespace}" not found')
        if resource == "namespaces":
            metadata = {"name": name, "uid": cluster.namespaces[name]}
            return _json(200, {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        if resource == "pods/log":
            text = cluster.log_of(name)
            lines = [] if text is None else text.splitlines()[-int(query.get("tailLines", "100000")) :]
            if text is None:
                return _refusal(400, "BadRequest", f'container in pod "{name}" is waiting to start')
            return 200, "".join(f"{line}\n" for line in lines).encode(), "text/plain"
        if verb == "create":
            return self._create(json.loads(body))
        if verb == "get":
            job = cluster.job(name)
            return _json(200, job) if job else _refusal(404, "NotFound", f'jobs.batch "{name}" not found')
        listed = cluster.listed_pods(query.get("labelSelector", ""))
        return _json(200, {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": listed})

    def _create(self, job: Object) -> tuple[int, bytes, str]:
        if wrong := problems(job):
            return _refusal(422, "Invalid", f"Job is invalid: {'; '.join(wrong)}")
        made = self.api.cluster.create(job)
        if made is None:
            return _refusal(409, "AlreadyExists", f'jobs.batch "{job["metadata"]["name"]}" already exists')
        return _json(201, made)

    def _status(self, code: int, reason: str, message: str) -> None:
        self._send(*_refusal(code, reason, message))

    def _send(self, code: int, body: bytes, kind: str = "application/json") -> None:
        self.send_response(code)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _refused(code: int, reason: str, message: str) -> Object:
    return {"apiVersion": "v1", "kind": "Status", "metadata": {}, "status": "Failure", "code": code,
            "reason": reason, "message": message}  # fmt: skip


def _refusal(code: int, reason: str, message: str) -> tuple[int, bytes, str]:
    return _json(code, _refused(code, reason, message))


def _json(code: int, content: Object) -> tuple[int, bytes, str]:
    return code, json.dumps(content).encode(), "application/json"


def rules_of(roles: Iterable[Object]) -> set[Rule]:
    """What Roles grant."""
    rules = [rule for role in roles for rule in copy.deepcopy(role["rules"])]
    return {(g, r, v) for rule in rules for g in rule["apiGroups"] for r in rule["resources"] for v in rule["verbs"]}

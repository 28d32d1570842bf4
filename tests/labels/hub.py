"""A hub on this machine: the calls that huggingface_hub makes to create a dataset or model repository and upload a
folder.

It keeps what it is sent, remembers every request, asks for a token, and fails on order: `fail(part, status)` answers
the next request that holds `part` (of "METHOD /path") with that status.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_thisIsTheTokenOfTheTests"


@dataclass
class Repository:
    """path -> content, as the last commit has it."""

    private: bool
    kind: str = "dataset"
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0


@dataclass
class Hub:
    """What the hub holds and what it was asked."""

    endpoint: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """LFS objects by sha256."""
    requests: list[str] = field(default_factory=list)
    failures: list[tuple[str, int]] = field(default_factory=list)
    history: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    """(repository, its files) after each commit."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def fail(self, part: str, status: int) -> None:
        """Answer one request with `part` in it by `status`."""
        self.failures.append((part, status))

    def asked(self, method: str, part: str) -> int:
        """Requests of this method whose path holds `part`."""
        return sum(each.startswith(f"{method} ") and part in each for each in self.requests)

    def answer(self, method: str, path: str, authorization: str, body: bytes) -> tuple[int, Any]:
        """(status, JSON) of one request."""
        self.requests.append(f"{method} {path}")
        due = next((each for each in self.failures if each[0] in self.requests[-1]), None)
        if due is not None:
            self.failures.remove(due)
            return due[1], {"error": "on order"}
        if path.startswith("/lfs/"):
            return self._store(path.removeprefix("/lfs/"), body)
        if authorization != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if "/resolve/" in path:
            return self._resolve(path)
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        return self._on_repository(path, body)

    def _store(self, oid: str, body: bytes) -> tuple[int, Any]:
        if hashlib.sha256(body).hexdigest() != oid:
            return 400, {"error": "these bytes have another hash"}
        self.objects[oid] = body
        return 200, {}

    def _create(self, asked: dict[str, Any]) -> tuple[int, Any]:
        repo = f"{asked['organization']}/{asked['name']}"
        kind = asked.get("type", "model")
        url = f"{self.endpoint}/{'datasets/' if kind == 'dataset' else ''}{repo}"
        if repo in self.repositories:
            return 409, {"error": f"You already created this {kind} repo", "url": url}
        self.repositories[repo] = Repository(asked.get("visibility") == "private", kind)
        return 200, {"url": url, "name": repo}

    def _resolve(self, path: str) -> tuple[int, Any]:
        repo, _, rest = path.removeprefix("/datasets/").partition("/resolve/")
        found = self.repositories[repo].files.get(rest.partition("/")[2])
        return (404, {"error": "Entry not found"}) if found is None else (200, found)

    def _batch(self, asked: dict[str, Any]) -> tuple[int, Any]:
        objects = []
        for each in asked["objects"]:
            upload = {"upload": {"href": f"{self.endpoint}/lfs/{each['oid']}", "header": {}}}
            objects.append({**each} if each["oid"] in self.objects else {**each, "actions": upload})
        return 200, {"transfer": "basic", "objects": objects}

    def _on_repository(self, path: str, body: bytes) -> tuple[int, Any]:
        _, _, kinds, owner, name, *rest = path.split("/")
        repo = self.repositories.get(f"{owner}/{name}")
        if repo is None or kinds != f"{repo.kind}s":
            return 404, {"error": "Repository not found"}
        if not rest or rest[0] == "revision":
            files = [{"rfilename": path} for path in repo.files]
            about = {"id": f"{owner}/{name}", "private": repo.private, "sha": f"{repo.commits:040d}", "tags": []}
            return 200, {**about, "siblings": files}
        if rest[0] == "tree":
            return 200, [
                {"type": "file", "path": path, "size": len(data), "oid": _git_oid(data)}
                for path, data in repo.files.items()
            ]
        if rest[0] == "preupload":
            return 200, {"files": [self._mode(repo, each) for each in json.loads(body)["files"]]}
        return self._commit(f"{owner}/{name}", body)

    def _mode(self, repo: Repository, file: dict[str, Any]) -> dict[str, Any]:
        lfs = file["path"].endswith((".parquet", ".jsonl", ".safetensors"))
        held = repo.files.get(file["path"])
        oid = None if held is None else hashlib.sha256(held).hexdigest() if lfs else _git_oid(held)
        return {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid}

    def _commit(self, name: str, body: bytes) -> tuple[int, Any]:
        repo = self.repositories[name]
        files, head = dict(repo.files), f"{repo.commits:040d}"
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header" and value.get("parentCommit", head) != head:
                return 412, {"error": "A commit has happened since. Please refresh and try again."}
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    return 400, {"error": f"{value['path']} was never uploaded"}
                files[value["path"]] = self.objects[value["oid"]]
            elif entry["key"] == "deletedFile":
                del files[value["path"]]
        repo.files, repo.commits = files, repo.commits + 1
        self.history.append((name, files))
        oid = f"{repo.commits:040d}"
        url = f"{self.endpoint}/datasets/{name}/commit/{oid}"
        return 200, {"commitUrl": url, "commitOid": oid, "pullRequestUrl": None}


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextlib.contextmanager
def running_hub() -> Iterator[Hub]:
    """A hub that listens on a free port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self) -> None:
            body = self._body()
            path = unquote(urlsplit(self.path).path)
            with hub.lock:
                status, answer = hub.answer(self.command, path, self.headers.get("Authorization", ""), body)
            data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            if isinstance(answer, bytes):
                self.send_header("ETag", f'"{_git_oid(data)}"')
                self.send_header("X-Repo-Commit", path.partition("/resolve/")[2].partition("/")[0])
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _body(self) -> bytes:
            if self.headers.get("Transfer-Encoding") != "chunked":
                return self.rfile.read(int(self.headers.get("Content-Length", 0)))
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        do_GET = do_POST = do_PUT = do_HEAD = _any  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()

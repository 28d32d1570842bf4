"""A real HTTP server with OpenAI's Files and Batch API that misbehaves on request, and counts what is paid for.

It stands in a thread of the test, so a judge in another process may be killed while it lives on.
"""

from __future__ import annotations

import email
import json
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs

from tests.llm.endpoint import Answer, LocalServer, answer, hang_up

__all__ = ["BatchEndpoint", "Plan", "answer", "graded", "hang_up"]


def graded(body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """A chat completion: 3 where the passage speaks of copytree, else 0."""
    best, other = ("3", "0") if "copytree" in body["messages"][-1]["content"] else ("0", "3")
    top = [{"token": best, "logprob": math.log(0.8)}, {"token": other, "logprob": math.log(0.1)}]
    choice = {"message": {"content": best}, "logprobs": {"content": [{"token": best, "top_logprobs": top}]}}
    return 200, {"model": "m", "choices": [choice], "usage": {"prompt_tokens": 50}}


@dataclass(slots=True)
class Plan:
    """How a batch goes. status: at its end; carries: which requests are carried out, by their place; polls: looks
    until the end; lines: what becomes of the output's lines; problems: of a failed validation; gone: whether the
    output file is lost."""

    status: str = "completed"
    carries: Callable[[int], bool] = lambda _: True
    polls: int = 1
    lines: Callable[[list[bytes]], Sequence[bytes]] = lambda lines: lines
    problems: Sequence[dict[str, Any]] = ()
    gone: bool = False


@dataclass(slots=True)
class _Batch:
    shown: dict[str, Any]
    plan: Plan
    asked: int = 0
    output: bytes = b""
    errors: bytes = b""


@dataclass(slots=True)
class _Call:
    method: str
    path: str
    query: dict[str, str]
    body: bytes
    kind: str
    form: dict[str, tuple[str, bytes]] = field(default_factory=dict)


Fault = tuple[bool, Answer]
"""Whether the request is carried out first, and what is answered then."""


class BatchEndpoint(LocalServer):
    """paid: how often each custom_id was carried out in a batch. plans: of the next batches. faults: of the next
    calls of a route, such as "POST /batches". hidden: how many lists do not show the newest batch yet."""

    def __init__(self) -> None:
        self.paid: Counter[str] = Counter()
        self.plans: list[Plan] = []
        self.default = Plan()
        self.replies: Callable[[dict[str, Any]], tuple[int, Any]] = graded
        self.faults: dict[str, list[Fault]] = {}
        self.calls: list[str] = []
        self.hidden = 0
        self.files: dict[str, tuple[str, bytes]] = {}
        self.batches: dict[str, _Batch] = {}
        super().__init__()

    def _dispatch(self, call: _Call) -> Answer:
        """What is answered; every call is one transaction."""
        with self._lock:
            head, *rest = call.path.removeprefix("/v1/").split("/")
            route = f"{call.method} /{head}" + ("/*" if rest else "") + ("".join(f"/{each}" for each in rest[1:]))
            self.calls.append(route)
            faults = self.faults.get(route, [])
            carried, sent = faults.pop(0) if faults else (True, None)
            done = self._carry_out(route, call, rest) if carried else answer(500, {})
            return sent or done

    def _carry_out(self, route: str, call: _Call, rest: list[str]) -> Answer:
        match route:
            case "POST /files":
                return self._upload(call)
            case "GET /files":
                listed = [{"id": name, "object": "file", "filename": file[0]} for name, file in self.files.items()]
                return self._page(listed, call)
            case "GET /files/*/content":
                found = self.files.get(rest[0])
                return answer(200, found[1]) if found else answer(404, {"error": {"message": "No such File object"}})
            case "DELETE /files/*":
                return answer(200 if self.files.pop(rest[0], None) else 404, {"id": rest[0], "deleted": True})
            case "POST /batches":
                return self._create(json.loads(call.body))
            case "GET /batches":
                newest_first = [each.shown for each in reversed(self.batches.values())]
                if self.hidden and newest_first:
                    self.hidden -= 1
                    newest_first = newest_first[1:]
                return self._page(newest_first, call)
            case "GET /batches/*":
                return self._retrieve(rest[0])
            case "POST /batches/*/cancel":
                return self._cancel(rest[0])
        return answer(404, {"error": {"message": f"no route {route}"}})

    def _page(self, listed: list[dict[str, Any]], call: _Call) -> Answer:
        after = call.query.get("after")
        start = next((n + 1 for n, each in enumerate(listed) if each["id"] == after), 0)
        part = listed[start : start + 2]
        return answer(200, {"object": "list", "data": part, "has_more": start + 2 < len(listed)})

    def _upload(self, call: _Call) -> Answer:
        name, data = call.form["file"]
        assert call.form["purpose"][1] == b"batch"
        identity = f"file-{len(self.files) + 1}-{len(self.calls)}"
        self.files[identity] = name, data
        return answer(200, {"id": identity, "object": "file", "filename": name})

    def _create(self, asked: dict[str, Any]) -> Answer:
        assert asked["endpoint"] == "/v1/chat/completions" and asked["completion_window"] == "24h"
        if asked["input_file_id"] not in self.files:
            return answer(400, {"error": {"message": "Cannot find file", "param": "input_file_id"}})
        lines = [json.loads(line) for line in self.files[asked["input_file_id"]][1].splitlines()]
        plan = self.plans.pop(0) if self.plans else self.default
        batch = self._made(asked, plan, len(lines))
        if plan.status != "failed":
            self._answer_lines(batch, lines)
        return answer(200, batch.shown)

    def _made(self, asked: dict[str, Any], plan: Plan, total: int) -> _Batch:
        shown = {
            "id": f"batch_{len(self.batches) + 1}", "object": "batch", "status": "validating",
            "created_at": int(time.time()), "request_counts": {"total": total, "completed": 0, "failed": 0}, **asked,
        }  # fmt: skip
        self.batches[shown["id"]] = made = _Batch(shown, plan)
        return made

    def _answer_lines(self, batch: _Batch, lines: list[dict[str, Any]]) -> None:
        out: list[dict[str, Any]] = []
        errors: list[dict[str, Any]] = []
        for place, line in enumerate(lines):
            if not batch.plan.carries(place):
                code = {"code": f"batch_{batch.plan.status}", "message": "This request could not be executed."}
                errors.append({"custom_id": line["custom_id"], "response": None, "error": code})
                continue
            status, body = self.replies(line["body"])
            self.paid[line["custom_id"]] += status == 200
            shown = {"custom_id": line["custom_id"], "response": {"status_code": status, "body": body}, "error": None}
            (out if status == 200 else errors).append(shown)
        batch.output = _lines(batch.plan.lines([json.dumps(each).encode() for each in out]))
        batch.errors = _lines([json.dumps(each).encode() for each in errors])
        batch.shown["request_counts"] |= {"completed": len(out), "failed": len(errors)}

    def _retrieve(self, identity: str) -> Answer:
        batch = self.batches.get(identity)
        if batch is None:
            return answer(404, {"error": {"message": "No batch found"}})
        batch.asked += 1
        over = batch.asked >= batch.plan.polls or batch.shown["status"] == "cancelling"
        if over and "output_file_id" not in batch.shown:
            self._finish(batch)
        elif not over:
            batch.shown["status"] = "in_progress"
        return answer(200, batch.shown)

    def _finish(self, batch: _Batch) -> None:
        cancelled = batch.shown["status"] == "cancelling"
        batch.shown["status"] = "cancelled" if cancelled else batch.plan.status
        batch.shown["errors"] = {"object": "list", "data": list(batch.plan.problems)}
        for kind, data in (("output", batch.output), ("error", batch.errors)):
            identity = f"{batch.shown['id']}-{kind}"
            batch.shown[f"{kind}_file_id"] = identity if data else None
            if data and not (kind == "output" and batch.plan.gone):
                self.files[identity] = identity, data

    def _cancel(self, identity: str) -> Answer:
        self.batches[identity].shown["status"] = "cancelling"
        return answer(200, self.batches[identity].shown)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                path, _, query = self.path.partition("?")
                body = self._body()
                found = {name: values[0] for name, values in parse_qs(query).items()}
                call = _Call(self.command, path, found, body, self.headers.get("Content-Type", ""))
                if call.kind.startswith("multipart/"):
                    call.form = _form(call)
                outer._dispatch(call)(self)

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") != "chunked":
                    return self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)

            def do_GET(self) -> None:
                self._answer()

            def do_POST(self) -> None:
                self._answer()

            def do_DELETE(self) -> None:
                self._answer()

            def log_message(self, *_: object) -> None:
                pass

        return Handler


def _lines(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def _form(call: _Call) -> dict[str, tuple[str, bytes]]:
    """name -> (file name, bytes) of a form's fields."""
    message = email.message_from_bytes(f"Content-Type: {call.kind}\r\n\r\n".encode() + call.body)
    found: Iterator[Any] = iter(message.get_payload())
    return {
        str(part.get_param("name", header="content-disposition")): (
            part.get_filename() or "",
            part.get_payload(decode=True).removesuffix(b"\r\n"),
        )
        for part in found
    }

"""A real HTTP endpoint on localhost that misbehaves on request."""

from __future__ import annotations

import contextlib
import gzip
import json
import math
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl

from tests.conftest import LONG_S

Answer = Callable[[BaseHTTPRequestHandler], None]


def answer(status: int, body: object, headers: Mapping[str, str] | None = None) -> Answer:
    """An HTTP answer; `body` is sent as it is when it is bytes, else as JSON."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        handler.send_response(status)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.wfile.write(data)

    return send


def completion(probabilities: Mapping[str, float], headers: Mapping[str, str] | None = None) -> Answer:
    """A chat completion with the log-probabilities of these first tokens."""
    return answer(200, _body(probabilities), headers)


def _body(probabilities: Mapping[str, float]) -> dict[str, Any]:
    top = [{"token": token, "logprob": math.log(p)} for token, p in probabilities.items()]
    text = next(iter(probabilities))
    choice = {"message": {"content": text}, "logprobs": {"content": [{"token": text, "top_logprobs": top}]}}
    return {"choices": [choice], "usage": {"prompt_tokens": 50}}


def padded(size: int) -> Answer:
    """A good completion that is as large as asked."""
    return answer(200, json.dumps(_body({"3": 0.7, "0": 0.1})).encode().ljust(size))


def text_only(text: str) -> Answer:
    """A chat completion without log-probabilities."""
    return answer(200, {"choices": [{"message": {"content": text}}], "usage": {"prompt_tokens": 50}})


def chosen_only(token: str, p: float, listed: object = ()) -> Answer:
    """A chat completion with the log-probability of its own token; `listed` stands where the alternatives should."""
    entry = {"token": token, "logprob": math.log(p), "top_logprobs": listed}
    return answer(200, {"choices": [{"message": {"content": token}, "logprobs": {"content": [entry]}}]})


def finished(reason: str | None, content: str | None = None, **message: object) -> Answer:
    """A chat completion that ended for this reason, without log-probabilities."""
    choice = {"message": {"content": content, **message}, "logprobs": None, "finish_reason": reason}
    return answer(200, {"choices": [choice], "usage": {"prompt_tokens": 50}})


def endless(part: bytes, pause: Callable[[], object] = lambda: None) -> Answer:
    """A body that goes on as long as somebody reads it, `pause` after each part."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(1 << 50))
        handler.end_headers()
        handler.close_connection = True
        with contextlib.suppress(OSError):
            while True:
                handler.wfile.write(part)
                pause()

    return send


def packed(size: int) -> Answer:
    """A gzip body that unpacks to so many bytes of JSON."""
    return answer(200, gzip.compress(b'"' + b"0" * size + b'"'), {"Content-Encoding": "gzip"})


def where(word: str, then: Answer, otherwise: Answer) -> Answer:
    """One answer to requests that hold a word, another to all others."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        (then if word in getattr(handler, "asked", "") else otherwise)(handler)

    return send


def echo(context: Sequence[str], target: Sequence[str], logprobs: Sequence[float], model: str = "m") -> Answer:
    """A text completion that echoes these prompt tokens and adds one of its own, as vLLM's does: `logprobs` are the
    target's, the context's are -1, the first token has none."""
    tokens = [*context, *target, " more"]
    values = [None, *[-1.0] * (len(context) - 1), *logprobs, -0.1]
    choice = {"text": "".join(tokens), "logprobs": {"tokens": tokens, "token_logprobs": values}}
    usage = {"prompt_tokens": len(tokens) - 1, "completion_tokens": 1}
    return answer(200, {"model": model, "choices": [choice], "usage": usage})


def named(model: str, probabilities: Mapping[str, float], **more: object) -> Answer:
    """A chat completion that says which model answers."""

    return answer(200, {"model": model, **_body(probabilities), **more})


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without a word."""
    handler.close_connection = True
    handler.connection.shutdown(2)


GOOD = completion({"3": 0.7, "2": 0.2, "1": 0.05, "0": 0.01})


class LocalServer(ABC):
    """A server on this machine, of requests side by side; open it with `with`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @abstractmethod
    def _handler(self) -> type[BaseHTTPRequestHandler]:
        """What answers."""

    @property
    def url(self) -> str:
        """The base URL of a judge."""
        return f"{self.address}/v1"

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def silence(self, handler: BaseHTTPRequestHandler) -> None:
        """Never answer, until the test ends."""
        self._released.wait(LONG_S)
        handler.close_connection = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._server.server_close()


class ScriptedEndpoint(LocalServer):
    """Answers with `script` in order, then with `default` for ever. `requests` are the bodies it got, `paths`
    where they went."""

    def __init__(self) -> None:
        self.default: Answer = GOOD
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._script: Iterator[Answer] = iter(())
        super().__init__()

    def script(self, *answers: Answer) -> None:
        """What to answer next."""
        self._script = iter(answers)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.path, _, query = self.path.partition("?")
                self._answer(json.dumps(dict(parse_qsl(query))))

            def do_POST(self) -> None:
                self._answer(self.rfile.read(int(self.headers["Content-Length"])).decode())

            def _answer(self, asked: str) -> None:
                self.asked = asked
                body = json.loads(self.asked)
                with outer._lock:
                    outer.requests.append(body)
                    outer.paths.append(self.path)
                    outer.headers.append(dict(self.headers))
                    chosen = next(outer._script, outer.default)
                chosen(self)

            def log_message(self, *_: object) -> None:
                pass

        return Handler

"""The judge behind an OpenAI-compatible endpoint, in a process of its own that ends with the one that started it.

python -m benchmarks.peers.endpoints double SECONDS       # the shipped double: answers after so long, by a hash
python -m benchmarks.peers.endpoints llamacpp MODEL SLOTS # llama.cpp's server, so many requests side by side
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

from qrelay.models.catalogue import resolve
from tests.llm.endpoint import Answer, ScriptedEndpoint, completion

CONTEXT_TOKENS = 2048
_BACKLOG = 1024


@contextlib.contextmanager
def running(*arguments: str) -> Iterator[tuple[str, int]]:
    """Base URL and process id of an endpoint; see the module for the arguments."""
    command = [sys.executable, "-m", "benchmarks.peers.endpoints", *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdin
        url = process.stdout.readline().strip()
        if not url:
            raise SystemExit(f"the endpoint {' '.join(arguments)} ended with {process.wait()}")
        try:
            yield url, process.pid
        finally:
            process.stdin.close()


def after(seconds: float) -> Answer:
    """Answers YES or NO with probabilities that are a function of the messages, so the same question gets the same
    answer from whoever asks."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        messages = json.loads(getattr(handler, "asked", "{}")).get("messages", [])
        text = " ".join(each["content"] for each in messages)
        yes = (zlib.crc32(text.encode()) % 97 + 1) / 99
        pair = {"YES": yes, "NO": 1 - yes}
        completion(dict(sorted(pair.items(), key=lambda each: -each[1])))(handler)

    return send


def _double(seconds: float) -> None:
    with ScriptedEndpoint() as endpoint:
        endpoint.default = after(seconds)
        endpoint._server.socket.listen(_BACKLOG)
        _until_left(endpoint.url)


def _llamacpp(model: str, slots: int) -> None:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(resolve(model).path)
    params.n_parallel, params.n_ctx, params.verbosity = slots, slots * CONTEXT_TOKENS, -1
    server: Any = xllamacpp.Server(params)
    _until_left(f"{server.listening_address}/v1")


def _until_left(url: str) -> None:
    print(url, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    if sys.argv[1] == "double":
        _double(float(sys.argv[2]))
    else:
        _llamacpp(sys.argv[2], int(sys.argv[3]))

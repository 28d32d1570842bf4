"""`qrelay console` as a process: it announces itself, says what it cannot do, and ends in order."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from qrelay.web.serving import listen
from tests.pipeline.harness import qrelay


@contextmanager
def running(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process on a folder with nothing in it, and its URL; it is told to end in the end."""
    environ = {**os.environ, "QRELAY_ALL__RUN_DIR": str(folder / "run")}
    command = [sys.executable, "-m", "qrelay.cli.main", "console", "--port", "0", "--data-dir", str(folder)]
    process = subprocess.Popen(command, env=environ, stderr=subprocess.DEVNULL)
    announced = folder / "run" / "console.json"
    while not announced.exists() and process.poll() is None:
        time.sleep(0.05)
    yield process, json.loads(announced.read_text())["grpc"]
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


def test_it_serves_without_services_and_ledger_and_ends_with_0(tmp_path: Path) -> None:
    with running(tmp_path) as (_, url), httpx.Client(base_url=url) as http:
        assert http.get("/health").json() == {"status": "SERVING"}
        missing = http.get("/v1/stats").json()["error"]
        assert missing["code"] == "FAILED_PRECONDITION"
        asked = http.post("/v1/judge", json={"query": "q", "candidates": ["a"]})
        assert asked.status_code == 503
        assert "no judge runs" in asked.json()["error"]["message"]
        assert asked.headers["retry-after"] == "1"


def test_it_listens_on_the_loopback_alone(tmp_path: Path) -> None:
    with running(tmp_path) as (process, url):
        import psutil

        found = [each.laddr for each in psutil.Process(process.pid).net_connections() if each.status == "LISTEN"]
        assert {address.ip for address in found} == {"127.0.0.1"}
        assert int(url.rpartition(":")[2]) in {address.port for address in found}


def test_the_health_check_asks_it_over_http(tmp_path: Path) -> None:
    with running(tmp_path) as (_, url):
        assert qrelay("healthcheck", url).stdout == "SERVING\n"
    gone = qrelay("healthcheck", url)
    assert gone.returncode == 1
    assert "does not answer" in gone.stderr


def test_another_address_than_the_loopback_is_refused_with_the_way_out(tmp_path: Path) -> None:
    done = qrelay("console", environ={"QRELAY_DATA_DIR": str(tmp_path), "QRELAY_CONSOLE__BIND": "0.0.0.0:7405"})
    assert done.returncode == 78
    assert "port-forward" in done.stderr


def test_small_answers_are_sent_at_once() -> None:
    """asyncio switches Nagle's algorithm off for sockets that are named as TCP, and for no other."""
    with listen("127.0.0.1:0") as listening:
        assert listening.proto == socket.IPPROTO_TCP

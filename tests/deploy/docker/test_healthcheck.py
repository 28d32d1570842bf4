"""`qrelay healthcheck`: what a container's health check runs, against a real gRPC server."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from qrelay.cli.healthcheck import check
from qrelay.errors import BackendUnavailable, InputError

States = health_pb2.HealthCheckResponse


@pytest.fixture
def server() -> Iterator[tuple[str, health.HealthServicer]]:
    """A server whose readiness ("") is NOT_SERVING and whose liveness is SERVING; its address and its servicer."""
    raw = grpc.server(ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(servicer, raw)
    port = raw.add_insecure_port("127.0.0.1:0")
    servicer.set("", States.NOT_SERVING)
    servicer.set("liveness", States.SERVING)
    raw.start()
    yield f"127.0.0.1:{port}", servicer
    raw.stop(0).wait()


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "qrelay.cli.main", "healthcheck", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_exit_code_says_whether_the_service_is_ready(server: tuple[str, health.HealthServicer]) -> None:
    address, servicer = server
    before = command(address)
    assert (before.returncode, before.stdout) == (1, "")
    assert "NOT_SERVING" in before.stderr
    servicer.set("", States.SERVING)
    after = command(address)
    assert (after.returncode, after.stdout) == (0, "SERVING\n")


def test_a_named_service_is_asked_for_itself(server: tuple[str, health.HealthServicer]) -> None:
    address, _ = server
    check(address, "liveness", 2.0)
    with pytest.raises(InputError, match="knows no 'judge'"):
        check(address, "judge", 2.0)


def test_silence_is_not_health() -> None:
    with pytest.raises(BackendUnavailable, match="does not answer"):
        check("127.0.0.1:1", "", 2.0)


def test_the_command_imports_no_model_library() -> None:
    code = "import sys, qrelay.cli.healthcheck; print(sorted({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "[]\n"

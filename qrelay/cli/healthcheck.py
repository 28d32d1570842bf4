"""`qrelay healthcheck ADDRESS`: one look at a service's gRPC health, or the console's answer over HTTP, for container
engines and scripts.

Kubernetes asks a service's gRPC health by itself; Docker runs a command inside the container, and this is that
command. It imports gRPC and nothing of a service, because it runs for as long as the container does.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from qrelay.cli.group import example
from qrelay.cli.options import config_option
from qrelay.config import PLAIN, Transport
from qrelay.errors import BackendUnavailable, InputError

_NOT_SERVING: Final = "wait until its model is loaded, or read its log"


@click.command(epilog=example("qrelay healthcheck 127.0.0.1:7403"))
@click.argument("address")
@config_option()
@click.option("--service", default="", help="Whose health: a gRPC service's full name, or liveness.  [default: all]")
@click.option("--timeout", "timeout_s", type=click.FloatRange(0, min_open=True), default=2.0, show_default=True,
              help="Seconds to wait for the answer.")  # fmt: skip
def healthcheck(address: str, config: Path | None, service: str, timeout_s: float) -> None:
    """Exit with 0 when the service at ADDRESS (host:port; the console: http://host:port, or https://) is ready, with
    1 when it is not or does not answer. Certificates are those of the setting all.tls."""
    from qrelay.settings.load import transport_of

    transport = transport_of(None, config)
    if address.startswith(("http://", "https://")):
        check_http(address, timeout_s, transport)
    else:
        check(address, service, timeout_s, transport)
    click.echo("SERVING")


def check_http(url: str, timeout_s: float, transport: Transport = PLAIN) -> None:
    """Return when the console at http://host:port answers. Raises BackendUnavailable."""
    from qrelay.runtime.lookout import answers

    if not answers(url, timeout_s, transport):
        raise BackendUnavailable(f"{url} does not answer: read the console's log")


def check(address: str, service: str, timeout_s: float, transport: Transport = PLAIN) -> None:
    """Return when `service` ("": the whole server) at host:port is SERVING; ask once, `timeout_s` seconds at most.

    Raises:
        BackendUnavailable: it does not answer, or answers something else.
        InputError: the server has no service of this name.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    from qrelay.runtime.client import tls_hint
    from qrelay.security import tls

    request = health_pb2.HealthCheckRequest(service=service)
    with tls.channel(address, transport) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise InputError(f"{address} knows no {service!r}: leave --service out, or say liveness") from error
            details = error.details() or ""
            raise BackendUnavailable(f"{address} does not answer: {details}{tls_hint(details)}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        state = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise BackendUnavailable(f"{address} is {state}: {_NOT_SERVING}")

"""A pod's probes, as the kubelet makes them."""

from __future__ import annotations

import urllib.error
import urllib.request
from typing import Any

Object = dict[str, Any]


def passes(probe: Object, address: str) -> bool:
    """One probe, gRPC or HTTP, of the pod at this address."""
    timeout = probe.get("timeoutSeconds", 1)
    if "grpc" in probe:
        return _grpc_serving(f"{address}:{probe['grpc']['port']}", probe["grpc"].get("service", ""), timeout)
    get = probe["httpGet"]
    try:
        with urllib.request.urlopen(f"http://{address}:{get['port']}{get['path']}", timeout=timeout) as answer:
            return bool(200 <= answer.status < 400)
    except (urllib.error.URLError, OSError):
        return False


def _grpc_serving(address: str, service: str, timeout_s: float) -> bool:
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=timeout_s)
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

"""A service says how far it is until it is ready, in one way for all four."""

from __future__ import annotations

import asyncio

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qrelay.cli.serve import load_definition
from qrelay.errors import BackendUnavailable
from qrelay.progress import Progress
from qrelay.runtime.client import get_info
from qrelay.runtime.context import Preparation, ServiceContext
from qrelay.runtime.lookout import preparing
from qrelay.runtime.server import GrpcServer
from qrelay.settings.sections import SERVICES
from qrelay.v1 import service_info_pb2 as pb

CONVERTING = Progress("converting a model", 12, 338, "tensors")


def test_the_innermost_step_is_what_a_service_does() -> None:
    preparation = Preparation()
    assert preparation.current is None
    preparation(Progress("loading"))
    preparation(CONVERTING)
    assert preparation.current == CONVERTING
    preparation(Progress(CONVERTING.name, 338, 338, "tensors", finished=True))
    assert preparation.current == Progress("loading")


def test_only_what_advances_ends_idling() -> None:
    now = 0.0
    preparation = Preparation(lambda: now)
    preparation(CONVERTING)
    now = 7.0
    preparation(CONVERTING)
    assert preparation.idle_s == 7.0
    preparation(Progress(CONVERTING.name, 13, 338, "tensors"))
    assert preparation.idle_s == 0.0


@pytest.mark.parametrize("name", SERVICES)
async def test_a_service_that_loads_answers_what_it_does_and_is_not_ready(name: str) -> None:
    definition = load_definition(name)
    settings = definition.settings.model_validate({"grpc": {"bind": "127.0.0.1:0"}})
    context = ServiceContext(name, settings, "r1")
    server = GrpcServer(settings.grpc, definition.grpc_name)
    definition.add_servicer(server.raw, context)
    address = await server.start()
    context.preparation(Progress("loading"))
    context.preparation(CONVERTING)
    info = await asyncio.to_thread(get_info, name, address, 5.0)
    async with grpc.aio.insecure_channel(address) as channel:
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
    await server.drain(0)
    assert (info.service, info.state, dict(info.models)) == (name, pb.SERVICE_STATE_PREPARING, {})
    assert preparing(info) == Progress(f"{name}: converting a model", 12, 338, "tensors")
    assert info.preparation.idle_s >= 0
    assert health.status == health_pb2.HealthCheckResponse.NOT_SERVING
    with pytest.raises(BackendUnavailable, match=r"converting a model: 12 of 338 tensors\); try again"):
        _ = context.core

"""Who may call what: the table is total, and every server holds to it, over mutual TLS and in plain text."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection, reflection_pb2

from qrelay.config import AccessSettings, GrpcSettings, Role
from qrelay.errors import PermissionDenied, Unauthenticated
from qrelay.runtime import telemetry
from qrelay.runtime.client import from_rpc_error
from qrelay.runtime.server import Guard
from qrelay.security.access import _NOBODY, Gate
from qrelay.security.identity import Kind, Principal, of_certificate
from qrelay.security.roles import ACTIONS, COMMANDS, OPEN, RPCS, SERVICES, as_markdown, require, require_rpc
from qrelay.security.tokens import add
from qrelay.settings.secrets import masked
from qrelay.v1 import (
    judge_pb2,
    judge_pb2_grpc,
    reranker_pb2,
    reranker_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    sink_pb2,
    sink_pb2_grpc,
)
from qrelay.web.api.operations import OPERATIONS
from qrelay.web.security import Action
from tests.security.certificates import PERSON, SERVICE, client_credentials, server_credentials
from tests.test_cli_tree import TREE

ROOT = Path(__file__).resolve().parents[2]
OURS = {"Retriever": retriever_pb2, "Reranker": reranker_pb2, "Judge": judge_pb2, "Sink": sink_pb2}
MODULES = [*OURS.values(), health_pb2, reflection_pb2]
METHODS = {
    f"/{service.full_name}/{method.name}": method
    for module in MODULES
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
}
PROMOTE = "/qrelay.v1.SinkService/PromoteModel"
PEOPLE = {role.value: role for role in Role}
GRANTS = {name: (role,) for name, role in PEOPLE.items()}
DENIED = (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED)


def test_every_rpc_of_the_protos_states_its_role_and_no_other_does() -> None:
    assert RPCS.keys() == METHODS.keys()
    assert all(calls <= RPCS.keys() for calls in SERVICES.values())


def test_every_action_of_the_console_states_its_role() -> None:
    assert ACTIONS.keys() == {action.value for action in Action}
    assert {operation.action for operation in OPERATIONS} <= set(Action)


def test_every_command_states_its_role_and_no_other_does() -> None:
    runs = {
        " ".join(path)
        for path, each in TREE.items()
        if path and (not hasattr(each, "list_commands") or each.invoke_without_command)
    }
    assert COMMANDS.keys() == runs


def test_the_documentation_shows_the_table() -> None:
    assert as_markdown() in (ROOT / "docs" / "security.md").read_text("utf8")


@asynccontextmanager
async def serving(access: AccessSettings, *, tls: bool) -> AsyncIterator[str]:
    """A server with every RPC there is; those of ours answer that they are not implemented, once they are reached."""
    server = grpc.aio.server(interceptors=[Guard(GrpcSettings(), Gate(access))])
    for name, adds in (("Retriever", retriever_pb2_grpc), ("Reranker", reranker_pb2_grpc), ("Judge", judge_pb2_grpc),
                       ("Sink", sink_pb2_grpc)):  # fmt: skip
        getattr(adds, f"add_{name}ServiceServicer_to_server")(getattr(adds, f"{name}ServiceServicer")(), server)
    health_pb2_grpc.add_HealthServicer_to_server(health_aio.HealthServicer(), server)
    reflection.enable_server_reflection((reflection.SERVICE_NAME,), server)
    if tls:
        port = server.add_secure_port("127.0.0.1:0", server_credentials())
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def code(channel: grpc.aio.Channel, name: str, token: str = "") -> grpc.StatusCode:
    """How a call of the method ends. gRPC's asyncio loses the status of a stream whose end meets a write
    (https://github.com/grpc/grpc/issues/36066): such a call is made again."""
    for _ in range(50):
        found, details = await _ended(channel, name, token)
        if details != "Internal error from Core":
            return found
    raise AssertionError(f"{name}: every status was lost")


async def _ended(channel: grpc.aio.Channel, name: str, token: str) -> tuple[grpc.StatusCode, str]:
    method, request = METHODS[name], METHODS[name].input_type._concrete_class
    shapes = {(False, False): "unary_unary", (False, True): "unary_stream", (True, True): "stream_stream"}
    call = getattr(channel, shapes[method.client_streaming, method.server_streaming])(
        name, request_serializer=request.SerializeToString, response_deserializer=bytes
    )
    metadata = (("authorization", f"Bearer {token}"),) if token else None
    sent: Any = iter([request()]) if method.client_streaming else request()
    running = call(sent, metadata=metadata, timeout=60)
    if not method.server_streaming:
        return await running.code(), await running.details()
    try:
        await running.read()  # health's Watch goes on for as long as it is read
    except grpc.aio.AioRpcError as error:
        return error.code(), error.details() or ""
    running.cancel()
    return grpc.StatusCode.OK, ""


async def allowed(channel: grpc.aio.Channel, token: str = "") -> set[str]:
    return {name for name in METHODS if await code(channel, name, token) not in DENIED}


def may(*roles: Role) -> set[str]:
    """What the table lets a person with these roles call."""
    return {name for name, role in RPCS.items() if role in (OPEN, Role.READER, *roles)}


OPENED = {name for name, role in RPCS.items() if role is OPEN}


@pytest.mark.parametrize("name", PEOPLE)
async def test_a_persons_certificate_allows_what_their_roles_do(name: str) -> None:
    async with serving(AccessSettings(grants=GRANTS), tls=True) as address:
        async with grpc.aio.secure_channel(address, client_credentials("x", PERSON + name)) as channel:
            assert await allowed(channel) == may(PEOPLE[name])


@pytest.mark.parametrize("name", [*SERVICES, "unheard-of"])
async def test_a_stolen_service_certificate_does_only_what_the_service_may(name: str, tmp_path: Path) -> None:
    """Not even with a person's token, but for the console's, which speaks for people."""
    token, _ = add(tmp_path / "tokens.yaml", "oz", list(Role), 1)
    access = AccessSettings(tokens=tmp_path / "tokens.yaml", grants={**GRANTS, name: tuple(Role)})
    async with serving(access, tls=True) as address:
        async with grpc.aio.secure_channel(address, client_credentials("x", SERVICE + name)) as channel:
            assert await allowed(channel) == OPENED | SERVICES.get(name, frozenset())
            with_token = await allowed(channel, token)
    assert with_token == (may(*Role) if name == "console" else OPENED)


async def test_the_console_calls_in_the_name_of_whose_token_it_passes_on(tmp_path: Path) -> None:
    token, _ = add(tmp_path / "tokens.yaml", "ana", [Role.LABELLER], 1)
    async with serving(AccessSettings(tokens=tmp_path / "tokens.yaml"), tls=True) as address:
        async with grpc.aio.secure_channel(address, client_credentials("x", SERVICE + "console")) as channel:
            assert await allowed(channel, token) == may(Role.LABELLER)


@pytest.mark.parametrize("name", PEOPLE)
async def test_a_token_on_loopback_allows_what_its_roles_do(name: str, tmp_path: Path) -> None:
    token, _ = add(tmp_path / "tokens.yaml", "ana", [PEOPLE[name]], 1)
    async with serving(AccessSettings(tokens=tmp_path / "tokens.yaml"), tls=False) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            assert await allowed(channel, token) == may(PEOPLE[name])
            assert await allowed(channel) == OPENED
            assert await code(channel, PROMOTE) is grpc.StatusCode.UNAUTHENTICATED


async def test_on_a_laptop_everybody_may_do_everything() -> None:
    async with serving(AccessSettings(), tls=False) as address, grpc.aio.insecure_channel(address) as channel:
        assert await allowed(channel) == set(METHODS)


async def test_tls_without_access_knows_services_and_gives_people_no_role() -> None:
    async with serving(AccessSettings(), tls=True) as address:
        for uri, calls in ((SERVICE + "trainer", SERVICES["trainer"]), (PERSON + "ana", frozenset())):
            async with grpc.aio.secure_channel(address, client_credentials("x", uri)) as channel:
                assert await allowed(channel) == OPENED | calls


async def test_a_certificate_of_two_owners_is_nobodys_and_a_common_name_is_a_persons() -> None:
    async with serving(AccessSettings(grants=GRANTS), tls=True) as address:
        both = client_credentials("x", PERSON + "operator", SERVICE + "console")
        async with grpc.aio.secure_channel(address, both) as channel:
            assert await code(channel, PROMOTE) is grpc.StatusCode.UNAUTHENTICATED
        async with grpc.aio.secure_channel(address, client_credentials("operator")) as channel:
            assert await allowed(channel) == may(Role.OPERATOR)


async def test_a_denial_is_logged_with_who_and_what_and_without_the_token(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, _ = add(tmp_path / "tokens.yaml", "ana", [Role.READER], 1)
    counted = telemetry.DENIALS.labels(PROMOTE, "permission_denied")._value
    before = counted.get()
    caplog.set_level(logging.WARNING)
    async with serving(AccessSettings(tokens=tmp_path / "tokens.yaml"), tls=False) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            assert await code(channel, PROMOTE, token) is grpc.StatusCode.PERMISSION_DENIED
            assert await code(channel, PROMOTE, token + "x") is grpc.StatusCode.UNAUTHENTICATED
    told = [vars(record) for record in caplog.records if record.message == "denied"]
    assert [(each["who"], each["what"]) for each in told] == [("person/ana", PROMOTE), ("nobody", PROMOTE)]
    assert "the role operator" in told[0]["why"]
    assert counted.get() == before + 1
    lines = [telemetry.JsonFormatter("sink").format(record) for record in caplog.records]
    assert token not in json.dumps([told, lines], default=str)


async def test_a_client_hears_our_errors(tmp_path: Path) -> None:
    token, _ = add(tmp_path / "tokens.yaml", "ana", [Role.READER], 1)
    async with serving(AccessSettings(tokens=tmp_path / "tokens.yaml"), tls=False) as address:
        async with grpc.aio.insecure_channel(address) as channel:
            stub = sink_pb2_grpc.SinkServiceStub(channel)
            for shown, kind in ((token, PermissionDenied), ("qrelay_x", Unauthenticated)):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await stub.PromoteModel(
                        sink_pb2.PromoteModelRequest(), metadata=(("authorization", f"Bearer {shown}"),)
                    )
                error = from_rpc_error(address, raised.value)
                assert type(error) is kind and shown not in str(error)


def test_what_the_table_lacks_nobody_may() -> None:
    with pytest.raises(PermissionDenied, match="no role is stated"):
        require_rpc(Principal("oz", Kind.PERSON, frozenset(Role)), "/qrelay.v1.SinkService/New")


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_takes_its_role(action: str) -> None:
    for role in Role:
        person = Principal("ana", Kind.PERSON, frozenset({role}))
        if ACTIONS[action] in (OPEN, Role.READER, role):
            require(person, ACTIONS[action], action)
        else:
            with pytest.raises(PermissionDenied, match=f"{action} takes the role"):
                require(person, ACTIONS[action], action)


@pytest.mark.parametrize("uri", ["spiffe://qrelay/robot/x", "spiffe://qrelay/service/", "spiffe://qrelay/"])
def test_a_name_of_another_shape_is_nobodys(uri: str) -> None:
    auth: dict[str, Iterable[bytes]] = {"transport_security_type": [b"ssl"]}
    auth["peer_uri"] = auth["x509_subject_alternative_name"] = [uri.encode()]
    with pytest.raises(Unauthenticated):
        of_certificate(auth, {})


async def test_a_certificate_of_somebody_elses_uri_is_nobodys() -> None:
    async with serving(AccessSettings(grants=GRANTS), tls=True) as address:
        foreign = client_credentials("operator", "spiffe://theirs/person/operator")
        async with grpc.aio.secure_channel(address, foreign) as channel:
            assert await code(channel, PROMOTE) is grpc.StatusCode.UNAUTHENTICATED


async def test_a_host_that_reads_like_an_owner_makes_nobody_a_service() -> None:
    async with serving(AccessSettings(grants=GRANTS), tls=True) as address:
        credentials = client_credentials("reader", hosts=(SERVICE + "console",))
        async with grpc.aio.secure_channel(address, credentials) as channel:
            assert await allowed(channel) == may(Role.READER)


def test_what_an_unknown_caller_is_told_is_whole_where_secrets_are_hidden() -> None:
    assert masked(_NOBODY) == _NOBODY

"""What a process on this side shows: its token, from commands, the Python client and the tools over stdio."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client as Tools
from mcp.client.stdio import StdioServerParameters, stdio_client

from qrelay import Client
from qrelay.config import AccessSettings, Role, TlsSettings
from qrelay.errors import ConfigError, Unauthenticated
from qrelay.runtime.client import channel, signed
from qrelay.security.access import FILE_VARIABLE, VARIABLE
from qrelay.security.certs import PERSON, SERVICE, authority, issue
from qrelay.security.tokens import add
from qrelay.v1 import retriever_pb2, retriever_pb2_grpc, sink_pb2, sink_pb2_grpc
from tests.serving import serving
from tests.web.serving import DATA, console

HERE = ("localhost", "127.0.0.1", "::1")


class Sink(sink_pb2_grpc.SinkServiceServicer):
    """Answers each shape of call; keeps what the last one showed."""

    shown: tuple[str, ...] = ()

    def _note(self, context: Any) -> None:
        self.shown = tuple(value for key, value in context.invocation_metadata() if key == "authorization")

    async def GetStats(self, _: Any, context: Any) -> Any:
        self._note(context)
        return sink_pb2.GetStatsResponse()

    async def ListDeadLetters(self, _: Any, context: Any) -> Any:
        self._note(context)
        return sink_pb2.ListDeadLettersResponse()

    async def ListJudgedSets(self, _: Any, context: Any) -> AsyncIterator[Any]:
        self._note(context)
        for _ in ():
            yield

    async def StreamIngest(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        self._note(context)
        async for _ in requests:
            yield sink_pb2.StreamIngestResponse(response=sink_pb2.IngestResponse())


@pytest.fixture
def token(tmp_path: Path) -> str:
    return add(tmp_path / "tokens.yaml", "ana", list(Role), 1)[0]


@pytest.fixture
def sink(tmp_path: Path, token: str) -> Iterator[tuple[Sink, str]]:
    """One that takes tokens alone, and its address."""
    servicer, access = Sink(), AccessSettings(tokens=tmp_path / "tokens.yaml")
    with serving(
        "qrelay.v1.SinkService",
        lambda server: sink_pb2_grpc.add_SinkServiceServicer_to_server(servicer, server),
        access=access,
    ) as address:
        yield servicer, address


def test_the_client_shows_the_process_token(
    sink: tuple[Sink, str], token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    servicer, address = sink
    with Client(sink=address, collection="docs", attempts=1) as client:
        with pytest.raises(Unauthenticated):
            list(client.labels())
        monkeypatch.setenv(VARIABLE, token)
        assert list(client.labels()) == []
        assert servicer.shown == (f"Bearer {token}",)


def test_a_command_shows_the_process_token(
    sink: tuple[Sink, str], token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    servicer, address = sink
    monkeypatch.setenv(VARIABLE, token)
    with channel(address) as opened:
        stub = signed(sink_pb2_grpc.SinkServiceStub(opened))
        stub.ListDeadLetters(sink_pb2.ListDeadLettersRequest(), timeout=60)
        assert servicer.shown == (f"Bearer {token}",)
        stub.GetStats(sink_pb2.GetStatsRequest(), timeout=60, metadata=(("traceparent", "x"),))
        assert servicer.shown == (f"Bearer {token}",)


class Retriever(retriever_pb2_grpc.RetrieverServiceServicer):
    async def Retrieve(self, request: Any, _: Any) -> Any:
        answer = retriever_pb2.RetrieveResponse()
        answer.results.add().candidate_set.query.CopyFrom(request.queries[0])
        return answer


def environment(token: str, tls: TlsSettings, retriever: str) -> dict[str, str]:
    """Of a person with a token, whose certificate commands show; the console's section names another's."""
    files = tls.model_dump(exclude_defaults=True)
    named = {f"QRELAY_ALL__TLS__{name.upper()}": str(path) for name, path in files.items()}
    return {**os.environ, **named, VARIABLE: token, "QRELAY_CONSOLE__RETRIEVER": retriever}


async def test_tools_over_stdio_act_as_the_person_who_started_them(tmp_path: Path, token: str) -> None:
    signer, access = authority(tmp_path / "ca"), AccessSettings(tokens=tmp_path / "tokens.yaml")
    server = issue(tmp_path / "retriever", signer, f"{SERVICE}retriever", HERE)
    ana = issue(tmp_path / "ana", signer, f"{PERSON}ana")
    with (
        console(tmp_path),
        serving(
            "qrelay.v1.RetrieverService",
            lambda raw: retriever_pb2_grpc.add_RetrieverServiceServicer_to_server(Retriever(), raw),
            server,
            access,
        ) as address,
    ):
        arguments = ["-m", "qrelay.cli.main", "mcp", "--data-dir", str(tmp_path / DATA)]
        parameters = StdioServerParameters(
            command=sys.executable, args=arguments, env=environment(token, ana, address)
        )
        async with Tools(stdio_client(parameters)) as client:
            answer = await client.call_tool("retrieve", {"query": "how?", "collection": "docs"})
            assert not answer.is_error, answer.content


def test_a_client_that_lives_long_shows_the_token_that_its_file_holds_by_then(
    sink: tuple[Sink, str], token: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    servicer, address = sink
    file = tmp_path / "own.token"
    monkeypatch.setenv(FILE_VARIABLE, str(file))
    with channel(address) as opened:
        stub = signed(sink_pb2_grpc.SinkServiceStub(opened))
        for shown in (token, add(tmp_path / "tokens.yaml", "ana", list(Role), 1)[0]):
            file.write_text(f"{shown}\n")
            stub.GetStats(sink_pb2.GetStatsRequest(), timeout=60)
            assert servicer.shown == (f"Bearer {shown}",)
        file.unlink()
        with pytest.raises(ConfigError, match="cannot be read"):
            stub.GetStats(sink_pb2.GetStatsRequest(), timeout=60)

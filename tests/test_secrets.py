"""No password or token is shown: by a command, in a log line, in an error, or to a caller over gRPC."""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote

import grpc
import grpc.aio
import pytest
import yaml

from qrelay.errors import BackendUnavailable, ConfigError
from qrelay.judging.cache_sql import SqlCache
from qrelay.labels.ledger import database
from qrelay.labels.settings import SinkSettings
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.server import GrpcServer
from qrelay.runtime.telemetry import JsonFormatter
from qrelay.runtime.translate import item_error, rich_status
from qrelay.services.sink.service import SERVICE
from qrelay.services.sink.sink import load_sink
from qrelay.settings.secrets import masked
from qrelay.settings.sections import CLASSES, settings_of
from qrelay.v1 import sink_pb2 as pb
from qrelay.v1 import sink_pb2_grpc
from tests.conftest import LONG_S
from tests.labels.builders import dead_letter
from tests.postgres import server_address

ODD = ("qzxvjk2", "qzx:vjk@2", "qzx/vjk2?w", "qzx#vjk%402", "12/qzxvjk", "qzü vjk'2")
"""Passwords as people have them. None of their parts is a word that a message would use."""
PARTS = ("qzx", "qzü", "vjk")


def addresses(password: str) -> list[str]:
    """Every way to write it into an address, encoded as it should be and not."""
    whole = quote(password, safe="")
    found = []
    for written in dict.fromkeys((password, whole)):
        found += [
            f"postgresql://me:{written}@db.invalid:5432/labels",
            f"postgresql://db.invalid/labels?user=me&password={written.replace('&', '%26')}"
            if " " not in written
            else "",
            f"postgresql://db.invalid/labels?user=me&pass%77ord={whole}&sslpassword={whole}",
            f"nats://me:{written}@nats.invalid:4222",
            f"nats://{written}@nats.invalid:4222",
            f"nats://a.invalid:4222,nats://me:{written}@b.invalid:4222,tls://{written}@c.invalid:4222",
            f"https://me:{written}@otlp.invalid:4317",
        ]
    quoted = password.replace("\\", "\\\\").replace("'", "\\'")
    return [
        *filter(None, found),
        f"host=db.invalid user=me password='{quoted}'",
        f"password = '{quoted}' host=db.invalid",
    ]


EVERY = [(password, address) for password in ODD for address in addresses(password)]


def leaks(text: str) -> list[str]:
    return [part for part in PARTS if part in text]


@pytest.mark.parametrize(("password", "address"), EVERY)
def test_an_address_is_shown_with_its_hosts_and_without_its_password(password: str, address: str) -> None:
    shown = masked(address)
    assert not leaks(shown)
    assert ".invalid" in shown
    assert masked(shown) == shown


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:8000/v1",
        "https://huggingface.co/org/model@rev",
        "http://host:8000/v1/x@rev",
        "postgresql://me@host:5432/db?sslmode=require",
        "nats://a:4222,nats://b:4222",
        "max_tokens=5, prompt_tokens=3; grpc.max_message_bytes is 4096",
        "judge.endpoint.api_key_env: Field required",
        "x" * 300_000,
        "/srv/state/ledger.sqlite",
    ],
)
def test_what_holds_no_secret_is_shown_as_it_is(text: str) -> None:
    assert masked(text) == text


def test_words_of_a_command_headers_and_json_hide_what_follows_a_secret_name() -> None:
    assert masked(["train", "--token", "x1", "--api-key=x2", "--epochs", "3"]) == [
        "train", "--token", "***", "--api-key=***", "--epochs", "3",
    ]  # fmt: skip
    assert masked("Authorization: Bearer abc.def") == "Authorization: Bearer ***"
    assert masked('{"password": "a b", "user": "me"}') == '{"password": ***, "user": "me"}'
    assert masked({"X-API-Key": "x", "deep": {"access_token": "y"}, "max_tokens": 3}) == {
        "X-API-Key": "***", "deep": {"access_token": "***"}, "max_tokens": 3,
    }  # fmt: skip


def run(folder: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QRELAY_")}
    command = [sys.executable, "-m", "qrelay.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, env={**kept, **variables}, capture_output=True, text=True, check=False)


SETTINGS = {
    "all": {"insecure": True, "nats": {"url": 3}, "telemetry": {"otlp_endpoint": 6}},
    "judge": {"cache": 0, "endpoint": {"url": "http://host.invalid/v1", "extra_body": {"api_key": ..., "note": 0}}},
    "retriever": {"embedder_endpoint": {"url": 6}, "http": {"url": 6}},
    "sink": {
        "ledger": 0,
        "training": {"command": ["train", "--token", ...], "kubernetes": {"env": {"DB_PASSWORD": ...}}},
    },
}  # fmt: skip
"""Each setting that may hold a secret -> which of `addresses`, or the password itself."""


def filled(tree: Any, password: str) -> Any:
    match tree:
        case dict():
            return {name: filled(inner, password) for name, inner in tree.items()}
        case list():
            return [filled(inner, password) for inner in tree]
        case bool():
            return tree
        case int():
            return addresses(password)[tree]
        case _:
            return password if tree is ... else tree


@pytest.mark.parametrize("password", ODD)
def test_config_shows_no_secret_of_any_setting_nor_do_its_problems(tmp_path: Path, password: str) -> None:
    settings = filled(SETTINGS, password)
    (tmp_path / "qrelay.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True))
    for arguments in (["config"], ["config", "--json"]):
        done = run(tmp_path, *arguments)
        assert done.returncode == 0, done.stderr
        assert not leaks(done.stdout + done.stderr)
    (tmp_path / "qrelay.yaml").write_text(yaml.safe_dump({**settings, "all": {**settings["all"], "insecure": False}}))
    done = run(tmp_path, "config")
    assert done.returncode == 78
    assert "another machine" in done.stderr
    assert not leaks(done.stderr)
    settings["judge"]["backend"] = "openai"
    settings["judge"]["endpoint"]["url"] = f"http://me:{password}@host.invalid/v1"
    settings["retriever"] |= {"embedder": "endpoint", "milvus": {"uri": f"http://me:{password}@milvus.invalid:19530"}}
    settings["sink"]["training"]["command"] = {"token": password}
    (tmp_path / "qrelay.yaml").write_text(yaml.safe_dump(settings, allow_unicode=True))
    done = run(tmp_path, "config")
    assert done.returncode == 78
    assert not leaks(done.stderr)


def test_every_text_setting_with_an_address_is_in_this_test() -> None:
    """A new setting that names a server must be added above."""
    named = {
        ".".join((section, *path))
        for section in CLASSES
        for path, field in _fields(settings_of(section))
        if any(word in (field.description or "") for word in ("URL", "://"))
    }
    assert {name.partition(".")[2] for name in named} == {
        "nats.url", "telemetry.otlp_endpoint", "ledger", "cache", "endpoint.url",
        "endpoint.revision", "embedder_endpoint.revision",  # empty: the URL, which may hold no credentials
        "embedder_endpoint.url", "http.url", "milvus.uri",
        "access.oidc.keys",  # public: a URL with credentials is refused
        "training.kubernetes.ledger_secret", "training.kubernetes.ledger_secret_key",  # names, in a cluster
    }  # fmt: skip


def _fields(settings: Any, prefix: tuple[str, ...] = ()) -> Any:
    for name, field in settings.model_fields.items():
        if hasattr(field.annotation, "model_fields"):
            yield from _fields(field.annotation, (*prefix, name))
        else:
            yield (*prefix, name), field


@pytest.mark.parametrize("password", ODD[1:5])
def test_feeding_to_a_server_that_is_not_there_shows_no_password(tmp_path: Path, password: str) -> None:
    (tmp_path / "queries.txt").write_text("one\n")
    address = f"nats://me:{password}@127.0.0.1:9"
    done = run(tmp_path, "feed", "queries.txt", "--collection", "docs", "--nats", address)
    assert done.returncode in (1, 78)
    assert "Traceback" not in done.stderr
    assert "nats://***@127.0.0.1:9" in done.stderr
    assert not leaks(done.stdout + done.stderr)


@pytest.mark.parametrize(("password", "address"), [each for each in EVERY if each[1].startswith("postgresql")])
def test_a_database_that_is_not_there_is_named_without_its_password(
    tmp_path: Path, password: str, address: str
) -> None:
    for opened in (
        lambda: SqlCache(address),
        lambda: database.open_engine(database.resolve_url(address), busy_timeout_s=1, create=True),
    ):
        with pytest.raises((ConfigError, BackendUnavailable)) as caught:
            opened()
        assert not leaks(str(caught.value))


@pytest.mark.parametrize(("password", "address"), EVERY)
def test_no_log_line_error_detail_or_item_error_shows_a_password(password: str, address: str) -> None:
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(JsonFormatter("sink"))
    logger = logging.getLogger("tests.secrets")
    logger.addHandler(handler)
    try:
        try:
            raise ValueError(address)
        except ValueError:
            logger.exception(
                "%s", address, extra={"address": address, "nested": {"url": [address]}, "path": Path("x")}
            )
    finally:
        logger.removeHandler(handler)
    entry = json.loads(lines.getvalue())
    if " " in address:  # words of a traceback, of which nobody knows where an address ends
        del entry["exception"]
    assert not leaks(json.dumps(entry, ensure_ascii=False))
    error = BackendUnavailable(address)
    assert not leaks(str(rich_status(error)) + str(item_error(error, "q1")))


async def test_get_info_and_errors_over_grpc_show_no_password(tmp_path: Path) -> None:
    for password in ODD:
        address = server_address()
        ledger = f"{address}{'&' if '?' in address else '?'}password={quote(password)}"
        nats = {"url": f"nats://{password}@127.0.0.1:9"}
        settings = SinkSettings(data_dir=tmp_path, nats=nats, ledger=ledger, insecure=True)
        context: ServiceContext[Any, Any] = ServiceContext("sink", settings, "s1")
        server = GrpcServer(settings.grpc, SERVICE.grpc_name)
        SERVICE.add_servicer(server.raw, context)
        address = await server.start()
        context.core = await asyncio.to_thread(load_sink, settings)
        context.core.ledger.record_dead_letters([dead_letter()])
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                stub = sink_pb2_grpc.SinkServiceStub(channel)
                info = await stub.GetInfo(pb.SinkServiceGetInfoRequest(), timeout=LONG_S)
                assert "password=***" in info.info.details["ledger"]
                assert not leaks(str(info))
                with pytest.raises(grpc.aio.AioRpcError, match=r"nats://\*\*\*@127.0.0.1:9") as caught:
                    await stub.ReplayDeadLetters(pb.ReplayDeadLettersRequest(all=True), timeout=LONG_S)
                assert not leaks(str(caught.value))
        finally:
            await server.drain(1)
            context.core.close()

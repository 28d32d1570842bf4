"""A whole installation is fed planted texts and given planted secrets, and made to fail in every way that is at hand:
neither is in a log, a metric, a span, what a command prints, or the arguments and environment of other processes."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from qrelay.bench.running import Plan
from qrelay.cli.bench.session import changed_settings, typed
from qrelay.cli.up import _without_nats
from qrelay.rundir import endpoints
from tests.llm.endpoint import GOOD, ScriptedEndpoint, answer, text_only, where
from tests.pipeline.harness import COLLECTION, DOUBLES, IMPATIENT, Installation, called

PLANT = "zqxwvk"
"""In each text: a query's, a passage's, its title's and metadata's, a reference answer's, an attribute's."""
KEY, DATABASE, BROKER = "kqzsecret1", "dqzsecret2", "nqzsecret3"
SECRETS = (KEY, DATABASE, BROKER)


class Collector:
    """An OTLP receiver that keeps what it is sent."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self._server = grpc.server(ThreadPoolExecutor(4))
        handler: Any = grpc.unary_unary_rpc_method_handler(self._export)
        service = "opentelemetry.proto.collector.trace.v1.TraceService"
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
        self.address = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()

    def _export(self, body: bytes, _: Any) -> bytes:
        self.bodies.append(body)
        return b""

    def stop(self) -> None:
        self._server.stop(None).wait()


def echoed(status: int, code: str) -> Any:
    """A refusal that repeats the prompt."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        asked = getattr(handler, "asked", "")
        answer(status, {"error": {"code": code, "message": f"cannot take {asked[-400:]}"}})(handler)

    return send


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    """An endpoint that fails by what a query says."""
    with ScriptedEndpoint() as opened:
        chosen = where("plain", GOOD, text_only(f"the {PLANT} passage says nothing"))
        for word, refusal in (
            ("refused", echoed(400, "bad_value")), ("broken", echoed(500, "oops")),
            ("filtered", echoed(400, "content_filter")), ("long", echoed(400, "context_length_exceeded")),
            ("garbage", answer(200, f"no JSON, {PLANT}".encode())),
        ):  # fmt: skip
            chosen = where(word, refusal, chosen)
        opened.default = chosen
        yield opened


@pytest.fixture
def collector() -> Iterator[Collector]:
    opened = Collector()
    yield opened
    opened.stop()


def installation(folder: Path, endpoint: ScriptedEndpoint, collector: Collector, **more: str) -> Installation:
    (folder / "key").write_text(KEY)
    environ = {
        **DOUBLES, **IMPATIENT,
        "QRELAY_ALL__WORKER__MAX_ATTEMPTS": "2", "QRELAY_JUDGE__BACKEND": "openai",
        "QRELAY_JUDGE__STRATEGY": "graded", "QRELAY_JUDGE__ENDPOINT__URL": endpoint.url,
        "QRELAY_JUDGE__ENDPOINT__MAX_RETRIES": "0", "QRELAY_JUDGE__ENDPOINT__RETRY_REFUSED_S": "0.2",
        "QRELAY_JUDGE__ENDPOINT__API_KEY_ENV": "MY_KEY", "MY_KEY": KEY, "PGPASSWORD": DATABASE,
        "QRELAY_JUDGE__MODEL": "m", "QRELAY_ALL__TELEMETRY__OTLP_ENDPOINT": collector.address, **more,
    }  # fmt: skip
    return Installation(folder / "state", environ)


def feed(running: Installation, folder: Path) -> list[str]:
    """Queries, candidates and lines that are neither; what the commands print."""
    words = ("plain", "refused", "broken", "filtered", "long", "garbage", "other")
    passage = {
        "doc_id": "d1", "title": f"{PLANT} title", "text": f"{PLANT} passage", "metadata": {"by": f"{PLANT} me"},
        "scores": {"bm25": 1.0},
    }  # fmt: skip
    rows = [
        {"query_id": word, "query": f"{word} {PLANT} question", "reference_answers": [f"{PLANT} answer"],
         "attributes": {"user": f"{PLANT} user"}, "candidates": [passage]}
        for word in words
    ]  # fmt: skip
    (folder / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [
        json.dumps({"query_id": "q1", "text": f"again {PLANT}"}), f'{{"query_id": "q1", "text": "now {PLANT}"}}',
        f'{{"text": "{PLANT}', f'{{"query_id": 7, "text": ["{PLANT}"]}}', f"{PLANT} a\tb\tc {PLANT}",
        json.dumps({"query_id": f"bad id {PLANT[:0]}", "text": PLANT}),
    ]  # fmt: skip
    (folder / "bad.jsonl").write_text("\n".join(lines))
    fed = [
        running.run("feed", str(folder / "pool.jsonl"), "--collection", COLLECTION, "--format", "candidates"),
        running.run("feed", str(folder / "bad.jsonl"), "--collection", COLLECTION, "--format", "jsonl"),
    ]
    return [json.dumps(each) for each in fed]


def settled(running: Installation) -> bool:
    found = running.run("reconcile", "--collection", COLLECTION, "--pause", "0.05")
    return not found["in_flight"] and found["accepted"] == found["committed"] + found["dead"]


def logs(folder: Path) -> Iterator[tuple[str, str]]:
    for path in (folder / "state" / "up.log", *(folder / "state").glob("**/*.log")):
        yield path.name, path.read_text(errors="replace")


def metrics(running: Installation) -> Iterator[tuple[str, str]]:
    for name, found in endpoints(running.folder).items():
        if found.metrics:
            with urllib.request.urlopen(f"http://{found.metrics}/metrics") as body:
                yield f"metrics of {name}", body.read().decode()


def holding(places: Any, *plants: str) -> list[str]:
    return [f"{name}: {plant}" for name, text in places for plant in plants if plant in text]


def test_no_text_and_no_secret_is_in_logs_metrics_spans_or_what_commands_print(
    tmp_path: Path, endpoint: ScriptedEndpoint, collector: Collector
) -> None:
    with installation(tmp_path, endpoint, collector) as running:
        printed = feed(running, tmp_path)
        running.until(lambda: settled(running))
        assert running.run("reconcile", "--collection", COLLECTION)["dead"] > 0, "nothing failed"
        commands = (("config",), ("config", "--json"), ("top", "--once"))
        told = [called(*words, environ=running.environ) for words in commands]
        shown = [(f"command {number}", each.stdout + each.stderr) for number, each in enumerate(told)]
        assert holding([*metrics(running), *shown], PLANT, *SECRETS) == []
        assert holding(processes(running), *SECRETS) == []
    assert holding(logs(tmp_path), PLANT, *SECRETS) == []
    spans = [("spans", body.decode(errors="replace")) for body in collector.bodies]
    assert spans and holding(spans, PLANT, *SECRETS) == []
    assert holding([("feed", each) for each in printed], PLANT, *SECRETS) == []
    assert any(KEY in header for each in endpoint.headers for header in each.values()), "the key was not used"


def processes(running: Installation) -> Iterator[tuple[str, str]]:
    """Arguments of every process, and the environments of those that need no secret."""
    found = endpoints(running.folder)
    for name, each in found.items():
        process = psutil.Process(each.pid)
        yield f"arguments of {name}", "\0".join(process.cmdline())
        if name in ("retriever", "reranker", "nats"):
            yield f"environment of {name}", json.dumps(process.environ())
        if name == "sink":
            yield "environment of the sink", json.dumps(process.environ()).replace(DATABASE, "")


ADDRESSES = {
    "QRELAY_ALL__NATS__URL": f"nats://me:{BROKER}@127.0.0.1:9",
    "QRELAY_SINK__LEDGER": f"postgresql://me:{DATABASE}@127.0.0.1:9/labels",
    "QRELAY_JUDGE__CACHE": f"postgresql://me:{DATABASE}@127.0.0.1:9/labels",
}


@pytest.mark.parametrize(
    "words",
    [
        ("forget", "q1", "--collection", "docs"),
        ("reconcile", "--collection", "docs"),
        ("export", "qrels", "--collection", "docs", "--out", "out"),
        ("ledger", "compact"),
        ("ledger", "migrate"),
        ("judge", "cache", "stats"),
        ("label", "q1", "d1#0", "2", "--collection", "docs"),
        ("config",),
    ],
    ids=" ".join,
)
def test_a_command_that_fails_shows_no_password_of_its_addresses(tmp_path: Path, words: tuple[str, ...]) -> None:
    key = {"QRELAY_JUDGE__BACKEND": "openai", "QRELAY_JUDGE__ENDPOINT__URL": "http://127.0.0.1:9/v1",
           "QRELAY_JUDGE__ENDPOINT__API_KEY_FILE": str(tmp_path / "key"), "QRELAY_JUDGE__MODEL": "m"}  # fmt: skip
    (tmp_path / "key").write_text(KEY)
    done = called(*words, environ={**ADDRESSES, **key, "QRELAY_DATA_DIR": str(tmp_path)})
    said = done.stdout + done.stderr
    assert said and holding([("said", said)], *SECRETS) == []


def test_a_benchmarks_report_tells_the_command_and_the_settings_without_their_secrets(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["qrelay", "bench", "pipeline", "--nats", ADDRESSES["QRELAY_ALL__NATS__URL"]])
    assert typed() == "qrelay bench pipeline --nats nats://***@127.0.0.1:9"
    monkeypatch.setenv("QRELAY_JUDGE__ENDPOINT__EXTRA_BODY", json.dumps({"api_key": KEY}))
    found = changed_settings("judge", Plan(data_dir=tmp_path))
    assert found["endpoint.extra_body.api_key"] == "***"


@pytest.mark.parametrize("words", [["--nats", "URL"], ["--nats=URL"]])
def test_what_up_detaches_has_no_address_in_its_arguments(words: list[str]) -> None:
    assert _without_nats(["up", *words, "--detached", "--port-base", "0"]) == ["up", "--detached", "--port-base", "0"]

"""`qrelay up --secure`: the whole pipeline with certificates on every connection, and every tool that looks at it."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from qrelay import Client
from qrelay.cli.up import CERTIFICATES
from qrelay.config import Transport
from qrelay.errors import BackendUnavailable, PermissionDenied
from qrelay.rundir import endpoints
from qrelay.security.certs import KEY_TO_CONSOLE, development
from qrelay.security.roles import SERVICES
from qrelay.security.tls import files_of
from tests.pipeline.harness import COLLECTION, DOUBLES, Installation, called, write_queries

QUERIES = 12


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    environ = {**DOUBLES, "QRELAY_CONSOLE__ENABLED": "true"}
    with Installation(tmp_path_factory.mktemp("secure"), environ, "--secure") as installation:
        yield installation


@pytest.fixture(scope="module")
def fed(secure: Installation) -> Installation:
    """With labels."""
    queries = write_queries(secure.folder / "queries.jsonl", QUERIES)
    told = secure.run("feed", str(queries), "--collection", COLLECTION, "--wait")
    assert (told["exit"], told["committed"], told["dead"]) == (0, QUERIES, 0)
    return secure


def test_a_query_goes_all_the_way(fed: Installation) -> None:
    told = fed.run("reconcile", "--collection", COLLECTION)
    assert (told["accepted"], told["committed"]) == (QUERIES, QUERIES)


def test_top_sees_every_service_and_the_queues(fed: Installation) -> None:
    state = fed.run("top")
    assert [row["ready"] for row in state["services"]] == [True] * 4
    assert [row["lag"] for row in state["services"]] == [0] * 4
    assert state["services"][-1]["ok"] == QUERIES
    assert state["console"].startswith("https://")


def test_dead_letters_are_asked_for(fed: Installation) -> None:
    assert fed.run("dlq", "list", "--all")["dead_letters"] == []


def test_health_is_asked_with_the_certificates_of_the_settings_and_refused_without(fed: Installation) -> None:
    for name in ("judge", "console"):
        address = fed.endpoint(name).grpc
        assert called("healthcheck", address, environ=fed.environ).returncode == 0
        without = called("healthcheck", address, environ={"QRELAY_DATA_DIR": str(fed.folder / "none")})
        assert without.returncode != 0
        assert "all.tls" in without.stderr


def test_the_client_takes_the_folder_certificates_or_its_own(fed: Installation) -> None:
    with Client(fed.folder, collection=COLLECTION) as client:
        judged = client.judge(client.rerank(client.retrieve("how do I parse JSON?")))
        assert judged.judgments
        assert len(list(client.labels())) == QUERIES
    (own,) = (fed.folder / CERTIFICATES).glob("person-*")
    shown = Transport(files_of(own))
    with Client("/nowhere", sink=fed.endpoint("sink").grpc, collection=COLLECTION, transport=shown) as client:
        assert len(list(client.labels())) == QUERIES
    with Client("/nowhere", sink=fed.endpoint("sink").grpc, collection=COLLECTION, attempts=1) as client:
        with pytest.raises(BackendUnavailable):
            list(client.labels())


@pytest.mark.parametrize("service", SERVICES)
def test_a_stolen_service_certificate_reads_no_label(fed: Installation, service: str) -> None:
    shown = Transport(files_of(fed.folder / CERTIFICATES / service))
    with Client("/nowhere", sink=fed.endpoint("sink").grpc, collection=COLLECTION, transport=shown) as client:
        with pytest.raises(PermissionDenied, match=f"service {service} does not allow"):
            list(client.labels())


def test_a_benchmark_measures_what_runs(fed: Installation, tmp_path: Path) -> None:
    sink, metrics = fed.endpoint("sink"), f"https://{fed.endpoint('sink').metrics}/metrics"
    few = ("--quick", "--concurrency", "1", "--rates", "none", "--max-windows", "2")
    told = fed.run("bench", "sink", "--address", sink.grpc, "--metrics", metrics, *few, "--out", str(tmp_path / "s"))
    assert (told["exit"], told["levels"][0]["failed"]) == (0, {})
    nats = fed.endpoint("nats").grpc
    told = fed.run("bench", "pipeline", "--nats", nats, "--sink", sink.grpc, *few, "--out", str(tmp_path / "p"))
    assert (told["exit"], told["extra"]["queries"]["lost"]) == (0, 0)


def test_people_reach_the_console_without_a_certificate_and_over_tls_alone(fed: Installation) -> None:
    url = fed.endpoint("console").grpc
    context = ssl.create_default_context(cafile=fed.folder / CERTIFICATES / "ca.crt")
    with urllib.request.urlopen(f"{url}/health", context=context) as answer:
        assert json.load(answer)["status"] == "SERVING"
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url}/v1/stats", context=context)
    token = (fed.folder / CERTIFICATES / KEY_TO_CONSOLE).read_text().strip()
    shown = {"authorization": f"Bearer {token}"}
    for path in ("/v1/stats", f"/v1/export?collection={COLLECTION}&format=qrels"):
        with urllib.request.urlopen(urllib.request.Request(url + path, headers=shown), context=context) as answer:
            assert (COLLECTION if path == "/v1/stats" else " 0 ") in answer.read().decode()
    with pytest.raises((urllib.error.URLError, OSError)):
        urllib.request.urlopen(url.replace("https", "http"))


def test_everything_goes_on_when_all_certificates_are_new(fed: Installation) -> None:
    folder = fed.folder / CERTIFICATES
    before = (folder / "judge" / "tls.crt").read_bytes()
    (person,) = (path.name.removeprefix("person-") for path in folder.glob("person-*"))
    with Client(fed.folder, collection=COLLECTION) as client:
        assert client.retrieve("one before").candidates
        assert set(development(folder, people=[person])) > set(SERVICES)
        assert client.retrieve("one after").candidates
    assert (folder / "judge" / "tls.crt").read_bytes() != before
    more = write_queries(fed.folder / "more.jsonl", 4, start=QUERIES)
    told = fed.run("feed", str(more), "--collection", COLLECTION, "--wait")
    assert (told["committed"], told["dead"]) == (4, 0)
    assert set(endpoints(fed.folder)) == {"nats", "console", "retriever", "reranker", "judge", "sink"}

"""Services that run as long as their client: they end with its block or its process, and nothing is left over."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from qrelay import AsyncClient, Client
from qrelay.client.local import Installation
from qrelay.errors import ConfigError, SetupError
from qrelay.rundir import endpoints
from tests.conftest import LONG_S

FAKES = {
    "retriever": {"engine": "synthetic"},
    "reranker": {"scorer": "fake"},
    "judge": {"backend": "fake"},
    "all": {"worker": {"drain_s": 5}},
}
SERVICES = {"retriever", "reranker", "judge", "sink", "nats"}


def processes(data_dir: Path) -> list[psutil.Process]:
    """Whatever runs on the folder: `qrelay up`, the services, nats-server."""
    found = []
    for each in psutil.process_iter():
        try:
            on_it = str(data_dir) in " ".join(each.cmdline()) or str(data_dir) in each.environ().get("QRELAY_UP", "")
            if on_it and each.pid != os.getpid() and each.status() != psutil.STATUS_ZOMBIE:
                found.append(each)
        except psutil.Error:
            continue
    return found


def until(condition: Callable[[], object]) -> None:
    limit = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < limit, "only what hangs takes so long"
        time.sleep(0.1)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "data"
    for each in processes(tmp_path / "data"):  # whoever failed must not leave them behind
        each.kill()


def test_services_run_as_long_as_the_block_and_labels_stay(data_dir: Path) -> None:
    with Client.local(collection="docs", settings=FAKES, data_dir=data_dir) as client:
        assert {*endpoints(data_dir)} >= SERVICES
        assert client.wait(client.feed(["a question", "another"])).committed == 2
        assert (data_dir / "client.yaml").stat().st_mode & 0o077 == 0, "settings may hold addresses with passwords"
        with pytest.raises(ConfigError, match=r"run from .* already .*reuse=True"):
            with Client.local(data_dir=data_dir):
                pass
        with Client.local(collection="docs", data_dir=data_dir, reuse=True) as other:
            assert len(list(other.labels())) == 2
        assert {*endpoints(data_dir)} >= SERVICES, "those that were not started here are left running"
    assert processes(data_dir) == []
    assert (data_dir / "ledger.sqlite").exists()


async def test_an_error_in_the_block_ends_the_services_too(data_dir: Path) -> None:
    with pytest.raises(KeyError, match="mine"):
        async with AsyncClient.local(collection="docs", settings=FAKES, data_dir=data_dir) as client:
            assert (await client.retrieve("a question")).candidates
            raise KeyError("mine")
    assert processes(data_dir) == []


def test_services_that_cannot_start_say_why_and_leave_nothing(data_dir: Path) -> None:
    broken = {**FAKES, "judge": {"backend": "fak"}}
    with pytest.raises(SetupError, match=r"(?s)`qrelay up` ended with 78.*judge\.backend"):
        with Client.local(settings=broken, data_dir=data_dir):
            pass
    assert processes(data_dir) == []


def test_a_corpus_that_cannot_be_read_is_said_before_anything_starts(data_dir: Path) -> None:
    with pytest.raises(SetupError, match=r"no index of .*gone\.jsonl"):
        with Client.local(data_dir.parent / "gone.jsonl", collection="docs", settings=FAKES, data_dir=data_dir):
            pass
    assert processes(data_dir) == []


def test_a_process_that_is_killed_leaves_no_service_behind(data_dir: Path) -> None:
    code = (
        "import sys, time, json; from qrelay import Client\n"
        "with Client.local(settings=json.loads(sys.argv[2]), data_dir=sys.argv[1]) as client:\n"
        "    print('ready', flush=True); time.sleep(600)\n"
    )
    arguments = [sys.executable, "-c", code, str(data_dir), json.dumps(FAKES)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(processes(data_dir)) >= 6
        process.send_signal(signal.SIGKILL)
    until(lambda: not processes(data_dir))


def test_documents_in_memory_become_the_index(data_dir: Path) -> None:
    settings = {**FAKES, "retriever": {"embedder": "hash"}}
    corpus = {"tides": "The moon pulls the sea.", "bread": "Flour, water, salt and yeast."}
    Installation(data_dir, settings).index(corpus, "notes")
    with Client.local(corpus, collection="notes", settings=settings, data_dir=data_dir) as client:
        found = client.retrieve("what pulls the sea?")
        assert found.candidates[0].passage.doc_id == "tides"
    assert len([each for each in (data_dir / "index" / "notes").iterdir() if each.is_dir()]) == 1, "built once"

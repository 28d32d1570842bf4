"""`qrelay console` as a process: it announces itself, says what it cannot do, and ends in order."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
import yaml

from qrelay.models.registry import BI_ENCODER, Registry
from qrelay.web.console.queries.guide import guide
from qrelay.web.serving import listen
from qrelay.web.site import Site
from tests.models.registry.models import passed, published
from tests.pipeline.harness import qrelay


@contextmanager
def running(folder: Path, *within: str) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process on a data folder, and its URL; it is told to end in the end. within: the command that runs it."""
    environ = {**os.environ, "QRELAY_ALL__RUN_DIR": str(folder / "run")}
    command = [sys.executable, "-m", "qrelay.cli.main", "console", "--port", "0", "--data-dir", str(folder)]
    process = subprocess.Popen([*within, *command], env=environ, stderr=subprocess.DEVNULL)
    announced = folder / "run" / "console.json"
    while not announced.exists() and process.poll() is None:
        time.sleep(0.05)
    yield process, json.loads(announced.read_text())["grpc"]
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 0


def test_it_serves_without_services_and_ledger_and_ends_with_0(tmp_path: Path) -> None:
    with running(tmp_path) as (_, url), httpx.Client(base_url=url) as http:
        assert http.get("/health").json() == {"status": "SERVING"}
        missing = http.get("/v1/stats").json()["error"]
        assert missing["code"] == "FAILED_PRECONDITION"
        asked = http.post("/v1/judge", json={"query": "q", "candidates": ["a"]})
        assert asked.status_code == 503
        assert "no judge runs" in asked.json()["error"]["message"]
        assert asked.headers["retry-after"] == "1"


def test_it_listens_on_the_loopback_alone(tmp_path: Path) -> None:
    with running(tmp_path) as (process, url):
        import psutil

        found = [each.laddr for each in psutil.Process(process.pid).net_connections() if each.status == "LISTEN"]
        assert {address.ip for address in found} == {"127.0.0.1"}
        assert int(url.rpartition(":")[2]) in {address.port for address in found}


def test_the_health_check_asks_it_over_http(tmp_path: Path) -> None:
    with running(tmp_path) as (_, url):
        assert qrelay("healthcheck", url).stdout == "SERVING\n"
    gone = qrelay("healthcheck", url)
    assert gone.returncode == 1
    assert "does not answer" in gone.stderr


def test_another_address_than_the_loopback_is_refused_with_the_way_out(tmp_path: Path) -> None:
    done = qrelay("console", environ={"QRELAY_DATA_DIR": str(tmp_path), "QRELAY_CONSOLE__BIND": "0.0.0.0:7405"})
    assert done.returncode == 78
    assert "port-forward" in done.stderr


def test_the_settings_that_are_named_say_where_it_listens_and_in_whose_words_people_grade(tmp_path: Path) -> None:
    rubric = yaml.safe_load((files("qrelay.judging.rubrics") / "graded-0-3.yaml").read_text("utf8"))
    rubric["name"], rubric["scale"]["grades"][3] = "helpdesk", "names the part to order"
    (tmp_path / "helpdesk.yaml").write_text(yaml.safe_dump(rubric))
    config = tmp_path / "settings.yaml"
    config.write_text("judge: {rubric: helpdesk.yaml}\nconsole: {bind: 'localhost:7777'}\n")
    site = Site.of(tmp_path / "data", config)
    assert (site.settings.bind, guide(site, "0-3").meanings[3]) == ("localhost:7777", "names the part to order")
    assert Site.of(tmp_path / "data", config, port=0).settings.bind == "localhost:0"
    assert guide(Site.of(tmp_path / "data", None), "0-3").meanings[3] != "names the part to order"


def test_small_answers_are_sent_at_once() -> None:
    """asyncio switches Nagle's algorithm off for sockets that are named as TCP, and for no other."""
    with listen("127.0.0.1:0") as listening:
        assert listening.proto == socket.IPPROTO_TCP


def test_where_the_registry_is_read_only_the_pages_say_where_to_decide_instead_of_a_button(tmp_path: Path) -> None:
    """As on Kubernetes, where the console mounts the registry so."""
    unshare = ("unshare", "--user", "--map-root-user", "--mount")
    if not shutil.which("unshare") or subprocess.run([*unshare, "true"], capture_output=True).returncode:
        pytest.skip("no user namespaces on this machine")
    registry = Registry(tmp_path / "registry")
    first, second = published(registry, "a"), published(registry, "b")
    registry.promote(passed(registry, first))
    passed(registry, second, against=first)
    mounted = f"mount --bind {registry.folder} {registry.folder} && mount -o remount,bind,ro {registry.folder}"
    with running(tmp_path, *unshare, "sh", "-c", f'{mounted} && exec "$@"', "sh") as (_, url):
        pages = [
            httpx.get(url + path, headers={"accept": "text/html"}) for path in ("/models", f"/model?version={second}")
        ]
    commands = f"qrelay models rollback {BI_ENCODER}", f"qrelay models promote {second}"
    for page, command in zip(pages, commands, strict=True):
        assert page.status_code == 200
        assert f"The registry is read-only here: run <code>{command}</code>" in page.text
        assert re.findall(r'method="post" action="(/model[^"]*)"', page.text) == []

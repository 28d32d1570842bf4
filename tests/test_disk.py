"""A folder that cannot be written and a disk that is full: one clear line, an exit code of the table, nothing lost.

Each runs with a small file system of its own, mounted in a user namespace; skipped where that is not allowed.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import nats
import pytest

from qrelay.config import NatsSettings
from qrelay.errors import BackendUnavailable, ConfigError
from qrelay.exitcodes import EXIT_FAILED, EXIT_SETUP
from qrelay.files import AtomicFiles, disk_refusal
from qrelay.labels.ledger.ledger import Ledger
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.topology import Queue
from tests.labels.builders import judged_set

NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
FILL = "dd if=/dev/zero of=$DISK/ballast bs=1k 2>/dev/null"
READ_ONLY = "mount -o remount,ro $DISK"
WITH_LEDGER = "mount -o remount,size=1m $DISK; cp ledger.sqlite $DISK"
FAKES = """
retriever: {engine: synthetic}
reranker: {scorer: fake}
judge: {backend: fake, strategy: graded}
"""
QRELAY = f"{sys.executable} -m qrelay.cli.main"

COMMANDS = {
    "up": "up --port-base 0 --config qrelay.yaml --data-dir $DISK",
    "serve": "serve sink",
    "judge": "serve judge",
    "feed": "feed queries.txt --collection docs --nats $NATS --data-dir $DISK",
    "index": "index build corpus.jsonl --collection docs --embedder hash --out $DISK/index",
    "export": "export qrels --collection docs --ledger ledger.sqlite --out $DISK/docs.qrels",
    "ledger": "ledger info --data-dir $DISK",
    "training": "training run --collection docs --unmeasured --data-dir $DISK",
    "generate": "queries generate --backend fake --corpus corpus.jsonl --n 1 --out $DISK/q.jsonl --no-round-trip "
    "--min-words 1",
    "pull": "models pull all-MiniLM-L6-v2",
}


@pytest.fixture
async def queues(nats_settings: NatsSettings) -> NatsSettings:
    """Of a server on which a service has declared the queues."""
    async with await JetStreamBroker.connect(nats_settings, name="service", owner=True):
        return nats_settings


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A working folder with what the commands read, and `disk`, where the small file system is mounted."""
    if subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", str(tmp_path)], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    (tmp_path / "disk").mkdir()
    (tmp_path / "qrelay.yaml").write_text(FAKES)
    (tmp_path / "queries.txt").write_text("".join(f"question number {n}\n" for n in range(3000)))
    (tmp_path / "corpus.jsonl").write_text('{"_id": "d1", "title": "t", "text": "how to parse JSON in Python"}\n')
    ledger = Ledger.open(tmp_path / "ledger.sqlite")
    ledger.commit([judged_set()])
    ledger.close()
    return tmp_path


def inside(folder: Path, script: str, nats_url: str = "nats://127.0.0.1:9") -> subprocess.CompletedProcess[str]:
    """The shell script in a namespace in which `$DISK` is a file system of 300 KB."""
    disk = str(folder / "disk")
    mine = {
        "DISK": disk,
        "NATS": nats_url,
        "QRELAY_MODELS_DIR": f"{disk}/models",
        "QRELAY_ALL__DATA_DIR": disk,
        "QRELAY_ALL__RUN_DIR": f"{disk}/run",
        "QRELAY_ALL__NATS__URL": nats_url,
        "QRELAY_JUDGE__BACKEND": "fake",
    }
    mounted = f"mount -t tmpfs -o size=300k tmpfs $DISK\n{script}"
    return subprocess.run(
        [*NAMESPACE, "sh", "-c", mounted], cwd=folder, env={**os.environ, **mine}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_a_folder_that_cannot_be_written_is_named_in_one_line(folder: Path, name: str, queues: NatsSettings) -> None:
    done = inside(folder, f"{WITH_LEDGER}; {READ_ONLY}; exec {QRELAY} {COMMANDS[name]}", queues.url)
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert done.returncode in (EXIT_SETUP, EXIT_FAILED)
    assert str(folder / "disk") in said
    assert any(words in said for words in ("Read-only file system", "unable to open", "cannot be written"))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "pull"])
def test_a_full_disk_is_told_in_one_line(folder: Path, name: str, queues: NatsSettings) -> None:
    done = inside(folder, f"{WITH_LEDGER}; {FILL}; exec {QRELAY} {COMMANDS[name]}", queues.url)
    assert "Traceback" not in done.stdout + done.stderr
    assert done.returncode == EXIT_FAILED
    assert any(words in done.stderr for words in ("No space left", "is full", "disk I/O error"))
    assert "free" in done.stderr


async def test_a_disk_that_fills_under_the_feeds_journal_loses_nothing_and_tells_what_was_accepted(
    folder: Path, queues: NatsSettings
) -> None:
    feed = f"{QRELAY} {COMMANDS['feed']} --json"
    script = f"{feed} >first.json; echo $? >code; cp -r $DISK/feed kept; mount -o remount,size=8m $DISK; {feed}"
    done = inside(folder, script, queues.url)
    first, second = json.loads((folder / "first.json").read_text()), json.loads(done.stdout)
    assert (folder / "code").read_text().strip() == str(EXIT_FAILED)
    assert "docs.sqlite" in done.stderr and "free some space" in done.stderr
    assert "Traceback" not in done.stderr
    assert 0 < first["accepted"] < 3000
    with sqlite3.connect(folder / "kept" / "docs.sqlite") as journal:
        assert journal.execute("SELECT count(*) FROM accepted").fetchone() == (first["accepted"],)
    assert (second["known"], second["accepted"]) == (first["accepted"], 3000 - first["accepted"])
    client = await nats.connect(queues.url)
    found = await client.jetstream().stream_info(Queue.QUERIES.stream)
    await client.close()
    assert found.state.messages == 3000


def test_a_file_that_does_not_fit_is_named_and_leaves_nothing_behind(folder: Path) -> None:
    program = (
        "from pathlib import Path; from qrelay.files import write_atomic; "
        "write_atomic(Path('disk/sub/file'), b'x' * 400_000)"
    )
    done = inside(folder, f'{sys.executable} -c "{program}"; find disk/sub -type f')
    assert "disk/sub/file" in done.stderr.splitlines()[-1]
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, BackendUnavailable),
        (errno.EDQUOT, BackendUnavailable),
        (errno.EFBIG, BackendUnavailable),
        (errno.EROFS, ConfigError),
        (errno.EACCES, ConfigError),
        (errno.ENOTDIR, ConfigError),
        (errno.ECONNREFUSED, type(None)),
    ],
)
def test_only_a_disks_refusals_are_taken_for_one(number: int, kind: type) -> None:
    assert type(disk_refusal(OSError(number, os.strerror(number), "/place"))) is kind


def test_a_group_of_files_says_which_could_not_be_written(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught, AtomicFiles() as files:
        files.open(tmp_path / "one")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert caught.value.filename == str(tmp_path / "one")
    assert not list(tmp_path.iterdir())

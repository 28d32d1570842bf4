"""What a foreign error's codes say of it. Its words may quote a text; numbers and names of closed lists cannot."""

from __future__ import annotations

import errno
import os
import re
import sqlite3
import subprocess
from collections.abc import Iterator

import grpc


def codes(error: BaseException) -> str:
    """ " [errno 28 No space left on device]", say; "" of an error that has none. An error that SQLAlchemy wrapped has
    those of the database's."""
    wrapped = getattr(error, "orig", None)
    found = [*_codes(error), *(_codes(wrapped) if isinstance(wrapped, BaseException) else ())]
    return f" [{', '.join(found)}]" if found else ""


def _codes(error: BaseException) -> Iterator[str]:
    if isinstance(error, OSError) and isinstance(error.errno, int):
        known = f" {os.strerror(error.errno)}" if error.errno in errno.errorcode else ""
        yield f"errno {error.errno}{known}"
    if isinstance(error, sqlite3.Error) and (name := getattr(error, "sqlite_errorname", "")):
        yield str(name)
    state = getattr(error, "sqlstate", None)  # psycopg's errors
    if isinstance(state, str) and re.fullmatch("[0-9A-Z]{5}", state):
        yield f"SQLSTATE {state}"
    code = getattr(error, "code", None) if isinstance(error, grpc.RpcError) else None
    if callable(code) and isinstance(status := code(), grpc.StatusCode):
        yield f"gRPC {status.name}"
    if isinstance(error, subprocess.CalledProcessError):
        yield f"exit code {error.returncode}"

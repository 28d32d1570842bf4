"""An exception that quotes a text leaves its class and its place in logs and spans, and no word of it."""

from __future__ import annotations

import io
import json
import logging
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing

import grpc.aio
import psycopg.errors
import pytest
from grpc.aio import Metadata
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from qrelay.errors import BackendUnavailable, QrelayError
from qrelay.runtime import telemetry
from qrelay.runtime.errorcodes import codes
from qrelay.runtime.translate import as_qrelay_error

PLANT = "zqxwvk"


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, whose level is put back."""
    found = logging.getLogger()
    level = found.level
    yield found
    found.setLevel(level)


def raised() -> BaseException:
    """Three errors in a chain, two of them foreign, the last in a group."""
    try:
        try:
            int(PLANT)
        except ValueError as error:
            raise BackendUnavailable("is no number") from error
    except QrelayError as error:
        return ExceptionGroup(f"about {PLANT}", [error, KeyError(PLANT)])


def logged(level: int, root: logging.Logger) -> str:
    root.setLevel(level)
    lines = io.StringIO()
    handler = logging.StreamHandler(lines)
    handler.setFormatter(telemetry.JsonFormatter("judge"))
    logger = logging.getLogger("tests.quoted")
    logger.addHandler(handler)
    try:
        logger.error("failed", exc_info=raised())
    finally:
        logger.removeHandler(handler)
    return str(json.loads(lines.getvalue())["exception"])


def test_a_logged_exception_says_where_and_what_kind_and_quotes_nothing(root: logging.Logger) -> None:
    said = logged(logging.INFO, root)
    assert PLANT not in said
    for word in ("ExceptionGroup", "KeyError", "ValueError", "test_quoted.py", "is no number"):
        assert word in said
    assert PLANT in logged(logging.DEBUG, root)


class Wrapped(Exception):
    """As SQLAlchemy wraps a database's error."""

    def __init__(self, orig: Exception) -> None:
        super().__init__(f"about {PLANT}")
        self.orig = orig


def sqlite_error() -> sqlite3.Error:
    with closing(sqlite3.connect(":memory:")) as database:
        try:
            database.execute(f"SELECT {PLANT}")
        except sqlite3.Error as error:
            return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(28, PLANT, PLANT), "errno 28 No space left on device"),
        (OSError(PLANT, PLANT), ""),
        (Wrapped(sqlite_error()), "SQLITE_ERROR"),
        (Wrapped(psycopg.errors.UniqueViolation(PLANT)), "SQLSTATE 23505"),
        (grpc.aio.AioRpcError(grpc.StatusCode.UNAVAILABLE, Metadata(), Metadata(), PLANT), "gRPC UNAVAILABLE"),
        (subprocess.CalledProcessError(3, [PLANT], PLANT, PLANT), "exit code 3"),
        (KeyError(PLANT), ""),
    ],
)
def test_a_foreign_error_tells_its_codes_and_no_word(error: Exception, told: str) -> None:
    said = codes(error)
    assert said == (f" [{told}]" if told else "")
    assert said in telemetry._told(error)
    assert PLANT not in telemetry._told(error)


def test_what_a_caller_is_told_of_a_bug_quotes_nothing() -> None:
    assert str(as_qrelay_error(KeyError(PLANT))).startswith("unexpected KeyError: see the service's log")


def test_a_span_in_which_something_failed_names_the_class_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(telemetry, "tracer", lambda: provider.get_tracer("test"))
    with pytest.raises(ValueError, match=PLANT), telemetry.span("work"):
        raise ValueError(PLANT)
    (span,) = exporter.get_finished_spans()
    assert PLANT not in span.to_json()
    assert span.status.description == "ValueError"

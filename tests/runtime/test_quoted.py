"""An exception that quotes a text leaves its class and its place in logs and spans, and no word of it."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from qrelay.errors import BackendUnavailable, QrelayError
from qrelay.runtime import telemetry
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

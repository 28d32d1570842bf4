"""Every error of the tree has a gRPC status and a fate, and every foreign error of NATS becomes one of ours."""

from __future__ import annotations

import inspect

import grpc
import nats.errors
import nats.js.errors
import pytest
from google.rpc import error_details_pb2

from qrelay import errors
from qrelay.errors import QrelayError
from qrelay.runtime import natserrors
from qrelay.runtime.translate import Fate, as_qrelay_error, error_of, fate, rich_status, status_code


def tree() -> list[type[QrelayError]]:
    return [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, QrelayError)]


def test_every_error_class_is_mapped_and_drawn_in_the_docstring() -> None:
    for each in tree():
        assert each.__name__ in (errors.__doc__ or "")
        if each is not QrelayError:
            error = each("x")
            assert isinstance(fate(error), Fate)
            assert status_code(error) is not grpc.StatusCode.OK
            assert rich_status(error).message


def test_reasons_are_stable_words_of_their_own() -> None:
    reasons = [each.reason for each in tree()]
    assert len(reasons) == len(set(reasons))


def test_an_error_comes_back_as_the_class_that_it_was_whatever_special_cases_modules_define() -> None:
    import qrelay.formats.lines  # noqa: F401  BadRecord is a MalformedInput

    for each in tree():
        assert type(error_of(each.reason, "told")) is each


def test_a_transient_error_says_when_to_come_back() -> None:
    status = rich_status(errors.RateLimited("slow down", retry_after_s=2.5))
    retry = error_details_pb2.RetryInfo()
    assert any(detail.Unpack(retry) for detail in status.details)
    assert (retry.retry_delay.seconds, retry.retry_delay.nanos) == (2, 500_000_000)


def test_an_unexpected_exception_is_a_bug_and_says_so() -> None:
    assert "bug in qrelay" in str(as_qrelay_error(KeyError("x")))


def nats_errors() -> list[type[Exception]]:
    modules = (nats.errors, nats.js.errors)
    found = {c for module in modules for _, c in inspect.getmembers(module, inspect.isclass)}
    return sorted((c for c in found if issubclass(c, Exception)), key=lambda c: c.__name__)


@pytest.mark.parametrize("foreign", nats_errors(), ids=lambda c: c.__name__)
def test_no_error_of_nats_leaves_untranslated(foreign: type[Exception]) -> None:
    error = foreign.__new__(foreign)
    numbers = ("code", "err_code", "consumer_sequence", "last_consumer_sequence", "stream_resume_sequence")
    for name in (*numbers, "description", "stream", "seq", "subject", "sid", "sub", "_msg", "key", "value"):
        setattr(error, name, 1 if name in numbers else None)
    with pytest.raises(QrelayError), natserrors.translated("test"):
        raise error

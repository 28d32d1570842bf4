"""JSON and YAML from outside: a value or ValueError, whatever the bytes are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrelay.errors import ConfigError, MalformedInput
from qrelay.parsing import YAML_BYTES, json_document, yaml_document

LAUGHS = "a: &a [x, x]\n" + "\n".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, b"\xff\xfe", "", "9" * 5000, "nonsense"])
def test_json_that_cannot_be_read_is_a_value_error(text: Any) -> None:
    with pytest.raises(ValueError):
        json_document(text)


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, "2001-13-45", "!!int x", "!!timestamp x", "!!bool x", "!!python/object:os.system x", "1" * 5000,
     "a: &a [*a]", LAUGHS, b"\xff\xfe\x00", "a: b: c", "? [a]\n", "{[a]: 1}", "a\n---\nb", b"#" * (YAML_BYTES + 1)],
)  # fmt: skip
def test_yaml_that_cannot_be_read_is_a_value_error(text: Any) -> None:
    with pytest.raises(ValueError):
        yaml_document(text)


def test_yaml_may_repeat_itself_by_aliases() -> None:
    assert yaml_document("a: &a {b: 1}\nc: *a\nd: {<<: *a, e: 2}") == {
        "a": {"b": 1},
        "c": {"b": 1},
        "d": {"b": 1, "e": 2},
    }


@given(st.binary(max_size=50) | st.text(max_size=50))
def test_any_bytes_are_a_value_or_a_value_error(data: Any) -> None:
    for read in (json_document, yaml_document):
        try:
            read(data)
        except ValueError as error:
            assert str(error)


def test_an_errors_text_is_text_and_ends() -> None:
    told = str(MalformedInput("no " + "x" * 10**6 + " \ud800: remove it"))
    assert len(told) < 10_000 and told.startswith("no x") and told.endswith(r"\ud800: remove it")
    assert str(ConfigError("as it is: é")) == "as it is: é"

"""Lines to queries: the formats, and bad lines named with their numbers."""

from __future__ import annotations

import pytest

from qrelay.errors import InputError
from qrelay.feed.lines import parse_line


@pytest.mark.parametrize(
    ("line", "query_id", "text"),
    [
        ('{"query_id": "a", "text": " how? "}', "a", "how?"),
        ('{"_id": 7, "text": "beir"}', "7", "beir"),
        ('{"id": "b", "query": "other names"}', "b", "other names"),
        ("t1\ttab separated\n", "t1", "tab separated"),
    ],
)
def test_each_format_is_told_apart(line: str, query_id: str, text: str) -> None:
    query = parse_line(line, "docs")
    assert (query.query_id, query.text, query.collection) == (query_id, text, "docs")


def test_a_plain_line_gets_an_id_from_its_text() -> None:
    first, again, other = (parse_line(line, "docs") for line in ("how to sort", "how to sort\n", "how to zip"))
    assert first == again
    assert first.query_id != other.query_id
    assert first.query_id.startswith("q-")


def test_attributes_and_reference_answers_come_along() -> None:
    line = '{"query_id": "a", "text": "t", "attributes": {"lang": "en"}, "reference_answers": ["yes"]}'
    query = parse_line(line, "docs")
    assert (query.attributes, query.reference_answers) == ({"lang": "en"}, ("yes",))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"query_id": "a", "text": ', "not JSON"),
        ('{"text": "no id"}', "no query_id"),
        ('{"query_id": "a"}', "no text"),
        ('{"query_id": "a", "text": "  "}', "has no text"),
        ('{"query_id": ["a"], "text": "x"}', "must be text, not list"),
        ('{"query_id": "a b", "text": "x"}', "white space"),
        ('{"query_id": "a", "text": "x", "attributes": []}', None),
        ('{"query_id": "a", "text": "x", "attributes": [1]}', "attributes must be an object"),
        ("\t text", "has no id"),
    ],
)
def test_a_bad_line_says_what_is_wrong(line: str, words: str | None) -> None:
    if words is None:
        parse_line(line, "docs")
        return
    with pytest.raises(InputError, match=words):
        parse_line(line, "docs")

"""Lines to queries: the formats, files of them in the shapes that people have, and bad lines named."""

from __future__ import annotations

import bz2
import gzip
from pathlib import Path

import pytest

from qrelay.errors import InputError, MalformedInput
from qrelay.formats.queries import parse_line, read_queries


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


def test_attributes_that_are_no_text_are_kept_as_json_and_a_null_is_none() -> None:
    line = '{"query_id": "a", "text": "t", "attributes": {"n": 5, "b": true, "o": {"k": ["v"]}, "z": null, "f": 0.5}}'
    assert parse_line(line, "docs").attributes == {"n": "5", "b": "true", "o": '{"k": ["v"]}', "f": "0.5"}
    line = '{"qid": "a", "question": "t", "reference_answers": [1912, "in 1912"]}'
    assert parse_line(line, "docs").reference_answers == ("1912", "in 1912")


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
        (r'{"query_id": "a", "text": "cut \ud83d here"}', "lone surrogate"),
        (r'{"query_id": "a", "text": "x", "attributes": {"lang": "\ud83d"}}', "lone surrogate"),
        (r'{"query_id": "a", "text": "x", "reference_answers": ["\ud83d"]}', "lone surrogate"),
        (r'{"query_id": "a", "text": "zero \u0000 byte"}', "NUL"),
        ("a\tzero \0 byte", "NUL"),
        ("query_id\ttext", "a header"),
        ("qid\tQuery", "a header"),
        ("id\ttext", "a header"),
        ("query", "a header"),
        ("id\tquestion", "a header"),
        ("#qid\ttext", "a header"),
        ('"query_id"\t"text"', "a header"),
        ("qid\tquery\ttopic", "a header"),
        ("q1\twhere is it\tgeography", "more than two columns"),
        ("query-id\tcorpus-id\tscore", "more than two columns"),
        ('"q1"\t"how does it sleep"', "a field in quotes"),
        ('q1\t"how does ""it"" sleep"', "a field in quotes"),
        ("one\rtwo", "a carriage return within the line"),
        ("q1\tone\rq2\ttwo", "a carriage return within the line"),
        ('[{"query_id": "a", "text": "x"}]', "expected an object"),
        ('["where", "when"]', "expected an object"),
        ('  "query_id": "a",', "not JSON"),
        ('  "text": "x"', "not JSON"),
        ('{"query_id": ' + "9" * 5000 + ', "text": "x"}', "a number of more digits than are read"),
        ("[", "no letter and no digit"),
        ('{"query_id": "a\\u0000", "text": "x"}', "NUL"),
        ('{"query_id": "a", "text": "x", "text": "y"}', "the key 'text' occurs twice"),
        ('{"query_id": "a", "text": ["x", "y"]}', "text must be text, not list"),
        ('{"query_id": 1e999, "text": "x"}', "must be text, not float"),
        ('{"query_id": "a", "text": "x", "reference_answers": [null]}', "no list of texts"),
        ('{"a":' * 50_000, "nested too deeply"),
    ],
)
def test_a_bad_line_says_what_is_wrong(line: str, words: str | None) -> None:
    if words is None:
        parse_line(line, "docs")
        return
    with pytest.raises(InputError, match=words):
        parse_line(line, "docs")


def test_a_header_is_a_query_where_the_format_says_so() -> None:
    assert parse_line("query_id\ttext", "docs", "tsv").text == "text"
    assert parse_line("query", "docs", "plain").text == "query"
    assert parse_line("q1\tquery", "docs").text == "query"


@pytest.mark.parametrize(
    "text", ["[solved] how to sort", '"to be or not": who says so', 'q1\t"to be", who wrote it?']
)
def test_brackets_and_quotes_are_no_json_and_no_quoting_by_themselves(text: str) -> None:
    assert parse_line(text, "docs").text == text.removeprefix("q1\t")


def test_bytes_that_are_not_utf8_are_refused_and_never_replaced() -> None:
    assert parse_line("où dort le chat".encode(), "docs").text == "où dort le chat"
    with pytest.raises(MalformedInput, match="not UTF-8"):
        parse_line("où dort le chat".encode("latin-1"), "docs")


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_a_byte_order_mark_is_dropped_and_gzip_told_by_its_bytes(tmp_path: Path, mark: bytes, packed: bool) -> None:
    data = mark + b'q1\twhere\r\n\n{"_id": "q2", "text": "when"}\n'
    (tmp_path / "queries").write_bytes(gzip.compress(data) if packed else data)
    found = list(read_queries(tmp_path / "queries"))
    assert [(query.query_id, query.text) for query in found] == [("q1", "where"), ("q2", "when")]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("queries.csv", b"q1,where\n", "is a table"),
        ("queries.parquet", b"PAR1", "cannot be read as Parquet"),
        ("queries.parquet.gz", b"PAR1", "is a table"),
        ("queries.CSV", b"q1,where\n", "is a table"),
        ("queries.csv.bz2", b"q1,where\n", "is a table"),
        ("queries.txt", b'query_id,text\nq1,"where, when"\n', "is a table"),
        ("queries.txt", b'\xef\xbb\xbf"id";"question"\r\n"1";"where"\r\n', "is a table"),
        ("queries", gzip.compress(b"qid|query\nq1|where\n", mtime=0), "is a table"),
        ("queries.tsv", "猫".encode("utf-16"), "UTF-16"),
        ("queries.bz2", bz2.compress(b"q1\twhere\n"), "is compressed"),
        ("queries.zst", b"\x28\xb5\x2f\xfd\x24\x01q1 where\n", "is compressed"),
        ("queries.tsv", "q1\twhere\n".encode("utf-16"), "NUL bytes"),
        ("queries.tsv", b"q1\twhere\nq2\t\xe9t\xe9\n", r"queries\.tsv:2: not UTF-8"),
        ("queries.gz", gzip.compress(b"q1\twhere\n", mtime=0)[:-6], "is damaged after line 1"),
    ],
)
def test_a_file_that_holds_no_query_lines_is_refused(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(MalformedInput, match=said):
        list(read_queries(tmp_path / name))


@pytest.mark.parametrize(
    "data", [b"q1\twhere\rq2\twhen\r", b'{"id": "q1", "text": "where"}\r{"id": "q2", "text": "when"}']
)
def test_the_lines_of_an_old_macs_file_end_with_carriage_returns(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "queries").write_bytes(data)
    found = list(read_queries(tmp_path / "queries"))
    assert [(query.query_id, query.text) for query in found] == [("q1", "where"), ("q2", "when")]

"""Parquet and datasets: the same rows as queries and as documents, by known names of columns or by named ones."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.feed import feed as feed_command
from qrelay.errors import InputError, MalformedInput
from qrelay.feed.feeder import Feeder, FeedReport
from qrelay.feed.journal import Journal
from qrelay.feed.source import open_records
from qrelay.formats.datasets import (
    DOCUMENT_COLUMNS,
    DOCUMENTS,
    QUERIES,
    QUERY_COLUMNS,
    QUESTIONS,
    Columns,
    is_dataset,
    read_rows,
)
from qrelay.formats.queries import query_of, read_queries
from qrelay.index.corpus import read_corpus
from qrelay.runtime.memory import MemoryBroker
from tests.feed.test_feeder import queries

ROWS: Sequence[Mapping[str, Any]] = (
    {"qid": "q1", "question": "how to copy", "reference_answers": ["cp"], "noise": 1.5},
    {"qid": "q2", "question": "where", "reference_answers": [], "noise": 2.5},
)
NAMED = ("query_id=qid", "text=question")


def parquet(path: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> Path:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([dict(row) for row in rows]), path)
    return path


def every_kind(folder: Path, rows: Sequence[Mapping[str, Any]] = ROWS) -> list[str]:
    """The same rows as Parquet, as saved folders with and without splits, and as the hub's library streams them."""
    import datasets

    dataset = datasets.Dataset.from_list([dict(row) for row in rows])
    dataset.save_to_disk(str(folder / "saved"))
    datasets.DatasetDict({"dev": dataset, "test": dataset}).save_to_disk(str(folder / "splits"))
    (folder / "hub").mkdir()
    parquet(folder / "hub" / "validation.parquet", rows)
    parquet(folder / "rows.parquet", rows)
    return [
        str(folder / "rows.parquet"),
        str(folder / "saved"),
        f"{folder}/splits:dev",
        f"hf:{folder}/hub:validation",
    ]


async def feed(folder: Path, source: str, columns: Columns = QUERY_COLUMNS) -> tuple[FeedReport, MemoryBroker]:
    broker = MemoryBroker()
    with Journal(folder / "journal") as journal:
        read = lambda record: query_of(record, "docs", columns)  # noqa: E731
        feeder = Feeder(broker, journal, collection="docs", read=read)
        return await feeder.feed(open_records(Path(source), columns, follow=False)), broker


async def test_every_kind_of_dataset_feeds_the_same_queries_once(tmp_path: Path) -> None:
    columns = Columns.of(NAMED, QUERIES)
    for number, source in enumerate(every_kind(tmp_path)):
        assert is_dataset(source)
        report, broker = await feed(tmp_path, source, columns)
        assert (report.accepted, report.known) == ((2, 0) if number == 0 else (0, 2)), source
        if number == 0:
            found = {query.query_id: query for query in await queries(broker)}
            assert found["q1"].text == "how to copy"
            assert found["q1"].reference_answers == ("cp",)


async def test_known_names_need_no_mapping_and_a_bad_row_is_named_by_its_number(tmp_path: Path) -> None:
    rows = [{"_id": "q1", "text": "one"}, {"_id": "two words", "text": "x"}, {"_id": "q3", "text": None}]
    report, broker = await feed(
        tmp_path, str(parquet(tmp_path / "q.parquet", [*rows, {"_id": "q4", "text": "four"}]))
    )
    assert (report.accepted, sorted(report.rejected)) == (2, [2, 3])
    assert "white space" in report.rejected[2]
    assert [query.query_id for query in await queries(broker)] == ["q1", "q4"]


async def test_whole_numbers_are_ids_and_attributes_may_be_of_any_type(tmp_path: Path) -> None:
    import datetime

    rows = [{"id": 7, "question": "how", "attributes": {"year": 2020, "none": None, "tags": ["a"]}}]
    report, broker = await feed(tmp_path, str(parquet(tmp_path / "q.parquet", rows)))
    (query,) = await queries(broker)
    assert (query.query_id, query.attributes) == ("7", {"year": "2020", "tags": '["a"]'})
    dated = [{"id": 8, "question": "when", "attributes": {"day": datetime.date(2020, 1, 1)}}]
    report, _ = await feed(tmp_path, str(parquet(tmp_path / "d.parquet", dated)))
    assert "no JSON" in report.rejected[1]


async def test_questions_without_ids_get_those_that_plain_lines_get(tmp_path: Path) -> None:
    path = parquet(tmp_path / "q.parquet", [{"question": " where is it? "}])
    _, broker = await feed(tmp_path, str(path), Columns(QUESTIONS))
    (query,) = await queries(broker)
    assert query.query_id == query_of("where is it?", "docs", QUERY_COLUMNS, "plain").query_id


def test_a_dataset_without_the_column_says_which_there_are_and_what_to_write(tmp_path: Path) -> None:
    for source in every_kind(tmp_path, [{"number": "q1", "asked": "how"}]):
        with pytest.raises(
            MalformedInput, match=r"no column query_id of a query \(nor _id, id, qid\); it has asked, n"
        ):
            list(read_rows(source, QUERY_COLUMNS))
    other = parquet(tmp_path / "o.parquet", [{"number": "q1", "asked": "how"}])
    with pytest.raises(MalformedInput, match=r"it has asked, number: say which it is with --column query_id=COLUMN"):
        list(read_rows(str(other), QUERY_COLUMNS))
    with pytest.raises(MalformedInput, match=r"no column 'askd'; it has asked, number.*Did you mean 'asked'"):
        list(read_rows(str(other), Columns.of(["query_id=number", "text=askd"], QUERIES)))
    with pytest.raises(MalformedInput, match=r"no column _id of a document \(nor id, doc_id"):
        list(read_corpus(str(other), lambda where, why: None))


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (["query_id"], "write NAME=COLUMN"),
        (["query_id="], "write NAME=COLUMN"),
        (["querry_id=qid"], "Did you mean 'query_id'"),
        (["text=a", "text=b"], "given twice"),
    ],
)
def test_a_mapping_that_is_none_is_refused(told: list[str], why: str) -> None:
    with pytest.raises(InputError, match=why):
        Columns.of(told, QUERIES)


def test_a_named_column_wins_over_known_ones_and_works_for_lines_too(tmp_path: Path) -> None:
    columns = Columns.of(["query_id=number", "text=question"], QUERIES)
    line = json.dumps({"number": 3, "query_id": "other", "text": "a passage", "question": "how"})
    query = query_of(line, "docs", columns)
    assert (query.query_id, query.text) == ("3", "how")
    rows = [{"number": 3, "query_id": "other", "text": "a passage", "question": "how"}]
    (row,) = read_rows(str(parquet(tmp_path / "q.parquet", rows)), columns)
    assert query_of(row[1], "docs", columns) == query


def test_corpora_take_named_columns_from_every_kind_of_source(tmp_path: Path) -> None:
    rows = [{"pid": "d1", "passage": "one", "heading": "T", "text": "not this"}]
    (tmp_path / "c.jsonl").write_text(json.dumps(rows[0]) + "\n")
    columns = Columns.of(["_id=pid", "text=passage", "title=heading"], DOCUMENTS)

    def never(where: str, why: str) -> None:
        raise AssertionError(where + why)

    for source in (*every_kind(tmp_path, rows), str(tmp_path / "c.jsonl")):
        (document,) = read_corpus(source, never, columns=columns)
        assert (document.doc_id, document.title, document.text) == ("d1", "T", "one"), source
    (document,) = read_corpus(str(tmp_path / "rows.parquet"), never, columns=DOCUMENT_COLUMNS)
    assert document.text == "not this"


def test_files_of_queries_are_read_as_parquet_wherever_they_are_read(tmp_path: Path) -> None:
    assert [each.query_id for each in read_queries(parquet(tmp_path / "q.parquet"))] == ["q1", "q2"]
    bad = parquet(tmp_path / "bad.parquet", [{"qid": "a b", "question": "x"}])
    with pytest.raises(MalformedInput, match=r"bad\.parquet:1: .*white space"):
        list(read_queries(bad))


@pytest.mark.parametrize("source", ["hf:", "hf:a:b:c:d"])
def test_a_name_that_is_none_of_a_hubs_datasets_is_refused(source: str) -> None:
    with pytest.raises(MalformedInput, match="names no dataset"):
        list(read_rows(source, QUERY_COLUMNS))


def test_a_split_of_several_has_to_be_named(tmp_path: Path) -> None:
    every_kind(tmp_path)
    with pytest.raises(MalformedInput, match="holds the splits dev, test: name one"):
        list(read_rows(str(tmp_path / "splits"), QUERY_COLUMNS))
    with pytest.raises(MalformedInput, match="no split 'train'; it has dev, test"):
        list(read_rows(f"{tmp_path}/splits:train", QUERY_COLUMNS))


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["q.parquet", "--follow"], "does not grow"),
        (["q.parquet", "--format", "tsv"], "is of lines"),
        (["q.tsv", "--format", "tsv", "--column", "text=a"], "--column names columns of datasets and of JSONL"),
        (["nothing.jsonl"], "does not exist"),
        (["q.parquet", "--column", "txt=a"], "Did you mean 'text'"),
    ],
)
def test_options_of_feed_that_do_not_fit_are_refused(tmp_path: Path, options: list[str], why: str) -> None:
    parquet(tmp_path / "q.parquet")
    (tmp_path / "q.tsv").write_text("q1\thow\n")
    arguments = [str(tmp_path / options[0]), *options[1:], "--collection", "docs", "--data-dir", str(tmp_path / "d")]
    found = CliRunner().invoke(feed_command, [*arguments, "--nats", "nats://127.0.0.1:1"])
    assert found.exit_code != 0
    assert why in found.output + str(found.exception)

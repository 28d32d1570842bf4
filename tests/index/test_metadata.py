"""Metadata of documents: read in one way, kept by every version of an index, and given to every passage."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, Final

import pyarrow
import pyarrow.parquet
import pytest
from click.testing import CliRunner

from qrelay.cli.index.group import index
from qrelay.cli.pools import PoolOptions, open_pools
from qrelay.formats.candidates import parse_candidates
from qrelay.formats.datasets import QUERY_COLUMNS
from qrelay.formats.records import METADATA_BYTES, metadata_of
from qrelay.index.build import BuildRequest, BuildResult, build_index
from qrelay.index.corpus import read_corpus
from qrelay.index.http.answer import read_hits
from qrelay.index.http.engine import HttpVersions
from qrelay.index.http.presets import PRESETS
from qrelay.index.manifest import current_folder
from qrelay.index.reembed import reembed
from qrelay.index.settings import RetrieverSettings
from qrelay.index.store import PassageStore
from qrelay.index.update import UpdateRequest, update_index
from qrelay.models.embedder import HashEmbedder, load_embedder
from qrelay.models.registry import Registry
from qrelay.models.served import Embedders
from tests.index.documents import made_up, write_jsonl

Build = Callable[..., BuildResult]
Rows = list[dict[str, Any]]


def with_metadata(count: int, start: int = 0) -> Rows:
    """Every second document has some."""
    rows = made_up(start + count)[start:]
    return [row | ({"metadata": {"source": f"s{n % 3}"}} if n % 2 else {}) for n, row in enumerate(rows, start)]


def held(folder: Path) -> dict[str, dict[str, str]]:
    """passage_id -> its metadata."""
    return {each.passage_id: dict(each.metadata) for each in PassageStore(folder).every_passage()}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("NIH\tnews", "NIH\tnews"),
        (2021, "2021"),
        (1.5, "1.5"),
        (True, "true"),
        (["a", "é"], '["a", "é"]'),
        ({"name": {"first": "B"}}, '{"name": {"first": "B"}}'),
        (date(2024, 2, 29), "2024-02-29"),
        ("a\0b\ud800", "a\ufffdb?"),
    ],
)
def test_a_value_has_one_rendering_whatever_it_is(value: object, shown: str) -> None:
    assert metadata_of({"metadata": {"field": value}}) == ({"field": shown}, 0)


@pytest.mark.parametrize(
    "nothing", [{}, {"metadata": None}, {"metadata": {}}, {"metadata": {"a": None, "b": " "}}, 7]
)
def test_null_and_blank_values_are_none(nothing: object) -> None:
    assert metadata_of(nothing) == ({}, 0)


@pytest.mark.parametrize("wrong", ["text", ["a"], 7, [("a", "b")]])
def test_metadata_that_is_no_object_is_left_out_and_counted(wrong: object) -> None:
    assert metadata_of({"metadata": wrong}) == ({}, 1)


def test_what_finds_no_room_is_left_out_whole_and_what_is_smaller_stays() -> None:
    kept, left_out = metadata_of({"metadata": {"b": "x" * METADATA_BYTES, "a": "é" * 900, "c": "y" * 100, "d": {1}}})
    assert (kept, left_out) == ({"a": "é" * 900, "c": "y" * 100}, 2)


def test_every_passage_of_a_document_has_its_metadata(build: Build) -> None:
    result = build(with_metadata(20))
    found = held(result.folder)
    assert result.manifest.with_metadata == 10
    assert len(found) > 20 and found["d3#1"] == {"source": "s0"} and found["d2#0"] == {}
    assert {"metadata.bin", "metadata.npy"} < {file.path for file in result.manifest.files}


def test_an_index_of_documents_without_metadata_is_the_one_that_it_was(build: Build) -> None:
    result = build(made_up(20))
    assert result.manifest.version == "14780f130a6c2639"
    assert not any("metadata" in file.path for file in result.manifest.files)
    assert (result.manifest.with_metadata, result.manifest.without_terms) == (0, 0)


def test_other_metadata_makes_another_version_whose_vectors_are_reused(build: Build) -> None:
    before, after = build(made_up(20)), build(with_metadata(20))
    assert after.manifest.version != before.manifest.version
    assert after.manifest.reused == after.manifest.passages
    assert build(with_metadata(20)).already


def test_a_document_that_repeats_another_with_other_metadata_is_the_same_one(build: Build) -> None:
    row = with_metadata(2)[1]
    result = build([row, row | {"metadata": {"source": "another"}}])
    assert (result.manifest.duplicates, result.rejected) == (1, 0)
    assert held(result.folder)["d1#0"] == {"source": "s1"}


def test_a_build_says_what_of_the_metadata_it_left_out(build: Build) -> None:
    result = build([row | {"metadata": {"a": "x" * 3000, "b": "1"}} for row in made_up(3)])
    assert any("3 fields of metadata were left out" in remark for remark in result.remarks())
    assert held(result.folder)["d0#0"] == {"b": "1"}


def test_updates_and_reembeddings_keep_metadata_and_take_up_what_changed(build: Build) -> None:
    home = build(with_metadata(20)).folder.parent
    changed = with_metadata(20)[5] | {"metadata": {"source": "new"}}
    news = write_jsonl(home.parent / "news.jsonl", [changed, *with_metadata(2, start=20)])
    result = update_index(
        UpdateRequest("tiny", home.parent, str(news), frozenset({"d7"})), load_embedder("hash"), print
    )
    assert (result.changed, result.added, result.removed) == (1, 2, 1)
    found = held(current_folder(home))
    assert (found["d5#0"], found["d21#0"], found["d3#0"]) == ({"source": "new"}, {"source": "s0"}, {"source": "s0"})
    again = reembed(home, load_embedder("hash", dim=16))
    assert held(again.folder) == found


def test_an_index_of_a_former_version_takes_metadata_up_by_an_update(build: Build) -> None:
    """Its store has no file of metadata."""
    home = build(made_up(10)).folder.parent
    assert not any(held(current_folder(home)).values())
    news = write_jsonl(home.parent / "news.jsonl", with_metadata(10))
    result = update_index(UpdateRequest("tiny", home.parent, str(news)), load_embedder("hash"), print)
    assert (result.changed, result.same) == (5, 5)
    assert result.built is not None and result.built.manifest.reused == result.built.manifest.passages


def test_parquet_and_jsonl_with_the_same_metadata_are_one_corpus(tmp_path: Path) -> None:
    rows = [{**row, "metadata": {"source": "s", "year": n}} for n, row in enumerate(made_up(4))]
    table = tmp_path / "corpus.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), table)
    jsonl = write_jsonl(tmp_path / "corpus.jsonl", rows)
    one, other = (list(read_corpus(str(path), print)) for path in (table, jsonl))
    assert [replace(each, where="") for each in one] == [replace(each, where="") for each in other]
    assert one[2].metadata == {"source": "s", "year": "2"}
    renamed = pyarrow.Table.from_pylist(rows).rename_columns({"metadata": "meta"})
    pyarrow.parquet.write_table(renamed, table)
    told = ["corpus", str(table), "--column", "metadata=meta", "--out", str(tmp_path / "out.jsonl")]
    assert CliRunner().invoke(index, told, catch_exceptions=False).exit_code == 0
    written = json.loads((tmp_path / "out.jsonl").read_text().splitlines()[3])
    assert written["metadata"] == {"source": "s", "year": "3"}


def test_passages_are_written_with_their_metadata_and_without_where_there_is_none(
    build: Build, tmp_path: Path
) -> None:
    home = build(with_metadata(4)).folder.parent
    told = ["passages", str(home), "--out", str(tmp_path / "passages.jsonl")]
    assert CliRunner().invoke(index, told, catch_exceptions=False).exit_code == 0
    written = {
        row["passage_id"]: row for row in map(json.loads, (tmp_path / "passages.jsonl").read_text().splitlines())
    }
    assert written["d1#0"]["metadata"] == {"source": "s1"}
    assert written["d0#0"].keys() == {"passage_id", "doc_id", "title", "text"}


@pytest.mark.parametrize("preset", ["opensearch", "vespa", "qdrant"])
def test_an_engine_of_the_users_own_gives_metadata(preset: Any) -> None:
    search = PRESETS[preset]
    body: dict[str, Any] = {}
    place, *names = search.hits.split(".")
    at = body.setdefault(place, {} if names else [])
    for name in names:
        at[name] = []
        at = at[name]
    around, _, field = search.metadata.partition(".")
    at.append({search.id: "a", around: {"text": "x", "title": "t", field: {"year": 2020}}})
    (found,) = read_hits(body, search)
    assert (found.passage.metadata, found.left_out) == ({"year": "2020"}, 0)
    del at[0][around][field]
    (found,) = read_hits(body, search)
    assert (found.passage.metadata, found.left_out) == ({}, 0)


def test_candidates_of_a_line_have_theirs() -> None:
    line = {"query_id": "q", "query": "tides", "candidates": [{"doc_id": "a", "text": "x", "metadata": {"n": 1}}]}
    _, (found,) = parse_candidates(json.dumps(line), "docs")
    assert found.metadata == {"n": "1"}


TOO_MUCH: Final = {"a": "x" * 3000, "b": "1"}


def test_a_corpus_is_written_with_what_an_index_keeps_and_says_what_it_leaves_out(tmp_path: Path) -> None:
    source, out = tmp_path / "corpus.jsonl", tmp_path / "out.jsonl"
    write_jsonl(source, [row | {"metadata": TOO_MUCH} for row in made_up(3)])
    done = CliRunner().invoke(index, ["corpus", str(source), "--out", str(out)], catch_exceptions=False)
    assert done.exit_code == 0
    assert done.stderr.count("3 fields of metadata were left out") == 1
    assert {json.loads(line)["metadata"]["b"] for line in out.read_text().splitlines()} == {"1"}


def test_pools_say_once_what_candidates_and_the_corpus_lost(tmp_path: Path) -> None:
    texts = write_jsonl(tmp_path / "corpus.jsonl", [row | {"metadata": TOO_MUCH} for row in made_up(3)])
    given = [{"doc_id": "d0"}, {"doc_id": "d1"}, {"doc_id": "own", "text": "x", "metadata": TOO_MUCH}]
    file = write_jsonl(tmp_path / "lines.jsonl", [{"query_id": "q", "query": "tides", "candidates": given}])
    opened = open_pools(PoolOptions("candidates", (), str(texts), 10, 150, 4), "docs", file, QUERY_COLUMNS)
    found = opened.pools(file.read_bytes())
    assert [each.passage.metadata for each in found.candidates] == [{"b": "1"}] * 3
    (said,) = (remark for remark in opened.remarks() if "metadata" in remark)
    assert said.startswith("3 fields")


def test_a_build_is_resumed_with_its_metadata(tmp_path: Path) -> None:
    """What was cut before a kill is taken as it stands."""
    source = write_jsonl(tmp_path / "corpus.jsonl", with_metadata(8))
    request = BuildRequest(str(source), "tiny", tmp_path / "index", window=40, stride=20)

    class Killed(Exception):
        pass

    class Dying(HashEmbedder):
        def encode(self, *_: object, **__: object) -> Any:
            raise Killed

    with pytest.raises(Killed):
        build_index(request, Dying(), print)
    result = build_index(request, load_embedder("hash"), print)
    assert held(result.folder)["d1#0"] == {"source": "s1"} and result.manifest.with_metadata == 4


@pytest.mark.parametrize(
    "pinned", ["opensearch@1a597ef06ce6", "vespa@103a1d0e6a73", "qdrant@6c1a987ad4dc"], ids=lambda each: each[:6]
)
def test_where_metadata_stands_moves_no_version_of_an_engine_of_the_users_own(pinned: str) -> None:
    own = {"preset": pinned.partition("@")[0], "url": "http://localhost:9"}
    settings = RetrieverSettings.model_validate({"engine": "http", "collections": ["docs"], "http": own})
    versions = HttpVersions(settings, Embedders("hash", Registry(settings.registry_folder), load_embedder))
    assert versions.open("docs").version == pinned
    versions.close()

"""`qrelay index`: what people and scripts see."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.index.group import index
from qrelay.errors import CorpusIndexError, InputError
from qrelay.index.build import BuildRequest, build_index
from tests.index.documents import made_up, write_jsonl
from tests.services.retriever.versions import Times


def run(*args: object) -> Result:
    return CliRunner().invoke(index, [str(arg) for arg in args])


def test_build_list_verify_search(tmp_path: Path) -> None:
    source, out = write_jsonl(tmp_path / "c.jsonl", made_up(20)), tmp_path / "index"
    built = run("build", source, "--collection", "c", "--out", out, "--embedder", "hash", "--json")
    assert built.exit_code == 0, built.output
    summary = json.loads(built.stdout)
    assert (summary["documents"], summary["rejected"], summary["already_built"]) == (20, 0, False)
    again = run("build", source, "--collection", "c", "--out", out, "--embedder", "hash")
    assert again.exit_code == 0 and "already built" in again.stdout
    listed = json.loads(run("list", out, "--json").stdout)["versions"]
    assert [(row["collection"], row["version"], row["current"]) for row in listed] == [
        ("c", summary["version"], True)
    ]
    assert "all files are whole" in run("verify", out).stdout
    hits = json.loads(run("search", out / "c", "word1 word2", "--top", 3, "--json").stdout)["candidates"]
    assert len(hits) == 3 and set(hits[0]["scores"]) == {"bm25", "dense"}
    assert "bm25" in run("search", out / "c", "word1").stdout


def test_a_build_that_left_records_out_exits_with_3_and_counts_them(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "c.jsonl", made_up(3))
    source.write_text(source.read_text() + "{broken\n")
    built = run("build", source, "--collection", "c", "--out", tmp_path, "--embedder", "hash", "--json")
    assert built.exit_code == 3
    assert json.loads(built.stdout)["rejected"] == 1
    assert f"left out {source}:4: not JSON" in built.stderr


def test_verify_fails_on_a_corrupt_file_and_names_it(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "c.jsonl", made_up(3))
    run("build", source, "--collection", "c", "--out", tmp_path, "--embedder", "hash")
    (path,) = tmp_path.glob("c/*/texts.bin")
    path.write_bytes(path.read_bytes()[::-1])
    checked = run("verify", tmp_path / "c", "--json")
    assert checked.exit_code == 1
    assert "texts.bin is corrupt" in json.loads(checked.stdout)["problems"][0]


def test_limit_takes_the_first_documents(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "c.jsonl", made_up(9))
    built = run("build", source, "--collection", "c", "--out", tmp_path, "--embedder", "hash", "--limit", 4, "--json")
    assert json.loads(built.stdout)["documents"] == 4


def test_list_of_nothing_says_how_to_begin(tmp_path: Path) -> None:
    assert "qrelay index build" in run("list", tmp_path).stderr


def test_reembed_switches_every_collection_and_the_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    for name in "ab":
        source = write_jsonl(tmp_path / f"{name}.jsonl", made_up(5))
        build_index(BuildRequest(str(source), name, tmp_path / "index"), Times(2), print)
    arguments = ("reembed", "--model", "hash", "--out", tmp_path / "index", "--json")
    first, second = (json.loads(run(*arguments).stdout)["collections"] for _ in range(2))
    assert [(row["collection"], row["embedder"], row["switched"], row["already"]) for row in first] == [
        ("a", "hash@1", True, False),
        ("b", "hash@1", True, False),
    ]
    assert [row["already"] for row in second] == [True, True]
    assert [row["version"] for row in first] == [row["version"] for row in second]
    assert "all files are whole" in run("verify", tmp_path / "index").stdout


def test_reembed_says_what_is_missing(tmp_path: Path) -> None:
    arguments = ("--out", tmp_path / "index", "--registry", tmp_path / "registry")
    nothing = run("reembed", "--model", "hash", *arguments)
    assert isinstance(nothing.exception, CorpusIndexError) and "qrelay index build" in str(nothing.exception)
    source = write_jsonl(tmp_path / "c.jsonl", made_up(3))
    run("build", source, "--collection", "c", "--out", tmp_path / "index", "--embedder", "hash")
    unpromoted = run("reembed", "--model", "registry", *arguments)
    assert isinstance(unpromoted.exception, InputError) and "no bi-encoder is promoted" in str(unpromoted.exception)


def test_before_the_first_promotion_there_is_nothing_to_re_embed_and_that_is_no_failure_if_asked(
    tmp_path: Path,
) -> None:
    source, out = write_jsonl(tmp_path / "c.jsonl", made_up(5)), tmp_path / "index"
    run("build", source, "--collection", "c", "--out", out, "--embedder", "hash")
    asked = ("reembed", "--model", "registry", "--registry", tmp_path / "registry", "--out", out)
    assert run(*asked).exit_code != 0
    patient = run(*asked, "--if-promoted")
    assert patient.exit_code == 0 and "nothing to do" in patient.stdout


@pytest.mark.parametrize(
    "command", [("search", "mine", "word1"), ("verify", "mine"), ("passages", "mine", "--out", "p")]
)
def test_a_folder_that_is_not_there_is_named_and_no_build_is_advised(command: tuple[str, ...]) -> None:
    found = run(*command)
    assert (found.exit_code, "Directory 'mine' does not exist" in found.output) == (2, True)

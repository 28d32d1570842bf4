"""`qrelay index passages` and `corpus`: what an index and a source hold, as files that other tools read."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from qrelay.cli.index.group import index
from tests.index.documents import made_up, write_jsonl


def run(*arguments: object) -> None:
    result = CliRunner().invoke(index, [str(each) for each in arguments])
    assert result.exit_code == 0, result.output


def rows(file: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in file.read_text("utf8").splitlines()]


def test_passages_are_those_that_the_index_finds(tmp_path: Path) -> None:
    long = {"_id": "long", "title": "Title", "text": " ".join(f"word{n}" for n in range(400))}
    source = write_jsonl(tmp_path / "c.jsonl", [*made_up(3), long])
    run("build", source, "--collection", "c", "--out", tmp_path / "index", "--embedder", "hash")
    run("passages", tmp_path / "index" / "c", "--out", tmp_path / "passages.jsonl")
    found = rows(tmp_path / "passages.jsonl")
    parts = [row for row in found if row["doc_id"] == "long"]
    assert len(found) == 3 + len(parts) and len(parts) > 1
    assert [row["passage_id"] for row in parts] == [f"long#{n}" for n in range(len(parts))]
    assert {row["title"] for row in parts} == {"Title"} and "word399" in parts[-1]["text"]


def test_a_corpus_is_written_as_beir_and_reads_as_it_was(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "c.jsonl", made_up(5))
    run("corpus", source, "--out", tmp_path / "out.jsonl")
    written = [(row["_id"], row["title"], row["text"]) for row in rows(tmp_path / "out.jsonl")]
    assert written == [(each["_id"], each.get("title", ""), each["text"]) for each in made_up(5)]


def test_records_left_out_are_named_and_end_with_3(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "c.jsonl", made_up(2))
    source.write_text(source.read_text() + "{broken\n")
    result = CliRunner().invoke(index, ["corpus", str(source), "--out", str(tmp_path / "out.jsonl")])
    assert result.exit_code == 3 and f"{source}:3" in result.stderr
    assert len(rows(tmp_path / "out.jsonl")) == 2

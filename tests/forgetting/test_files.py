"""Files that have nothing to do with a forgotten query keep their bytes, whatever its text is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from qrelay.forgetting.finder import REMOVED, Finder
from qrelay.forgetting.folder import Files, forget_files
from qrelay.training.evaluation.freezing import Labels, collection_of, freeze
from qrelay.training.evaluation.frozen import FrozenSet

LONG = "does aspirin help against headache?"
TEXTS = ["insulin", "1", "docs"]


def written(folder: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def lines(*rows: object) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def forgotten(folder: Path, texts: list[str], *, dry_run: bool = False) -> Files:
    return forget_files(folder, Finder(texts, "docs", ["q1"]), set(), dry_run=dry_run)


def names(folder: Path, found: Files) -> tuple[list[str], list[str]]:
    return (
        [path.relative_to(folder).as_posix() for path in found.rewritten],
        [path.relative_to(folder).as_posix() for path in found.named],
    )


@pytest.mark.parametrize("text", TEXTS)
def test_a_short_text_changes_no_model_no_note_and_no_others_row(tmp_path: Path, text: str) -> None:
    job = "training/job1"
    written(tmp_path, {
        f"{job}/job.json": json.dumps({"name": "job1", "collection": "docs", "rule": text}),
        f"{job}/bi_encoder/result.json": json.dumps({"query": text}),
        f"{job}/bi_encoder/model/tokenizer.json": json.dumps({"vocab": {text: 1}, "query": text}),
        f"{job}/bi_encoder/model/vocab.txt": f"the\n{text}\na\n",
        f"{job}/bi_encoder/model/rows.jsonl": lines({"query": text}),
        f"{job}/bi_encoder/checkpoint-10/trainer.jsonl": lines({"query": text}),
        f"{job}/data/triples/summary.json": json.dumps({"query": text}),
        f"{job}/data/triples/dev.jsonl": lines({"query": "another", "positive": text}),
        f"{job}/data/qrels.tsv": f"query-id\tcorpus-id\tscore\nq1\td0\t1\nq2\t{text}\t1\n",
        "reports/report.json": json.dumps({text: {"title": text, "grade": text}}),
        "reports/notes.txt": f"{text}\n",
        "to-grade/sample.tsv": f"query_id\tgrade\tquery\ttext\nq2\t1\tanother\t{text}\n",
    })  # fmt: skip
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    found = forgotten(tmp_path, [text])
    assert {path: path.read_bytes() for path in before} == before
    assert found.rewritten == {}
    assert {"tokenizer.json", "vocab.txt", "job.json", "notes.txt"} <= {path.name for path in found.named}


def test_a_row_goes_where_its_query_is_the_text_and_its_id_or_collection_is_the_querys(tmp_path: Path) -> None:
    rows = lines({"query": "insulin", "positive": "a"}, {"query": "rain", "positive": "b"})
    written(tmp_path, {
        "training/mine/job.json": json.dumps({"collection": "docs"}), "training/mine/train.jsonl": rows,
        "training/other/job.json": json.dumps({"collection": "other"}), "training/other/train.jsonl": rows,
        "training/untold/train.jsonl": rows,
        "rounds/docs/pool.jsonl": lines(*({"query_id": each, "query": "insulin"} for each in ("q1", "q7"))),
        "to-grade/a.tsv": "query_id\tquery\ttext\nq1\tinsulin\tx\nq2\train\tx\n",
        "reports/report.json": json.dumps({"insulin": [{"query_id": "q1", "query": "insulin"}, {"title": "rain"}]}),
    })  # fmt: skip
    planned = names(tmp_path, forgotten(tmp_path, ["insulin"], dry_run=True))
    assert names(tmp_path, forgotten(tmp_path, ["insulin"])) == planned
    assert planned[0] == [
        "reports/report.json",
        "rounds/docs/pool.jsonl",
        "to-grade/a.tsv",
        "training/mine/train.jsonl",
    ]
    assert {"training/other/train.jsonl", "training/untold/train.jsonl", "rounds/docs/pool.jsonl"} <= {*planned[1]}
    assert (tmp_path / "training/mine/train.jsonl").read_text() == lines({"query": "rain", "positive": "b"})
    assert (tmp_path / "training/other/train.jsonl").read_text() == rows
    assert (tmp_path / "to-grade/a.tsv").read_text() == "query_id\tquery\ttext\nq2\train\tx\n"
    report = json.loads((tmp_path / "reports/report.json").read_text())
    assert report == {"insulin": [{"query_id": "q1", "query": REMOVED}, {"title": "rain"}]}


def test_a_frozen_set_with_the_text_under_another_id_is_named(tmp_path: Path) -> None:
    written(tmp_path, {
        "sets/other/set.json": json.dumps({"name": "other", "files": {}}),
        "sets/other/queries.jsonl": lines({"_id": "x9", "text": LONG}),
        "sets/told/set.json": json.dumps({"name": "told", "collection": "other", "files": {}}),
        "sets/told/queries.jsonl": lines({"_id": "q1", "text": LONG}),
    })  # fmt: skip
    found = names(tmp_path, forgotten(tmp_path, [LONG]))
    assert found == ([], ["sets/other/queries.jsonl", "sets/told/queries.jsonl"])


def test_a_set_frozen_from_an_export_says_its_collection_and_only_its_own_query_goes(tmp_path: Path) -> None:
    for name in ("docs", "other"):
        written(tmp_path / name, {
            "corpus.jsonl": lines({"_id": "d1", "text": "a passage"}),
            "queries.jsonl": lines({"_id": "q1", "text": LONG}),
            "qrels/test.tsv": "query-id\tcorpus-id\tscore\nq1\td1\t1\n",
            "manifest.json": json.dumps({"format": "beir", "collection": name, "judges": [], "files": {}}),
        })  # fmt: skip
        files = (
            tmp_path / name / "corpus.jsonl",
            tmp_path / name / "queries.jsonl",
            tmp_path / name / "qrels/test.tsv",
        )
        freeze(tmp_path / "data" / "sets" / name, files, name=name, labels=Labels("gold"),
               collection_name=collection_of(tmp_path / name))  # fmt: skip
    assert names(tmp_path / "data", forgotten(tmp_path / "data", [LONG])) == (
        ["sets/docs/queries.jsonl"],
        ["sets/other/queries.jsonl"],
    )
    assert FrozenSet.read(tmp_path / "data" / "sets" / "other").name == "other"


def test_short_texts_are_found_in_other_files_and_columns_of_tables(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    written(tmp_path, {"a.jsonl": lines({"query": "Zürich"}), "b.tsv": "q1\tZürich\n", "c.log": "of Zürich, say\n"})
    (tmp_path / "d.sqlite").write_bytes(b"\x00\x01" + "Zürich".encode() + b"\x00")
    large = pa.table({"a": pa.array(["Zürich"], pa.large_string())})
    pq.write_table(large, tmp_path / "e.parquet")
    pq.write_table(pa.table({"a": [["rain", "Zürich"]]}), tmp_path / "f.parquet")
    (tmp_path / "g.safetensors").write_text('"Zürich"')
    named = ["a.jsonl", "b.tsv", "d.sqlite", "e.parquet", "f.parquet"]
    assert names(tmp_path, forgotten(tmp_path, ["Zürich"])) == ([], named)


def test_a_rewritten_file_keeps_its_mode(tmp_path: Path) -> None:
    written(tmp_path, {"rounds/docs/pool.jsonl": lines({"query": LONG})})
    (tmp_path / "rounds/docs/pool.jsonl").chmod(0o640)
    assert forgotten(tmp_path, [LONG]).rewritten
    assert (tmp_path / "rounds/docs/pool.jsonl").stat().st_mode & 0o777 == 0o640


def test_a_file_that_vanishes_while_it_is_read_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(tmp_path, {"a.log": LONG, "b.log": LONG})
    whole = Path.stat

    def stat(path: Path, **how: bool) -> object:
        if path.name == "a.log" and not how:
            path.unlink(missing_ok=True)
        return whole(path, **how)

    monkeypatch.setattr(Path, "stat", stat)
    assert names(tmp_path, forgotten(tmp_path, [LONG])) == ([], ["b.log"])

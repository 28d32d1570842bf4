"""Corpus readers: every format gives the same documents, and bad records are named, not fatal."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from qrelay.errors import MalformedInput
from qrelay.index.corpus import read_corpus
from qrelay.index.documents import Document

ROWS = [
    {"_id": "a", "title": "Ants", "text": "Ants live in colonies."},
    {"_id": "b", "title": "", "text": "Bees dance — to show the way."},
]
DOCUMENTS = [Document(row["_id"], row["title"], row["text"]) for row in ROWS]


ROOT = Path(__file__).parents[2]


def never(where: str, why: str) -> None:
    raise AssertionError(f"rejected {where}: {why}")


def lines(rows: list[dict[str, str]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def test_plain_gzip_parquet_and_saved_dataset_read_the_same_documents(tmp_path: Path) -> None:
    import datasets
    import pyarrow
    import pyarrow.parquet

    (tmp_path / "c.jsonl").write_bytes(lines(ROWS))
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines(ROWS)))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"))
    datasets.DatasetDict({"corpus": datasets.Dataset.from_list(ROWS)}).save_to_disk(str(tmp_path / "splits"))
    for source in ("c.jsonl", "c.jsonl.gz", "c.parquet", "saved", "splits", "splits:corpus"):
        assert list(read_corpus(str(tmp_path / source), never)) == DOCUMENTS, source


def test_a_hub_dataset_is_streamed_by_name_and_split(tmp_path: Path) -> None:
    (tmp_path / "hub-dataset").mkdir()
    (tmp_path / "hub-dataset" / "train.jsonl").write_bytes(lines(ROWS))
    assert list(read_corpus(f"hf:{tmp_path / 'hub-dataset'}", never)) == DOCUMENTS
    assert list(read_corpus(f"hf:{tmp_path / 'hub-dataset'}:train", never, limit=1)) == DOCUMENTS[:1]


def test_a_hub_that_does_not_answer_says_what_to_do(tmp_path: Path) -> None:
    code = "from qrelay.index.corpus import read_corpus; list(read_corpus('hf:no/such', print))"
    env = {"HF_HUB_OFFLINE": "1", "HOME": str(tmp_path)}
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT, env=env)
    assert "BackendUnavailable: cannot read hf:no/such" in ran.stderr
    assert "Check the name, the split and the network" in ran.stderr


def test_a_folder_stands_for_the_corpus_in_it(tmp_path: Path) -> None:
    (tmp_path / "corpus.jsonl").write_bytes(lines(ROWS))
    assert list(read_corpus(str(tmp_path), never)) == DOCUMENTS


def test_limit_ends_the_reading(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl").write_bytes(lines(ROWS))
    assert list(read_corpus(str(tmp_path / "c.jsonl"), never, limit=1)) == DOCUMENTS[:1]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b"{not json", "not JSON"),
        (b'["a", "list"]', "expected an object"),
        (b'{"title": "no id", "text": "x"}', "no id"),
        (b'{"_id": "", "text": "x"}', "no id"),
        (b'{"_id": "x", "text": 7}', "must be strings"),
        (b'{"_id": "two words", "text": "x"}', "white space"),
        (b'{"_id": "x", "title": " ", "text": ""}', "neither title nor text"),
        (b'{"_id": "x", "text": "\xff\xfe"}', "not UTF-8"),
        (b'{"_id": "x", "text": "\\ud800"}', "surrogate"),
        (b"[" * 100_000, "not JSON"),
    ],
)
def test_a_malformed_line_is_named_with_its_number_and_the_others_go_on(
    tmp_path: Path, line: bytes, why: str
) -> None:
    first, second = lines(ROWS[:1]), lines(ROWS[1:])
    (tmp_path / "c.jsonl").write_bytes(first + b"\n" + line + b"\n" + second)
    rejected: list[tuple[str, str]] = []
    documents = list(read_corpus(str(tmp_path / "c.jsonl"), lambda where, why: rejected.append((where, why))))
    assert documents == DOCUMENTS
    ((where, said),) = rejected
    assert where == f"{tmp_path / 'c.jsonl'}:3"
    assert why in said


def test_a_truncated_gzip_file_fails_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "c.jsonl.gz").write_bytes(gzip.compress(lines(ROWS * 500))[:-40])
    with pytest.raises(MalformedInput, match=r"c\.jsonl\.gz is damaged after line \d+"):
        list(read_corpus(str(tmp_path / "c.jsonl.gz"), never))


@pytest.mark.parametrize("name", ["nothing.jsonl", "notes.txt", "empty-folder", "bad.parquet"])
def test_a_source_that_is_no_corpus_says_what_would_be(tmp_path: Path, name: str) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "bad.parquet").write_text("x")
    (tmp_path / "empty-folder").mkdir()
    with pytest.raises(MalformedInput, match=name):
        list(read_corpus(str(tmp_path / name), never))


SELECTION = "python-docs:json,csv,math,pathlib,os.path,builtins.str,itertools,asyncio.gather,topics"


def test_python_docs_are_the_same_in_another_process() -> None:
    here = [f"{d.doc_id} {d.title} {d.text}" for d in read_corpus(SELECTION, never)]
    code = (
        "import sys, hashlib; from qrelay.index.corpus import read_corpus;"
        f"docs = read_corpus({SELECTION!r}, print);"
        "print(hashlib.sha256('\\n'.join(f'{d.doc_id} {d.title} {d.text}' for d in docs).encode()).hexdigest())"
    )
    there = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        env={"PYTHONHASHSEED": "7"},
    )
    assert there.stdout.strip() == hashlib.sha256("\n".join(here).encode()).hexdigest()


def test_python_docs_name_things_as_readers_do_and_hold_no_addresses() -> None:
    documents = {d.doc_id: d for d in read_corpus(SELECTION, never)}
    assert documents["pathlib.Path.glob"].title == "pathlib.Path.glob(pattern)"
    assert documents["builtins.str.split"].title == "str.split(sep=None, maxsplit=-1)"
    assert documents["asyncio.gather"].title.startswith("asyncio.gather(")
    assert "permutations" in documents["itertools.permutations"].text
    assert {"json", "math.gcd", "os.path.join", "topics.formatstrings", "csv.Sniffer"} <= set(documents)
    assert not [d for d in documents if any(part.startswith("_") for part in d.split("."))]
    assert not [d for d in documents.values() if " at 0x" in d.title + d.text]


def test_python_docs_do_not_import_what_they_describe() -> None:
    code = (
        "import sys; from qrelay.index.corpus import read_corpus;"
        "before = set(sys.modules); list(read_corpus('python-docs:turtle,antigravity,smtplib', print))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "antigravity, turtle" in ran.stderr
    code = (
        "import sys; from qrelay.index.corpus import read_corpus;"
        "assert list(read_corpus('python-docs:smtplib', print)); assert 'smtplib' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_python_docs_from_a_list_of_modules(tmp_path: Path) -> None:
    (tmp_path / "modules.txt").write_text("# two\njson, csv # and a name\nos.path.join\n")
    found = {d.doc_id.partition(".")[0] for d in read_corpus(f"python-docs:@{tmp_path / 'modules.txt'}", never)}
    assert found == {"json", "csv", "os"}


def test_python_docs_name_what_does_not_exist() -> None:
    with pytest.raises(MalformedInput, match=r"json\.nothing, nosuch"):
        list(read_corpus("python-docs:json.nothing,csv,nosuch", never))


def test_the_demos_questions_are_forty_and_its_modules_exist() -> None:
    demo = ROOT / "qrelay" / "demo"
    queries = [json.loads(line) for line in (demo / "queries.jsonl").read_text("utf8").splitlines()]
    assert len({query["query_id"] for query in queries}) == len({query["text"] for query in queries}) == 40
    documents = list(read_corpus(f"python-docs:@{demo / 'modules.txt'}", never))
    assert 900 < len(documents) < 1200

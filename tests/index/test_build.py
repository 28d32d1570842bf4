"""Index builds: whole, resumed, repeated, incremental, damaged; and their memory."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import ConfigError, CorpusIndexError, MalformedInput
from qrelay.index.build import BuildRequest, BuildResult, build_index
from qrelay.index.manifest import checked_manifest, current_version, read_manifest
from qrelay.index.store import PassageStore
from qrelay.index.stored import VECTORS
from qrelay.index.vectors import SHARD_PASSAGES
from qrelay.models.embedder import Embedder, TextKind
from tests.index.documents import made_up, write_jsonl

Build = Callable[..., BuildResult]
ROOT = Path(__file__).parents[2]


class Counting:
    """The embedder, counting the texts it is given."""

    def __init__(self, inner: Embedder) -> None:
        self._inner = inner
        self.name, self.fingerprint, self.dim = inner.name, inner.fingerprint, inner.dim
        self.texts = 0

    def encode(self, texts: Sequence[str], kind: TextKind) -> np.ndarray:
        self.texts += len(texts)
        return self._inner.encode(texts, kind)

    def windows(self, text: str, size: int, stride: int) -> list[str]:
        return self._inner.windows(text, size, stride)

    def unknown(self, texts: Sequence[str]) -> tuple[int, int]:
        return self._inner.unknown(texts)


def test_a_build_holds_every_document_and_its_manifest_says_so(build: Build) -> None:
    rows = made_up(50)
    result = build(rows)
    manifest = checked_manifest(result.folder, "full")
    store = PassageStore(result.folder)
    passages = store.passages(np.arange(len(store)))
    assert manifest.documents == store.documents == 50
    assert manifest.passages == len(passages) == len(np.load(result.folder / VECTORS))
    assert [p.doc_id for p in passages if p.passage_id.endswith("#0")] == [row["_id"] for row in rows]
    assert current_version(result.folder.parent) == manifest.version == result.folder.name
    assert not [path.name for path in result.folder.parent.iterdir() if path.name.startswith((".build", ".spool"))]


def test_windows_cover_every_word_and_overlap(build: Build) -> None:
    words = [f"w{number}" for number in range(200)]
    result = build([{"_id": "long", "title": "t", "text": " ".join(words)}, {"_id": "s", "text": "short one"}])
    *windows, short = PassageStore(result.folder).passages(np.arange(result.manifest.passages))
    assert short.passage_id == "s#0" and short.text == "short one"
    assert [p.passage_id for p in windows] == [f"long#{n}" for n in range(len(windows))]
    assert len(windows) > 2
    assert set(" ".join(p.text for p in windows).split()) == set(words)
    for left, right in pairwise(windows):
        assert set(left.text.split()) & set(right.text.split())


def test_same_corpus_same_bytes_wherever_it_is_built(tmp_path: Path, embedder: Embedder) -> None:
    source = write_jsonl(tmp_path / "c.jsonl", made_up(30))
    results = [build_index(BuildRequest(str(source), "c", tmp_path / out), embedder, print) for out in "ab"]
    assert results[0].manifest.files == results[1].manifest.files
    assert results[0].manifest.version == results[1].manifest.version


def test_a_finished_build_is_not_repeated(build: Build, embedder: Embedder) -> None:
    first = build(made_up(30))
    counting = Counting(embedder)
    again = build(made_up(30), by=counting)
    assert again.already and again.folder == first.folder
    assert counting.texts == 0


def test_building_an_earlier_corpus_again_only_points_back_to_it(build: Build) -> None:
    first, second = build(made_up(30)), build(made_up(31))
    assert current_version(first.folder.parent) == second.folder.name
    assert build(made_up(30)).already
    assert current_version(first.folder.parent) == first.folder.name


def test_only_changed_passages_are_embedded_again(build: Build, embedder: Embedder) -> None:
    rows = made_up(60)
    first = build(rows)
    changed = [rows[59], *rows[1:30], {"_id": "new", "title": "n", "text": "a new short text"}, *rows[30:59]]
    counting = Counting(embedder)
    second = build(changed, by=counting)
    assert counting.texts == 1
    assert second.manifest.reused == second.manifest.passages - 1
    assert first.manifest.version != second.manifest.version
    store = PassageStore(second.folder)
    expected = embedder.encode(store.passage_texts(range(len(store))), "document")
    np.testing.assert_array_equal(np.load(second.folder / VECTORS), expected)


def test_rejected_lines_and_duplicates_are_counted_named_and_listed(tmp_path: Path, embedder: Embedder) -> None:
    rows = made_up(5)
    text = "".join(json.dumps(row) + "\n" for row in [*rows, rows[0], rows[1] | {"text": "another text"}])
    (tmp_path / "c.jsonl").write_text(text + "{broken\n")
    said: list[str] = []
    request = BuildRequest(str(tmp_path / "c.jsonl"), "c", tmp_path / "index")
    result = build_index(request, embedder, said.append)
    assert (result.manifest.documents, result.manifest.duplicates, result.rejected) == (5, 1, 2)
    assert "c.jsonl:7: the id 'd1' was used before with another text" in said[0]
    assert "c.jsonl:8: not JSON" in said[1]
    listed = (tmp_path / "index" / "c" / "rejected.jsonl").read_text().splitlines()
    assert [json.loads(line)["where"].rpartition(":")[2] for line in listed] == ["7", "8"]


def test_a_corpus_without_a_usable_document_is_refused(tmp_path: Path, embedder: Embedder) -> None:
    (tmp_path / "c.jsonl").write_text("{broken\n")
    with pytest.raises(MalformedInput, match=r"no usable document \(1 left out; the first: .*:1: not JSON"):
        build_index(BuildRequest(str(tmp_path / "c.jsonl"), "c", tmp_path), embedder, print)


@pytest.mark.parametrize(("collection", "window", "stride"), [("Not a name", 160, 80), ("c", 10, 20), ("c", 10, 0)])
def test_names_and_windows_that_cannot_work_are_refused(
    tmp_path: Path, embedder: Embedder, collection: str, window: int, stride: int
) -> None:
    with pytest.raises(ConfigError):
        build_index(BuildRequest("c.jsonl", collection, tmp_path, None, window, stride), embedder, print)


SLOW_BUILD = """
import sys, time
from pathlib import Path
from qrelay.models.embedder import load_embedder
from qrelay.index.build import BuildRequest, build_index
class Slow:
    def __init__(self, inner):
        self.inner, self.name, self.fingerprint, self.dim = inner, inner.name, inner.fingerprint, inner.dim
        self.windows, self.unknown = inner.windows, inner.unknown
    def encode(self, texts, kind):
        time.sleep(0.3)
        return self.inner.encode(texts, kind)
request = BuildRequest(sys.argv[1], "c", Path(sys.argv[2]))
build_index(request, Slow(load_embedder("hash")), print)
"""


def test_a_build_killed_while_embedding_goes_on_where_it_was(tmp_path: Path, embedder: Embedder) -> None:
    source = write_jsonl(tmp_path / "c.jsonl", made_up(5 * SHARD_PASSAGES, words=8))
    process = subprocess.Popen([sys.executable, "-c", SLOW_BUILD, str(source), str(tmp_path / "killed")], cwd=ROOT)
    while not _rows_done(tmp_path / "killed" / "c") and process.poll() is None:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    done = _rows_done(tmp_path / "killed" / "c")
    assert 0 < done < 5 * SHARD_PASSAGES
    assert current_version(tmp_path / "killed" / "c") is None
    counting = Counting(embedder)
    resumed = build_index(BuildRequest(str(source), "c", tmp_path / "killed"), counting, print)
    whole = build_index(BuildRequest(str(source), "c", tmp_path / "whole"), embedder, print)
    assert counting.texts == 5 * SHARD_PASSAGES - done
    assert resumed.resumed == done
    assert resumed.manifest.files == whole.manifest.files


def _rows_done(home: Path) -> int:
    for path in home.glob(".build-*/.scaffold/vectors.done"):
        return int(path.read_text() or 0)
    return 0


def test_a_build_killed_after_sealing_is_only_published(build: Build, embedder: Embedder) -> None:
    result = build(made_up(30))
    home = result.folder.parent
    result.folder.rename(home / f".build-{result.folder.name}")
    (home / "CURRENT").unlink()
    counting = Counting(embedder)
    again = build(made_up(30), by=counting)
    assert counting.texts == 0
    assert checked_manifest(again.folder, "full") == result.manifest
    assert current_version(home) == result.folder.name


def test_vectors_of_an_abandoned_build_are_reused(tmp_path: Path, embedder: Embedder) -> None:
    rows = made_up(3 * SHARD_PASSAGES, words=8)

    class Dying(Counting):
        def encode(self, texts: Sequence[str], kind: TextKind) -> np.ndarray:
            if self.texts >= 2 * SHARD_PASSAGES:
                raise KeyboardInterrupt
            return super().encode(texts, kind)

    request = BuildRequest(str(write_jsonl(tmp_path / "c.jsonl", rows)), "c", tmp_path / "index")
    with pytest.raises(KeyboardInterrupt):
        build_index(request, Dying(embedder), print)
    write_jsonl(tmp_path / "c.jsonl", [*rows[5:], {"_id": "new", "text": "one more"}])
    counting = Counting(embedder)
    result = build_index(request, counting, print)
    assert counting.texts == SHARD_PASSAGES + 1
    assert result.manifest.reused == 2 * SHARD_PASSAGES - 5


def test_a_second_build_of_the_collection_is_refused_while_one_runs(tmp_path: Path, embedder: Embedder) -> None:
    from filelock import FileLock

    source = write_jsonl(tmp_path / "c.jsonl", made_up(3))
    (tmp_path / "index" / "c").mkdir(parents=True)
    with FileLock(tmp_path / "index" / "c" / ".lock"):
        with pytest.raises(CorpusIndexError, match="another build"):
            build_index(BuildRequest(str(source), "c", tmp_path / "index"), embedder, print)


@pytest.mark.parametrize(
    ("damage", "verify", "said"),
    [
        ("truncate", "size", "bytes instead of"),
        ("flip", "full", "is corrupt"),
        ("remove", "size", "is missing"),
    ],
)
def test_a_damaged_file_is_named_with_its_mend(build: Build, damage: str, verify: str, said: str) -> None:
    folder = build(made_up(30)).folder
    path = folder / VECTORS
    data = path.read_bytes()
    path.unlink()
    if damage != "remove":
        path.write_bytes(data[:-10] if damage == "truncate" else data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(CorpusIndexError, match=rf"(?s){VECTORS} .*{said}|{VECTORS} {said}.*index build"):
        checked_manifest(folder, verify)  # type: ignore[arg-type]


def test_every_file_of_an_index_is_in_its_manifest(build: Build) -> None:
    folder = build(made_up(30)).folder
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files - {"manifest.json"} == {entry.path for entry in read_manifest(folder).files}


@pytest.mark.parametrize("content", ["", "{}", '{"format": 99}', '{"format": 1}', "[]"])
def test_a_manifest_that_cannot_be_used_says_what_to_do(build: Build, content: str) -> None:
    folder = build(made_up(3)).folder
    (folder / "manifest.json").write_text(content)
    with pytest.raises(CorpusIndexError, match=r"manifest\.json .*(build the index again|index build)"):
        read_manifest(folder)


def test_remains_without_a_manifest_are_built_anew(build: Build) -> None:
    result = build(made_up(3))
    (result.folder / "manifest.json").unlink()
    assert not build(made_up(3)).already
    assert checked_manifest(result.folder, "full").passages == result.manifest.passages
    shutil.rmtree(result.folder)


PEAK = """
import sys, threading, time
from pathlib import Path
from qrelay.models.embedder import load_embedder
from qrelay.index.build import BuildRequest, build_index
def anonymous_kib():
    for line in open("/proc/self/status"):
        if line.startswith("RssAnon"):
            return int(line.split()[1])
peak = 0
def watch():
    global peak
    while True:
        peak = max(peak, anonymous_kib())
        time.sleep(0.01)
threading.Thread(target=watch, daemon=True).start()
build_index(BuildRequest(sys.argv[1], "c", Path(sys.argv[2])), load_embedder("hash"), print)
print(peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads RssAnon from /proc (Linux)")
def test_memory_is_bounded_by_the_batch_not_the_corpus(tmp_path: Path) -> None:
    """Anonymous memory, that is: pages of mapped files are the system's to take back."""
    peaks, sizes = [], []
    for count in (6_000, 24_000):
        source = write_jsonl(tmp_path / f"{count}.jsonl", made_up(count, words=100))
        code = [sys.executable, "-c", PEAK, str(source), str(tmp_path / str(count))]
        ran = subprocess.run(code, capture_output=True, text=True, check=True, cwd=ROOT)
        peaks.append(int(ran.stdout.split()[-1]) * 1024)
        sizes.append(source.stat().st_size)
    assert sizes[1] - sizes[0] > 13_000_000
    assert peaks[1] - peaks[0] < (sizes[1] - sizes[0]) / 2, (peaks, sizes)

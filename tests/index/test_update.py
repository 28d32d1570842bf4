"""Updates: what they change, what they leave, and what a kill leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from qrelay.cli.index.group import index
from qrelay.errors import CorpusIndexError, InputError, MalformedInput
from qrelay.index.build import BuildResult
from qrelay.index.embedded import EmbeddedEngine
from qrelay.index.manifest import current_folder, current_version, read_manifest
from qrelay.index.ranking import Depths
from qrelay.index.update import UpdateRequest, UpdateResult, update_index
from qrelay.models.embedder import load_embedder
from tests.index.documents import Rows, made_up, write_jsonl
from tests.index.test_build import Counting

Build = Callable[..., BuildResult]
ROOT = Path(__file__).parents[2]
QUESTIONS = [f"word{number} word{number * 7 % 300}" for number in range(30)]


def answers(folder: Path) -> list[list[tuple[object, ...]]]:
    """Whatever a caller sees of each question's candidates."""
    vectors = load_embedder("hash").encode(QUESTIONS, "query")
    found = EmbeddedEngine(folder, Depths(60, 30)).search(QUESTIONS, vectors, 100)
    return [[(c.passage, c.scores) for c in each] for each in found if not isinstance(each, Exception)]


def update(home: Path, rows: Rows = (), removed: tuple[str, ...] = (), by: object = None) -> UpdateResult:
    source = str(write_jsonl(home.parent.parent / "changes.jsonl", rows)) if rows else ""
    request = UpdateRequest(home.name, home.parent, source, frozenset(removed))
    return update_index(request, by or load_embedder("hash"), print)  # type: ignore[arg-type]


def rewritten(row: dict[str, str]) -> dict[str, str]:
    return row | {"text": row["text"] + " word299 word298"}


def test_an_updated_index_answers_as_one_built_from_the_whole_corpus(build: Build) -> None:
    rows, new = made_up(80), made_up(100)[80:]
    changed = [rewritten(row) for row in rows[10:20]]
    home = build(rows).folder.parent
    result = update(home, [*new, *changed, rows[30]], ("d3", "d79", "nobody"))
    assert (result.added, result.changed, result.removed, result.same, result.unknown) == (20, 10, 2, 1, 1)
    final = {row["_id"]: row for row in [*rows, *new, *changed]}
    whole = build([row for name, row in final.items() if name not in ("d3", "d79")], "whole")
    assert answers(current_folder(home)) == answers(whole.folder)


def test_only_what_changed_is_embedded(build: Build) -> None:
    rows = made_up(60)
    home = build(rows).folder.parent
    counting = Counting(load_embedder("hash"))
    result = update(home, [rewritten(rows[0]), {"_id": "new", "title": "", "text": "word1 word2"}], by=counting)
    assert result.built is not None
    assert 0 < counting.texts == result.built.manifest.passages - result.built.manifest.reused < 10


def test_what_is_added_is_counted_and_warned_of(build: Build) -> None:
    class OfLatin(Counting):
        """Knows no token of another script."""

        def unknown(self, texts: Sequence[str]) -> tuple[int, int]:
            words = [word for text in texts for word in text.split()]
            return len(words), sum(not word.isascii() for word in words)

    embedder = OfLatin(load_embedder("hash"))
    before = build(made_up(20), by=embedder)
    new = [{"_id": f"n{number}", "text": "дом " * 40} for number in range(20)]
    result = update(before.folder.parent, new, by=embedder)
    assert result.built is not None
    added = result.built.manifest.tokens or 0, result.built.manifest.unknown_tokens
    assert added == ((before.manifest.tokens or 0) + 20 * 40, 20 * 40)
    assert any("are unknown to" in remark for remark in result.built.remarks())


def test_what_changes_nothing_makes_no_version(build: Build) -> None:
    rows = made_up(30)
    folder = build(rows).folder
    result = update(folder.parent, rows[:5], ("nobody",))
    assert result.built is None and (result.same, result.unknown) == (5, 1)
    assert current_version(folder.parent) == folder.name


def test_of_two_changes_of_one_document_the_later_counts(build: Build) -> None:
    home = build(made_up(10)).folder.parent
    update(home, [{"_id": "d1", "text": "word5 first"}, {"_id": "d1", "text": "word5 second"}])
    texts = {c[0].text for each in answers(current_folder(home)) for c in each if c[0].doc_id == "d1"}  # type: ignore[attr-defined]
    assert texts == {"word5 second"}


@pytest.mark.parametrize("point", ["after withdrawing", "while embedding"])
def test_a_removed_document_is_in_no_answer_though_the_update_is_killed(
    build: Build, tmp_path: Path, point: str
) -> None:
    rows = made_up(300)
    home = build(rows).folder.parent
    changes = write_jsonl(tmp_path / "changes.jsonl", [rewritten(row) for row in rows[100:200]])
    code = f"""
import os, signal, sys
from pathlib import Path
import qrelay.index.update as update, qrelay.index.vectors as vectors
from qrelay.models.embedder import load_embedder
def die(*args, **kwargs): os.kill(os.getpid(), signal.SIGKILL)
if {point!r} == "after withdrawing": update.assemble = die
else: vectors.write_atomic = die
update.update_index(update.UpdateRequest("tiny", Path({str(home.parent)!r}), {str(changes)!r},
                    frozenset({{"d5", "d6"}})), load_embedder("hash"), print)
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert ended.returncode == -signal.SIGKILL
    found = {c[0].doc_id for each in answers(current_folder(home)) for c in each}  # type: ignore[attr-defined]
    assert found and not {"d5", "d6"} & found
    result = update(home, [rewritten(row) for row in rows[100:200]], ("d5", "d6"))
    assert (result.changed, result.removed, result.unknown) == (100, 0, 0)
    assert read_manifest(current_folder(home)).removed == 0
    whole = build([rewritten(r) if 100 <= n < 200 else r for n, r in enumerate(rows) if n not in (5, 6)], "whole")
    assert answers(current_folder(home)) == answers(whole.folder)


def test_an_index_of_another_embedder_is_not_updated(build: Build) -> None:
    home = build(made_up(5)).folder.parent
    other = Counting(load_embedder("hash"))
    other.fingerprint = "other@1"
    with pytest.raises(CorpusIndexError, match=r"hash@1.*other@1.*--embedder"):
        update(home, made_up(6)[5:], by=other)


def test_removing_everything_is_refused_and_changes_nothing(build: Build) -> None:
    folder = build(made_up(3)).folder
    with pytest.raises(MalformedInput, match="no document"):
        update(folder.parent, (), ("d0", "d1", "d2"))
    assert current_version(folder.parent) == folder.name


def test_the_command_says_what_it_did(build: Build, tmp_path: Path) -> None:
    home = build(made_up(20)).folder.parent
    gone = tmp_path / "gone.txt"
    gone.write_text("d1\nd2\nnobody\n", "utf8")
    arguments = ["update", "--collection", "tiny", "--out", str(home.parent), "--embedder", "hash"]
    ran = CliRunner().invoke(index, [*arguments, "--remove", str(gone), "--json"])
    assert ran.exit_code == 3, ran.output
    said = json.loads(ran.stdout)
    assert (said["removed"], said["unknown"], said["version"]) == (2, 1, current_version(home))
    ran = CliRunner().invoke(index, arguments)
    assert isinstance(ran.exception, InputError) and "--remove" in str(ran.exception)
    ran = CliRunner().invoke(index, ["info", "tiny", "--out", str(home.parent), "--json"])
    assert json.loads(ran.stdout)["documents"] == 18


def test_a_growing_file_is_followed(tmp_path: Path) -> None:
    """Real processes and a real file: appended to, then rotated; then killed, and started again."""
    path, out = tmp_path / "grows.jsonl", tmp_path / "index"
    rows = made_up(60)
    write_jsonl(path, rows[:20])
    command = [sys.executable, "-m", "qrelay.cli.main", "index", "build", str(path), "--collection", "tiny"]
    command += ["--out", str(out), "--embedder", "hash", "--follow", "--json", "--data-dir", str(tmp_path)]

    def versions(process: subprocess.Popen[str], documents: int) -> None:
        assert process.stdout is not None
        while json.loads(process.stdout.readline())["documents"] != documents:
            pass

    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
        versions(process, 20)
        with path.open("a", encoding="utf8") as file:
            file.write("".join(json.dumps(row) + "\n" for row in rows[20:40]) + "no document\n")
        versions(process, 40)
        process.kill()
    path.rename(path.with_suffix(".jsonl.1"))
    write_jsonl(path, [rewritten(rows[0]), *rows[40:]])
    with subprocess.Popen(command, cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True) as process:
        versions(process, 60)
        process.terminate()
    assert read_manifest(current_folder(out / "tiny")).source == str(path)

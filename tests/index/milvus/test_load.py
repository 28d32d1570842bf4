"""Bulk loads into Milvus: whole, resumed after kills, switched in one step, older versions dropped."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import BackendUnavailable, ConfigError, CorpusIndexError, OnHold
from qrelay.index.build import BuildResult
from qrelay.index.manifest import read_manifest
from qrelay.index.milvus.client import Absent, Milvus
from qrelay.index.milvus.engine import MilvusEngine
from qrelay.index.milvus.layout import alias_of, collection_of, name_of
from qrelay.index.milvus.load import load_current
from qrelay.index.milvus.settings import MilvusSettings
from qrelay.index.milvus.versions import MilvusVersions, current, of_collection, rows_in
from qrelay.index.reembed import reembed
from qrelay.index.settings import RetrieverSettings
from qrelay.index.store import PassageStore
from qrelay.index.update import _withdraw
from qrelay.models.embedder import load_embedder
from qrelay.progress import Progress, listening
from qrelay.runtime import faults
from tests.index.documents import made_up
from tests.index.milvus.lite import lite_server
from tests.services.retriever.versions import Times

Build = Callable[..., BuildResult]
ROOT = Path(__file__).parents[3]
TEXT = "word1 word2 word3"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusSettings]:
    with lite_server(tmp_path_factory.mktemp("milvus")) as settings:
        yield settings


@pytest.fixture
def milvus(server: MilvusSettings) -> Iterator[Milvus]:
    opened = Milvus(server)
    yield opened
    opened.close()


@pytest.fixture
def home(build: Build, request: pytest.FixtureRequest) -> Path:
    """Of a collection of 200 short documents, which is in Milvus under a name of this test's own."""
    return build(made_up(200, words=8), named(request)).folder.parent


def named(request: pytest.FixtureRequest) -> str:
    return f"c{abs(hash(request.node.name)) % 10**9}"


def engine(server: MilvusSettings, home: Path) -> MilvusEngine:
    return MilvusVersions(RetrieverSettings(milvus=server, engine="milvus")).open(home.name)


def found(engine: MilvusEngine) -> set[str]:
    (answer,) = engine.search([TEXT], load_embedder("hash").encode([TEXT], "query"), 1000)
    assert isinstance(answer, tuple)
    return {each.passage.passage_id for each in answer}


def in_milvus(milvus: Milvus, name: str) -> list[tuple[str, str]]:
    """(passage, text) of every row, sorted."""
    fields = ["doc_id", "number", "text"]
    rows = milvus.ask("query", name, filter="row >= 0", output_fields=fields, limit=10_000)
    return sorted((f"{row['doc_id']}#{row['number']}", row["text"]) for row in rows)


def on_disk(folder: Path) -> list[tuple[str, str]]:
    store = PassageStore(folder)
    return sorted((each.passage_id, each.text) for each in store.passages(np.arange(len(store))))


def test_every_passage_is_there_once_and_the_alias_names_the_version(
    server: MilvusSettings, milvus: Milvus, home: Path
) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        loaded = load_current(home, server)
    assert not loaded.already and loaded.resumed == 0
    assert current(milvus, home.name) == loaded.name
    assert in_milvus(milvus, loaded.name) == on_disk(home / loaded.manifest.version)
    rows = [(each.done, each.total) for each in heard if each.name == f"loading {home.name} into Milvus"]
    assert rows[0] == (0, 200) and (128, 200) in rows and rows[-1] == (200, 200)
    assert load_current(home, server).already
    assert not list(home.glob(".milvus-*"))


def test_a_retriever_learns_all_of_a_version_from_milvus(server: MilvusSettings, home: Path) -> None:
    load_current(home, server)
    facts = read_manifest(next(path for path in home.iterdir() if path.is_dir()))
    opened = engine(server, home)
    assert (opened.version, opened.embedder) == (facts.version, facts.embedder)
    assert opened.describe()["passages"] == "200"


def test_of_three_versions_the_last_two_stay(
    build: Build, server: MilvusSettings, milvus: Milvus, request: pytest.FixtureRequest
) -> None:
    names = []
    for count in (10, 11, 12):
        home = build(made_up(count), named(request)).folder.parent
        loaded = load_current(home, server)
        names.append(loaded.name)
    assert loaded.dropped == (names[0],)
    assert {each.name for each in of_collection(milvus, home.name)} == {*names[1:]}
    assert current(milvus, home.name) == names[2]


def test_an_engine_that_is_open_answers_from_its_version_until_that_is_dropped(
    build: Build, server: MilvusSettings, request: pytest.FixtureRequest
) -> None:
    home = build(made_up(10), named(request)).folder.parent
    load_current(home, server)
    opened = engine(server, home)
    before = found(opened)
    build(made_up(20), home.name)
    load_current(home, server)
    assert found(opened) == before != found(engine(server, home))
    build(made_up(30), home.name)
    load_current(home, server)
    with pytest.raises(OnHold, match="was dropped, another is taken up soon"):
        found(opened)


def test_passages_that_were_removed_are_not_loaded(
    build: Build, server: MilvusSettings, milvus: Milvus, request: pytest.FixtureRequest
) -> None:
    folder = build(made_up(30, words=8), named(request)).folder
    _withdraw(folder.parent, folder, read_manifest(folder), [3, 4])  # what an update does before it embeds
    loaded = load_current(folder.parent, server)
    there = [passage for passage, _ in in_milvus(milvus, loaded.name)]
    assert there == sorted(f"d{number}#0" for number in range(30) if number not in (3, 4))


def test_re_embedding_makes_another_version_and_going_back_loads_nothing(
    server: MilvusSettings, milvus: Milvus, home: Path
) -> None:
    first = load_current(home, server).name
    reembed(home, Times(2))
    second = load_current(home, server)
    assert second.name != first and engine(server, home).embedder == "times2@1"
    versions = MilvusVersions(RetrieverSettings(milvus=server, engine="milvus", collections=(home.name,)))
    assert versions.catch_up(lambda name: "hash@1", lambda *_: True) == ({}, [])
    assert current(milvus, home.name) == first
    behind, problems = versions.catch_up(lambda name: "times3@1", lambda *_: True)
    assert list(behind) == [home.name] and not problems
    assert versions.catch_up(lambda name: "times3@1", lambda *_: False) == ({}, [])


@pytest.mark.parametrize("point", faults.MILVUS_POINTS)
def test_a_load_killed_anywhere_leaves_a_whole_version_and_the_next_one_ends_it(
    build: Build, server: MilvusSettings, milvus: Milvus, tmp_path: Path, request: pytest.FixtureRequest, point: str
) -> None:
    home = build(made_up(60), named(request)).folder.parent
    former = load_current(home, server).name
    before = found(engine(server, home))
    folder = build(made_up(300, words=8, seed=1), home.name).folder
    wanted = name_of(read_manifest(folder), server)

    assert killed_load(home, server, tmp_path, point) == -signal.SIGKILL
    served = current(milvus, home.name)
    assert served == (wanted if point == "index.milvus.switched" else former)
    assert (found(engine(server, home)) == before) == (served == former)
    assert rows_in(milvus, served) == (300 if served == wanted else 120)

    loaded = load_current(home, server)
    assert current(milvus, home.name) == loaded.name == wanted
    assert loaded.already == (point == "index.milvus.switched")
    assert in_milvus(milvus, wanted) == on_disk(folder)
    resumed = {"index.milvus.batch": 128, "index.milvus.written": 300, "index.milvus.switch": 300}
    assert loaded.resumed == resumed.get(point, 0)


def killed_load(home: Path, server: MilvusSettings, tmp_path: Path, point: str) -> int:
    """The exit status of `qrelay index load` that dies at the point."""
    (points := tmp_path / "points").mkdir()
    (points / point).write_text("1")
    environ = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path]),
        faults.VARIABLE: str(points),
        "QRELAY_RETRIEVER__MILVUS": server.model_dump_json(exclude_unset=True),
    }
    command = [sys.executable, "-m", "qrelay.cli.main", "index", "load", home.name, "--out", str(home.parent)]
    return subprocess.run(command, env=environ, cwd=tmp_path, stderr=subprocess.DEVNULL).returncode


def test_a_load_whose_rows_were_lost_is_not_switched_to_and_begins_anew(
    build: Build, server: MilvusSettings, milvus: Milvus, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    home = build(made_up(300, words=8), named(request)).folder.parent
    assert killed_load(home, server, tmp_path, "index.milvus.written") == -signal.SIGKILL
    (loading,) = of_collection(milvus, home.name)
    milvus.ask("delete", loading.name, filter="row in [1, 2, 3]")
    with pytest.raises(CorpusIndexError, match="holds 297 of the 300 passages"):
        load_current(home, server)
    with pytest.raises(Absent):
        current(milvus, home.name)
    assert load_current(home, server).resumed == 0
    assert rows_in(milvus, current(milvus, home.name)) == 300


def test_one_process_at_a_time_loads_a_collection(server: MilvusSettings, home: Path) -> None:
    from filelock import FileLock

    with FileLock(home / ".milvus.lock"), pytest.raises(CorpusIndexError, match="another process loads"):
        load_current(home, server)


def test_names_of_collections_never_meet() -> None:
    names = ["a", "a-b", "a_b", "a--b", "a_-b", "a-_b", "a_d", "a-d", "a__d", "a_v0"]
    assert len({alias_of(name) for name in names}) == len(names)
    assert [collection_of(alias_of(name)) for name in names] == names
    assert collection_of("qrelay_a_v0123456789abcdef_01234567") is None and collection_of("others") is None


def test_another_kind_of_index_is_another_collection(server: MilvusSettings, home: Path) -> None:
    facts = read_manifest(next(path for path in home.iterdir() if path.is_dir()))
    settings = [server, server.model_copy(update={"index": "HNSW"}), server.model_copy(update={"shards": 2})]
    assert len({name_of(facts, each) for each in settings}) == 3


def test_a_server_that_does_not_answer_or_is_none_is_named() -> None:
    with pytest.raises(BackendUnavailable, match=r"http://127\.0\.0\.1:1"):
        Milvus(MilvusSettings(uri="http://127.0.0.1:1", timeout_s=0.2))
    with pytest.raises(ConfigError, match="uri is empty"):
        Milvus(MilvusSettings())


def test_milvus_lites_files_are_for_one_process_and_the_message_says_so(tmp_path: Path) -> None:
    with lite_server(tmp_path / "own.db"), pytest.raises(ConfigError, match="milvus-lite server"):
        Milvus(MilvusSettings(uri=str(tmp_path / "own.db")))

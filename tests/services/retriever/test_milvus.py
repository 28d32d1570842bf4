"""The retriever over Milvus: the embedded engine's candidates, swaps while it answers, promoted models, outages."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from qrelay.errors import BackendUnavailable, ConfigError, OnHold
from qrelay.index.build import BuildResult
from qrelay.index.builder import variables_of
from qrelay.index.milvus.load import load_current
from qrelay.index.milvus.settings import MilvusSettings
from qrelay.index.reembed import reembed
from qrelay.index.settings import RetrieverSettings
from qrelay.models.registry import BI_ENCODER, Registry
from qrelay.models.served import load_version
from qrelay.services.retriever.retriever import Retriever, check_retriever, load_retriever
from qrelay.settings import load_settings
from qrelay.types import BM25, DENSE, CandidateSet, Query
from tests.index.documents import made_up
from tests.index.milvus.lite import lite_server
from tests.services.retriever.versions import load, promoted

Answer = TypeVar("Answer")
Build = Callable[..., BuildResult]
ASKED = [Query(f"q{number}", f"word{number} word{number + 9} title{number % 7}", "tiny") for number in range(8)]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[MilvusSettings]:
    with lite_server(tmp_path / "milvus") as settings:
        yield settings


@pytest.fixture
def settings(server: MilvusSettings, tmp_path: Path) -> RetrieverSettings:
    """Of a retriever without an index folder: it learns everything from Milvus."""
    return RetrieverSettings(
        engine="milvus", milvus=server, embedder="hash", reload_every_s=0, index_dir=tmp_path / "elsewhere",
        registry=tmp_path / "registry",
    )  # fmt: skip


def answers(retriever: Retriever) -> list[CandidateSet]:
    found = retriever.retrieve(ASKED, 1000)
    assert all(isinstance(each, CandidateSet) for each in found), found
    return [each for each in found if isinstance(each, CandidateSet)]


def near(found: CandidateSet) -> dict[str, tuple[int, float | None]]:
    """Of each passage that vectors propose its rank and score."""
    scores = ((each.passage.passage_id, each.score(DENSE)) for each in found.candidates)
    return {name: (score.rank, score.score) for name, score in scores if score and score.rank}


def terms(found: CandidateSet) -> list[tuple[str, float | None]]:
    scores = ((each.passage.passage_id, each.score(BM25)) for each in found.candidates)
    return sorted((name, score.score) for name, score in scores if score)


def test_the_same_queries_have_the_embedded_engines_candidates_and_scores(
    build: Build, settings: RetrieverSettings
) -> None:
    home = build(made_up(120)).folder.parent
    load_current(home, settings.milvus)
    embedded = settings.model_copy(update={"engine": "embedded", "index_dir": home.parent})
    for ours, theirs in zip(answers(load_retriever(settings)), answers(load_retriever(embedded)), strict=True):
        assert near(ours) == near(theirs)
        assert ours.index_version == theirs.index_version
        for (name, score), (other, expected) in zip(terms(ours), terms(theirs), strict=True):
            assert name == other and score == pytest.approx(expected, abs=2e-5)


def test_a_new_version_is_taken_up_and_no_query_is_lost_meanwhile(build: Build, settings: RetrieverSettings) -> None:
    home = build(made_up(60)).folder.parent
    first = load_current(home, settings.milvus).manifest.version
    retriever = load_retriever(settings)
    assert {each.index_version for each in answers(retriever)} == {first}
    build(made_up(80))
    with ThreadPoolExecutor(1) as beside:
        loading = beside.submit(load_current, home, settings.milvus)
        seen = []
        while not loading.done():
            seen += [each.index_version for each in answers(retriever)]
        second = loading.result().manifest.version
    assert {*seen} <= {first, second} and seen == sorted(seen, key=[first, second].index)
    assert {each.index_version for each in answers(retriever)} == {second}
    assert retriever.info().details["collection.tiny.version"] == second
    assert retriever.info().details["engine"] == "milvus"


def test_a_retriever_starts_without_any_collection_and_serves_the_first(
    build: Build, settings: RetrieverSettings
) -> None:
    retriever = load_retriever(settings)
    assert retriever.info().details["note"].startswith("no index in Milvus yet")
    load_current(build(made_up(20)).folder.parent, settings.milvus)
    assert answers(retriever)


def test_a_promoted_model_serves_once_its_vectors_are_loaded_and_a_rollback_needs_no_load(
    build: Build, settings: RetrieverSettings
) -> None:
    registry = Registry(settings.registry_folder)
    home = build(made_up(60)).folder.parent
    load_current(home, settings.milvus)
    retriever = load_retriever(settings, load)
    before = answers(retriever)
    version = promoted(registry, 3)
    retriever.look()
    assert answers(retriever) == before
    assert retriever.info().details["reembedding.tiny"] == "waits for `qrelay index reembed --model registry`"

    reembed(home, load_version(registry, version, load))
    load_current(home, settings.milvus)
    retriever.look()
    after = answers(retriever)
    assert [near(each) for each in after] == [
        {name: (rank, pytest.approx(9 * (score or 0), abs=1e-4)) for name, (rank, score) in near(each).items()}
        for each in before
    ]
    assert "reembedding.tiny" not in retriever.info().details

    registry.rollback(BI_ENCODER)
    retriever.look()
    assert [near(each) for each in answers(retriever)] == [near(each) for each in before]


def test_the_process_that_re_embeds_beside_a_retriever_loads_into_the_same_milvus(
    settings: RetrieverSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = settings.milvus.model_copy(update={"token_env": "TOKEN", "shards": 3, "index_params": {"M": 8}})
    for name, value in variables_of(settings.model_copy(update={"milvus": own})).items():
        monkeypatch.setenv(name, value)
    there = load_settings(RetrieverSettings, "retriever", data_dir=tmp_path)
    assert (there.engine, there.milvus) == ("milvus", own)
    assert variables_of(settings.model_copy(update={"engine": "embedded"})) == {}


def test_credentials_that_are_absent_end_the_start_before_a_model_is_loaded(settings: RetrieverSettings) -> None:
    own = settings.milvus.model_copy(update={"token_env": "NOBODY_SET_THIS"})
    with pytest.raises(ConfigError, match="token_env names NOBODY_SET_THIS"):
        check_retriever(settings.model_copy(update={"milvus": own}))


def test_a_server_that_dies_holds_its_queries_and_loses_none(
    build: Build, settings: RetrieverSettings, tmp_path: Path
) -> None:
    port = free_port()
    own = settings.milvus.model_copy(update={"uri": f"http://127.0.0.1:{port}", "timeout_s": 2})
    settings = settings.model_copy(update={"milvus": own})
    home = build(made_up(60)).folder.parent
    process = server_process(tmp_path / "own", port)
    try:
        patiently(lambda: load_current(home, own))
        retriever = load_retriever(settings)
        before = answers(retriever)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert all(isinstance(each, OnHold) for each in retriever.retrieve(ASKED))
        assert retriever.info().details["collection.tiny.passages"], "what was served is kept"

        process = server_process(tmp_path / "own", port)
        assert patiently(lambda: answers(retriever)) == before
    finally:
        process.kill()
        process.wait()


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def server_process(folder: Path, port: int) -> subprocess.Popen[bytes]:
    code = f"from milvus_lite.adapter.grpc.server import run_server; run_server({str(folder)!r}, '127.0.0.1', {port})"
    begin = f"import sys; sys.path[:0] = {sys.path!r}; "
    return subprocess.Popen(
        [sys.executable, "-c", begin + code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def patiently(ask: Callable[[], Answer]) -> Answer:
    """Its answer, which may fail while a server starts."""
    for _ in range(200):
        try:
            return ask()
        except (BackendUnavailable, AssertionError):
            time.sleep(0.2)
    return ask()

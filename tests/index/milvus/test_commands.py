"""What commands load into Milvus, and what they say of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from qrelay.cli.index.group import index
from qrelay.errors import ConfigError, CorpusIndexError
from qrelay.index.milvus.client import Milvus
from qrelay.index.milvus.settings import MilvusSettings
from qrelay.index.milvus.versions import current
from tests.index.documents import made_up, write_jsonl
from tests.index.milvus.lite import lite_server


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusSettings]:
    with lite_server(tmp_path_factory.mktemp("milvus")) as settings:
        yield settings


@pytest.fixture
def serving(server: MilvusSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MilvusSettings:
    """Commands here are of an installation whose retriever searches in Milvus."""
    monkeypatch.setenv("QRELAY_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("QRELAY_RETRIEVER__ENGINE", "milvus")
    monkeypatch.setenv("QRELAY_RETRIEVER__MILVUS", server.model_dump_json(exclude_unset=True))
    return server


def run(*words: object) -> Result:
    return CliRunner().invoke(index, [str(word) for word in words], catch_exceptions=False)


def told(*words: object) -> Any:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_build_update_and_reembed_load_what_they_make(serving: MilvusSettings, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "corpus.jsonl", made_up(20))
    news = write_jsonl(tmp_path / "news.jsonl", [{"_id": "new", "title": "", "text": "word1 word2"}])
    made = [
        told("build", source, "--collection", "built", "--embedder", "hash"),
        told("update", news, "--collection", "built", "--embedder", "hash"),
    ]
    (reembedded,) = told("reembed", "--model", "hash", "--collection", "built")["collections"]
    assert [each["milvus"]["version"] for each in made] == [each["version"] for each in made]
    assert not any(each["milvus"]["already"] for each in made)
    assert made[0]["ann"] is None, "Milvus has an index of its own"
    assert reembedded["milvus"]["already"] and reembedded["milvus"]["version"] == made[1]["version"]
    milvus = Milvus(serving)
    assert current(milvus, "built") == made[1]["milvus"]["milvus_collection"]
    milvus.close()


def test_load_takes_the_collections_that_are_named_or_all(
    server: MilvusSettings, serving: MilvusSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("QRELAY_RETRIEVER__ENGINE")
    source = write_jsonl(tmp_path / "corpus.jsonl", made_up(5))
    for name in ("one", "two"):
        assert "milvus" not in told("build", source, "--collection", name, "--embedder", "hash")
    (loaded,) = told("load", "two")["collections"]
    assert loaded == {
        "collection": "two", "version": loaded["version"], "milvus_collection": loaded["milvus_collection"],
        "passages": loaded["passages"], "already": False, "resumed_passages": 0, "dropped": [],
    }  # fmt: skip
    lines = run("load").output.splitlines()
    assert "loaded" in lines[-2] and "passages of one version" in lines[-2]
    assert lines[-1].startswith("Milvus serves two version")


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRELAY_DATA_DIR", str(tmp_path))
    with pytest.raises(CorpusIndexError, match="has no index of any collection"):
        run("load")
    run("build", write_jsonl(tmp_path / "c.jsonl", made_up(3)), "--collection", "docs", "--embedder", "hash")
    with pytest.raises(CorpusIndexError, match=r"has no index of dogs.*docs"):
        run("load", "dogs")
    with pytest.raises(ConfigError, match=r"retriever\.milvus\.uri is empty"):
        run("load")
    monkeypatch.setenv("QRELAY_RETRIEVER__ENGINE", "milvus")
    with pytest.raises(ConfigError, match=r"engine milvus needs milvus\.uri"):
        run("load")

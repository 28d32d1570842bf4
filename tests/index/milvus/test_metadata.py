"""Metadata in Milvus: what it holds comes back, and versions without any are asked for none."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from qrelay.index.build import BuildResult
from qrelay.index.milvus.load import load_current
from qrelay.index.milvus.settings import MilvusSettings
from qrelay.index.milvus.versions import MilvusVersions
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import load_embedder
from tests.index.documents import Rows, made_up
from tests.index.milvus.lite import lite_server
from tests.index.test_metadata import held, with_metadata


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusSettings]:
    with lite_server(tmp_path_factory.mktemp("milvus")) as settings:
        yield settings


@pytest.mark.parametrize("rows", [with_metadata(20), made_up(20)], ids=["some", "none"])
def test_passages_have_the_metadata_that_the_index_has(
    server: MilvusSettings, build: Callable[..., BuildResult], rows: Rows, request: pytest.FixtureRequest
) -> None:
    built = build(rows, request.node.callspec.id)
    load_current(built.folder.parent, server)
    engine = MilvusVersions(RetrieverSettings(milvus=server, engine="milvus")).open(built.folder.parent.name)
    (found,) = engine.search(["word1 word2"], load_embedder("hash").encode(["word1 word2"], "query"), 1000)
    assert not isinstance(found, Exception) and len(found) > 20
    kept = held(built.folder)
    assert {each.passage.passage_id: each.passage.metadata for each in found}.items() <= kept.items()

"""What Milvus Lite cannot do, against a server that replays a cluster's answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import (
    BackendTimeout,
    BackendUnavailable,
    ConfigError,
    CorpusIndexError,
    QrelayError,
    RateLimited,
)
from qrelay.index.build import BuildResult
from qrelay.index.manifest import current_folder, read_manifest
from qrelay.index.milvus.client import Milvus, Unloaded
from qrelay.index.milvus.engine import MilvusEngine
from qrelay.index.milvus.layout import Kept
from qrelay.index.milvus.load import load_current
from qrelay.index.milvus.settings import MilvusSettings
from qrelay.index.ranking import Depths
from qrelay.progress import Progress, listening
from qrelay.types import BM25, DENSE, Passage, Score
from tests.index.documents import made_up
from tests.index.milvus.recorded import (
    CLUSTER,
    NO_NODE,
    NOT_LOADED,
    RATE_LIMITED,
    TOO_FEW_NODES,
    cluster,
    counted,
    hit,
    row,
)

Build = Callable[..., BuildResult]


@pytest.fixture
def home(build: Build) -> Path:
    return build(made_up(3, words=8)).folder.parent


def parameters(request: object) -> dict[str, str]:
    return {each.key: each.value for each in request.extra_params}  # type: ignore[attr-defined]


def test_a_version_is_created_with_the_clusters_shards_consistency_replicas_and_index(home: Path) -> None:
    with cluster() as (double, uri):
        settings = MilvusSettings(
            uri=uri, shards=4, replicas=3, consistency="Session", index="HNSW", index_params={"M": 48}
        )
        loaded = load_current(home, settings)
    (created,) = double.asked["CreateCollection"]
    assert (created.shards_num, created.collection_name) == (4, loaded.name)
    assert created.consistency_level == 1  # Session
    assert double.asked["LoadCollection"][0].replica_number == 3
    dense, sparse = map(parameters, double.asked["CreateIndex"])
    assert (dense["index_type"], dense["metric_type"], dense["M"], dense["efConstruction"]) == (
        "HNSW", "IP", "48", "256")  # fmt: skip
    assert (sparse["metric_type"], sparse["bm25_k1"], sparse["bm25_b"]) == ("BM25", "0.9", "0.4")
    assert double.asked["CreateAlias"][0].alias == "qrelay_tiny"


def test_terms_are_split_at_blanks_as_qrelay_made_them(home: Path) -> None:
    from pymilvus.grpc_gen import schema_pb2

    with cluster() as (double, uri):
        load_current(home, MilvusSettings(uri=uri))
    schema = schema_pb2.CollectionSchema.FromString(double.asked["CreateCollection"][0].schema)
    (terms,) = (field for field in schema.fields if field.name == "terms")
    given = {each.key: each.value for each in terms.type_params}
    assert json.loads(given["analyzer_params"]) == {"tokenizer": "whitespace"}
    (function,) = schema.functions
    assert (function.input_field_names, function.output_field_names) == (["terms"], ["bm25"])


def test_rows_go_by_their_numbers_and_the_alias_waits_until_they_are_in_memory(home: Path) -> None:
    heard: list[Progress] = []
    with cluster() as (double, uri), listening(heard.append):
        load_current(home, MilvusSettings(uri=uri, batch_rows=2))
    keys = [
        list(field.scalars.long_data.data)
        for request in double.asked["Upsert"]
        for field in request.fields_data
        if field.field_name == "row"
    ]
    assert sorted(keys) == [[0, 1], [2]]
    assert not double.asked["Insert"], "which would make a row twice when a request comes twice"
    steps = [each.done for each in heard if each.name.startswith("loading") and each.unit == "%"]
    assert {30, 70, 100} <= set(steps)


def test_a_version_of_which_rows_are_missing_is_not_switched_to(home: Path) -> None:
    with cluster({**CLUSTER, "Query": [counted(2)]}) as (double, uri):
        with pytest.raises(CorpusIndexError, match="holds 2 of the 3 passages"):
            load_current(home, MilvusSettings(uri=uri))
    assert not double.asked["CreateAlias"] and not double.asked["AlterAlias"]
    assert len(double.asked["DropCollection"]) == 1


def test_a_token_of_a_variable_or_a_file_is_sent_and_never_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = base64.b64encode(b"me:qzxvjk").decode()
    (tmp_path / "token").write_text("me:qzxvjk\n")
    monkeypatch.setenv("TOKEN", "me:qzxvjk")
    for given in ({"token_env": "TOKEN"}, {"token_file": tmp_path / "token"}):
        with cluster({**CLUSTER, "GetVersion": [{"status": {"code": 5, "reason": "broken"}}]}) as (double, uri):
            settings = MilvusSettings(uri=uri, timeout_s=1, **given)  # type: ignore[arg-type]
            with pytest.raises(QrelayError) as refused:
                Milvus(settings)
        assert double.tokens == {sent}
        assert "qzx" not in f"{refused.value} {settings}"


def test_credentials_that_are_absent_are_named() -> None:
    with pytest.raises(ConfigError, match="token_env names NOBODY_SET_THIS"):
        Milvus(MilvusSettings(uri="http://127.0.0.1:1", token_env="NOBODY_SET_THIS"))
    with pytest.raises(ConfigError, match="token_file /nowhere cannot be read"):
        Milvus(MilvusSettings(uri="http://127.0.0.1:1", token_file="/nowhere"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="holds credentials"):
        MilvusSettings(uri="http://me:secret@milvus:19530")


def test_more_replicas_than_nodes_are_refused_with_the_setting(home: Path) -> None:
    with cluster({**CLUSTER, "LoadCollection": [TOO_FEW_NODES]}) as (_, uri):
        with pytest.raises(ConfigError, match=r"lower retriever\.milvus\.replicas"):
            load_current(home, MilvusSettings(uri=uri, replicas=9))


def test_what_passes_is_an_attempt_and_what_does_not_is_said() -> None:
    expected = [(RATE_LIMITED, RateLimited), (NOT_LOADED, Unloaded), (NO_NODE, BackendUnavailable)]
    refused = {"status": {"code": 1100, "errorCode": "IllegalArgument", "reason": "invalid parameter"}}
    for answer, kind in [*expected, (refused, CorpusIndexError)]:
        with cluster({**CLUSTER, "Query": [answer]}) as (_, uri):
            milvus = Milvus(MilvusSettings(uri=uri, timeout_s=0.5))
            with pytest.raises(kind):
                milvus.ask("query", "any", filter="row >= 0", output_fields=["count(*)"])


def test_a_load_into_memory_that_gets_no_further_ends(home: Path) -> None:
    stuck = {**CLUSTER, "GetLoadState": [{"state": "LoadStateLoading"}], "GetLoadingProgress": [{"progress": "30"}]}
    with cluster(stuck) as (double, uri), pytest.raises(BackendTimeout, match="30 of 100 %, no further"):
        load_current(home, MilvusSettings(uri=uri, wait_s=0.5))
    assert not double.asked["CreateAlias"]


def test_scores_are_the_embedded_engines_whatever_an_approximate_index_says(home: Path) -> None:
    """Milvus's BM25 has a factor of k1 + 1 = 1.9, and its indexes may keep vectors in fewer bits."""
    manifest = read_manifest(current_folder(home))
    answers = {**CLUSTER, "Search": [hit(0, 0.3), hit(0, 3.8)], "Query": [row(0, [0.5] * manifest.dim)]}
    with cluster(answers) as (double, uri):
        milvus = Milvus(MilvusSettings(uri=uri, consistency="Eventually"))
        engine = MilvusEngine(milvus, Kept("any", manifest, ""), Depths())
        (found,) = engine.search(["word1"], np.ones((1, manifest.dim), np.float32), 10)
    assert not isinstance(found, QrelayError)
    assert found[0].passage == Passage("d0#0", "d0", "title0", "text")
    assert found[0].scores == (Score(BM25, 2.0, 1), Score(DENSE, manifest.dim / 2, 1))
    assert {each.consistency_level for each in double.asked["Search"]} == {3}  # Eventually

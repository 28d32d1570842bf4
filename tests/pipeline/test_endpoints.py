"""Every service over gRPC, as a client without the queue would use them: one batch by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from qrelay.errors import InputError
from qrelay.runtime.client import channel
from qrelay.v1 import (
    judge_pb2,
    judge_pb2_grpc,
    records_pb2,
    reranker_pb2,
    reranker_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    sink_pb2,
    sink_pb2_grpc,
)
from tests.conftest import LONG_S
from tests.pipeline.harness import DOUBLES, IMPATIENT, Installation

COLLECTION = "endpoints"


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    environ = {**DOUBLES, **IMPATIENT, "QRELAY_ALL__WORKER__ENABLED": "false"}
    with Installation(tmp_path_factory.mktemp("endpoints"), environ) as running:
        yield running


@pytest.fixture(scope="module")
def stubs(installation: Installation) -> Iterator[dict[str, Any]]:
    makers = {
        "retriever": retriever_pb2_grpc.RetrieverServiceStub,
        "reranker": reranker_pb2_grpc.RerankerServiceStub,
        "judge": judge_pb2_grpc.JudgeServiceStub,
        "sink": sink_pb2_grpc.SinkServiceStub,
    }
    opened = {name: grpc.insecure_channel(installation.endpoint(name).grpc) for name in makers}
    yield {name: maker(opened[name]) for name, maker in makers.items()}
    for each in opened.values():
        each.close()


def queries(*ids: str) -> list[records_pb2.Query]:
    return [records_pb2.Query(query_id=i, text=f"how does {i} work?", collection=COLLECTION) for i in ids]


def label(stubs: dict[str, Any], *ids: str) -> list[records_pb2.JudgedSet]:
    """Queries through the first three services."""
    retrieved = stubs["retriever"].Retrieve(retriever_pb2.RetrieveRequest(queries=queries(*ids)), timeout=LONG_S)
    sets = [result.candidate_set for result in retrieved.results]
    reranked = stubs["reranker"].Rerank(reranker_pb2.RerankRequest(candidate_sets=sets), timeout=LONG_S)
    sets = [result.candidate_set for result in reranked.results]
    judged = stubs["judge"].Judge(judge_pb2.JudgeRequest(candidate_sets=sets), timeout=LONG_S)
    return [result.judged_set for result in judged.results]


def export(stubs: dict[str, Any], kind: int) -> tuple[bytes, sink_pb2.ExportManifest]:
    request = sink_pb2.ExportRequest(collection=COLLECTION, format=kind, unmeasured=True)
    parts = list(stubs["sink"].Export(request, timeout=LONG_S))
    return b"".join(part.chunk for part in parts[:-1]), parts[-1].manifest


def test_a_batch_by_hand_through_all_four_doors_ends_in_the_export(stubs: dict[str, Any]) -> None:
    judged = label(stubs, "a", "b")
    assert [len(each.judgments) for each in judged] == [25, 25]
    request = sink_pb2.IngestRequest(judged_sets=judged)
    statuses = [result.status for result in stubs["sink"].Ingest(request, timeout=LONG_S).results]
    assert statuses == [sink_pb2.INGEST_STATUS_COMMITTED] * 2
    statuses = [result.status for result in stubs["sink"].Ingest(request, timeout=LONG_S).results]
    assert statuses == [sink_pb2.INGEST_STATUS_DUPLICATE] * 2
    qrels, manifest = export(stubs, sink_pb2.EXPORT_FORMAT_QRELS)
    assert manifest.sha256 == hashlib.sha256(qrels).hexdigest()
    assert (manifest.rows, manifest.queries, len(qrels.splitlines())) == (50, 2, 50)
    states = stubs["sink"].GetQueryStates(
        sink_pb2.GetQueryStatesRequest(collection=COLLECTION, query_ids=["a", "zzz"]), timeout=LONG_S
    )
    assert list(states.states) == [sink_pb2.QUERY_STATE_COMMITTED, sink_pb2.QUERY_STATE_PENDING]


def test_a_conflicting_set_is_refused_by_itself(stubs: dict[str, Any]) -> None:
    first, second = label(stubs, "conflict", "fine")
    stubs["sink"].Ingest(sink_pb2.IngestRequest(judged_sets=[first]), timeout=LONG_S)
    other = records_pb2.JudgedSet()
    other.CopyFrom(first)
    other.candidate_set.query.text = "another text"
    results = stubs["sink"].Ingest(sink_pb2.IngestRequest(judged_sets=[other, second]), timeout=LONG_S).results
    assert results[0].error.reason == "query_conflict"
    assert "another text" in results[0].error.message
    assert results[1].status == sink_pb2.INGEST_STATUS_COMMITTED


@pytest.mark.parametrize("service", ["retriever", "judge", "sink"])
def test_streams_answer_in_order(service: str, stubs: dict[str, Any]) -> None:
    if service == "retriever":
        asked = [retriever_pb2.StreamRetrieveRequest(request={"queries": queries(f"s{n}")}) for n in range(9)]
        answers = [
            a.response.results[0].candidate_set for a in stubs[service].StreamRetrieve(iter(asked), timeout=LONG_S)
        ]
        assert [each.query.query_id for each in answers] == [f"s{n}" for n in range(9)]
        return
    sets = label(stubs, *(f"s{n}" for n in range(9)))
    if service == "judge":
        asked = [judge_pb2.StreamJudgeRequest(request={"candidate_sets": [each.candidate_set]}) for each in sets]
        answers = [a.response.results[0].judged_set for a in stubs[service].StreamJudge(iter(asked), timeout=LONG_S)]
        assert [each.candidate_set.query.query_id for each in answers] == [f"s{n}" for n in range(9)]
        return
    asked = [sink_pb2.StreamIngestRequest(request={"judged_sets": [each]}) for each in sets]
    answers = [a.response.results[0].status for a in stubs[service].StreamIngest(iter(asked), timeout=LONG_S)]
    assert answers == [sink_pb2.INGEST_STATUS_COMMITTED] * 9


def test_every_service_says_who_it_is(stubs: dict[str, Any]) -> None:
    requests = {
        "retriever": retriever_pb2.RetrieverServiceGetInfoRequest(),
        "reranker": reranker_pb2.RerankerServiceGetInfoRequest(),
        "judge": judge_pb2.JudgeServiceGetInfoRequest(),
        "sink": sink_pb2.SinkServiceGetInfoRequest(),
    }
    for name, request in requests.items():
        info = stubs[name].GetInfo(request, timeout=LONG_S).info
        assert (info.service, bool(info.version), bool(info.replica)) == (name, True, True)
        assert info.models or info.details


def test_bad_requests_name_what_to_change(stubs: dict[str, Any], installation: Installation, tmp_path: Path) -> None:
    address = installation.endpoint("sink").grpc
    with pytest.raises(InputError, match="set format to"), channel(address) as opened:
        list(
            sink_pb2_grpc.SinkServiceStub(opened).Export(
                sink_pb2.ExportRequest(collection=COLLECTION), timeout=LONG_S
            )
        )
    with pytest.raises(InputError, match="nowhere"), channel(address) as opened:
        request = sink_pb2.ExportRequest(collection="nowhere", format=sink_pb2.EXPORT_FORMAT_QRELS)
        list(sink_pb2_grpc.SinkServiceStub(opened).Export(request, timeout=LONG_S))
    with pytest.raises(InputError, match="dead_letter_ids, or all"), channel(address) as opened:
        sink_pb2_grpc.SinkServiceStub(opened).ReplayDeadLetters(sink_pb2.ReplayDeadLettersRequest(), timeout=LONG_S)
    asked = [*queries("ok"), records_pb2.Query(query_id="e", collection=COLLECTION)]
    empty = stubs["retriever"].Retrieve(retriever_pb2.RetrieveRequest(queries=asked), timeout=LONG_S)
    assert [result.WhichOneof("result") for result in empty.results] == ["candidate_set", "error"]

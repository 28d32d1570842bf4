"""HTTP/JSON over a real installation: `qrelay up` with a real index, and doubles for the models."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client
from prometheus_client.parser import text_string_to_metric_families

from qrelay.index.build import BuildRequest, build_index
from qrelay.index.embedding import loader
from qrelay.index.settings import EmbedderEndpointSettings, RetrieverSettings
from qrelay.models.embedder import load_embedder
from qrelay.web.api.operations import OPERATIONS
from tests.conftest import LONG_S
from tests.pipeline.harness import DOUBLES, IMPATIENT, Installation
from tests.pipeline.test_documents import beir_folder

ENVIRON = {
    **DOUBLES,
    **IMPATIENT,
    "QRELAY_CONSOLE__ENABLED": "true",
    "QRELAY_RETRIEVER__ENGINE": "embedded",
    "QRELAY_RETRIEVER__EMBEDDER": "hash",
}
FED = {"collection": "mine", "queries": [{"query": f"common{n} common1", "query_id": f"q{n}"} for n in range(3)]}


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    folder = tmp_path_factory.mktemp("api")
    request = BuildRequest(str(beir_folder(folder / "beir") / "corpus.jsonl"), "mine", folder / "data" / "index")
    build_index(request, load_embedder("hash"), lambda _: None)
    with Installation(folder / "data", ENVIRON) as running:
        yield running


@pytest.fixture(scope="module")
def http(installation: Installation) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=installation.endpoint("console").grpc, timeout=LONG_S) as client:
        yield client


@pytest.fixture(scope="module")
def labelled(installation: Installation, http: httpx.Client) -> httpx.Client:
    """The client, once three queries are fed and judged."""
    fed = http.post("/v1/feed", json=FED)
    assert (fed.status_code, fed.json()) == (200, {"accepted": 3, "known": 0, "rejected": {}})
    installation.until(lambda: [each["queries"] for each in got(http, "/v1/stats")["collections"]] == [3])
    return http


def got(http: httpx.Client, path: str, **parameters: Any) -> Any:
    answer = http.get(path, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def posted(http: httpx.Client, path: str, **body: Any) -> Any:
    answer = http.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def error(answer: httpx.Response) -> tuple[int, str, str]:
    said = answer.json()["error"]
    return answer.status_code, said["code"], said["reason"]


def test_a_query_finds_candidates_with_every_systems_score(http: httpx.Client) -> None:
    found = posted(http, "/v1/retrieve", query="rare1word0 rare1word1", collection="mine", max_candidates=5)
    assert len(found["candidates"]) == 5
    assert found["candidates"][0]["doc_id"] == "1"
    assert {each["system"] for each in found["candidates"][0]["scores"]} == {"bm25", "dense"}
    assert found["models"]["retriever"].startswith("hash")


def test_candidates_are_reranked_by_text_and_by_id(http: httpx.Client) -> None:
    given = [
        "a first passage",
        {"text": "a second", "title": "Two", "passage_id": "doc#4", "metadata": {"year": "2026"}},
    ]
    found = posted(http, "/v1/rerank", query="which?", candidates=given)
    assert {each["passage_id"]: each["doc_id"] for each in found["candidates"]} == {"0": "0", "doc#4": "doc"}
    assert [each["metadata"] for each in found["candidates"] if each["doc_id"] == "doc"] == [{"year": "2026"}]
    kept = posted(http, "/v1/rerank", query="which?", candidates=given, max_candidates=1)
    assert [each["passage_id"] for each in kept["candidates"]] == [found["candidates"][0]["passage_id"]]


def test_passages_are_judged_and_a_missing_judgment_has_no_grade(http: httpx.Client) -> None:
    found = posted(http, "/v1/judge", query="which of these?", candidates=["which of these", "another"])
    assert [each["passage_id"] for each in found["judgments"]] == ["0", "1"]
    for each in found["judgments"]:
        assert (each["grade"] is None) == bool(each["missing"])
        assert sum(each["probabilities"].values()) == pytest.approx(1)


def test_what_is_fed_is_labelled_once(labelled: httpx.Client) -> None:
    again = posted(labelled, "/v1/feed", **FED)
    assert again == {"accepted": 0, "known": 3, "rejected": {}}
    other = {"query_id": "q0", "query": "another text"}
    rejected = posted(labelled, "/v1/feed", collection="mine", queries=[{"query": "x", "query_id": "a b"}, other])
    assert set(rejected["rejected"]) == {"0", "1"}
    assert "another text" in rejected["rejected"]["1"] or "q0" in rejected["rejected"]["1"]


def test_labels_come_page_by_page_and_whole(labelled: httpx.Client) -> None:
    whole = got(labelled, "/v1/labels", collection="mine")
    assert whole["next_page_token"] == ""
    pages, token = [], ""
    while page := got(labelled, "/v1/labels", collection="mine", page_size=1, page_token=token):
        pages.extend(page["labels"])
        if not (token := page["next_page_token"]):
            break
    assert pages == whole["labels"]
    assert {each["query_id"] for each in pages} == {"q0", "q1", "q2"}


def test_a_decision_wins_and_a_withdrawn_one_does_not(labelled: httpx.Client) -> None:
    pair = got(labelled, "/v1/labels", collection="mine", where="query_id=q1")["labels"][0]
    decided = {"collection": "mine", "query_id": "q1", "passage_id": pair["passage_id"], "grade": 3, "author": "ana"}
    assert posted(labelled, "/v1/labels", **decided) == {"added": True, "in_candidates": True}
    assert posted(labelled, "/v1/labels", **decided) == {"added": False, "in_candidates": True}
    human = got(labelled, "/v1/labels", collection="mine", where="human")["labels"]
    assert [(each["passage_id"], each["grade"], each["human"]) for each in human] == [(pair["passage_id"], 3, True)]
    assert posted(labelled, "/v1/labels", **{**decided, "grade": None})["added"]
    assert got(labelled, "/v1/labels", collection="mine", where="human")["labels"] == []


def test_an_export_is_the_sinks_bytes_and_its_manifest_has_their_hash(
    installation: Installation, labelled: httpx.Client
) -> None:
    import hashlib

    sent = labelled.get("/v1/export", params={"collection": "mine", "format": "qrels"})
    manifest = got(labelled, "/v1/export", collection="mine", format="qrels", manifest=True)
    assert hashlib.sha256(sent.content).hexdigest() == manifest["sha256"]
    out = installation.folder / "qrels.tsv"
    installation.run("export", "qrels", "--collection", "mine", "--out", str(out))
    assert out.read_bytes() == sent.content


def test_an_unmeasured_judge_trains_nobody_unless_that_is_allowed(labelled: httpx.Client) -> None:
    asked = {"collection": "mine", "format": "tevatron"}
    refused = labelled.get("/v1/export", params=asked)
    assert error(refused) == (400, "FAILED_PRECONDITION", "not_qualified")
    assert labelled.get("/v1/export", params={**asked, "unmeasured": True}).status_code == 200


def test_embed_and_rerank_answer_as_text_embeddings_inference_does(http: httpx.Client) -> None:
    one, two = (
        posted(http, "/embed", inputs="a text", normalize=False),
        posted(http, "/embed", inputs=["a text", "b"]),
    )
    assert len(two) == 2
    assert math.hypot(*two[0]) == pytest.approx(1)
    assert [each / math.hypot(*one[0]) for each in one[0]] == pytest.approx(two[0])
    assert load_embedder("hash").encode(["a text"], "document")[0].tolist() == one[0]
    texts = [f"text {n}" for n in range(50)]
    ranks = posted(http, "/rerank", query="which?", texts=texts, return_text=True)
    assert sorted(each["index"] for each in ranks) == list(range(50))
    assert [each["score"] for each in ranks] == sorted((each["score"] for each in ranks), reverse=True)
    assert all(each["text"] == texts[each["index"]] for each in ranks)
    assert "text" not in posted(http, "/rerank", query="which?", texts=["a"])[0]


def test_a_client_of_text_embeddings_inference_reads_it(installation: Installation) -> None:
    """qrelay's own, which asks such servers for the vectors of an index."""
    expected = load_embedder("hash").encode(["a text", "another"], "document")
    endpoint = EmbedderEndpointSettings(
        url=installation.endpoint("console").grpc, api="tei", model="any", dimensions=expected.shape[1],
        normalise=False,
    )  # fmt: skip
    settings = RetrieverSettings(embedder="endpoint", embedder_endpoint=endpoint)
    asked = loader(settings)("endpoint").encode(["a text", "another"], "document")
    assert asked.tolist() == expected.tolist()


def test_embed_and_rerank_answer_as_cohere_does(http: httpx.Client) -> None:
    asked = {"model": "any", "texts": ["a text"], "input_type": "search_document", "embedding_types": ["float"]}
    found = posted(http, "/v2/embed", **asked)
    assert found["embeddings"]["float"] == posted(http, "/embed", inputs="a text", normalize=False)
    ranked = posted(http, "/v2/rerank", model="any", query="which?", documents=["a", "b", "c"], top_n=2)
    assert [set(each) for each in ranked["results"]] == [{"index", "relevance_score"}] * 2


def test_what_a_shape_promises_and_we_cannot_do_is_refused(http: httpx.Client) -> None:
    refused = (
        ("/embed", {"inputs": "a", "truncation_direction": "Left"}),
        ("/v2/embed", {"texts": ["a"], "input_type": "image"}),
        ("/v2/embed", {"texts": ["a"], "input_type": "search_query", "embedding_types": ["int8"]}),
        ("/rerank", {"query": "q", "texts": []}),
    )
    for path, body in refused:
        assert error(http.post(path, json=body))[:2] == (400, "INVALID_ARGUMENT")


def test_more_texts_than_the_reranker_reads_are_refused_and_not_dropped(http: httpx.Client) -> None:
    answer = http.post("/rerank", json={"query": "q", "texts": ["t"] * 101})
    assert error(answer) == (413, "RESOURCE_EXHAUSTED", "oversized")
    assert "reranker.max_candidates" in answer.text


def test_a_services_error_keeps_its_code_and_reason(http: httpx.Client) -> None:
    answer = http.post("/v1/retrieve", json={"query": "how?", "collection": "nowhere"})
    assert error(answer) == (404, "NOT_FOUND", "unknown_collection")
    assert error(http.post("/v1/retrieve", json={"query": " ", "collection": "mine"}))[2] == "invalid_query"
    assert error(http.get("/v1/labels", params={"collection": "nowhere"})) == (404, "NOT_FOUND", "unknown_collection")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b'{"query": "q", "candidates": ["a"], "nonsense": 1}', b"\xff\xfe", b"[" * 100_000,
     b'{"query": "q", "candidates": [NaN]}', b'{"query": 7, "candidates": ["a"]}'],
)  # fmt: skip
def test_a_body_that_says_nothing_is_a_clear_error(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v1/judge", content=body, headers={"content-type": "application/json"})
    assert error(answer)[:2] == (400, "INVALID_ARGUMENT")
    assert len(answer.text) < 3000


def test_a_body_of_a_million_values_is_refused_before_it_is_parsed(http: httpx.Client) -> None:
    many = b'{"query": "q", "candidates": [' + b"{}," * 700_000 + b"{}]}"
    answer = http.post("/v1/judge", content=many, headers={"content-type": "application/json"})
    assert error(answer) == (413, "RESOURCE_EXHAUSTED", "oversized")


def test_a_form_of_another_site_calls_nothing(http: httpx.Client) -> None:
    for each in OPERATIONS:
        if each.method == "POST":
            sent = http.post(each.path, content=b"{}", headers={"content-type": "text/plain"})
            assert sent.status_code == 403, each.path


def test_http_and_grpc_judge_alike(installation: Installation, http: httpx.Client) -> None:
    from qrelay.v1 import judge_pb2, judge_pb2_grpc, records_pb2

    found = posted(http, "/v1/judge", query="which?", query_id="q", candidates=["one text", "two"])
    passages = [records_pb2.Passage(passage_id=str(n), text=t) for n, t in enumerate(("one text", "two"))]
    query = records_pb2.Query(query_id="q", text="which?", collection="default")
    asked = records_pb2.CandidateSet(
        query=query, candidates=[records_pb2.Candidate(passage=each, sampled=True) for each in passages]
    )
    with grpc.insecure_channel(installation.endpoint("judge").grpc) as channel:
        stub = judge_pb2_grpc.JudgeServiceStub(channel)
        answer = stub.Judge(judge_pb2.JudgeRequest(candidate_sets=[asked]), timeout=LONG_S)
    judged = answer.results[0].judged_set.judgments
    assert [each["judgment_key"] for each in found["judgments"]] == [each.judgment_key for each in judged]
    assert [each["grade"] for each in found["judgments"]] == [each.graded.grade for each in judged]


def test_up_and_top_tell_where_the_console_listens(installation: Installation) -> None:
    entry = json.loads((Path(installation.folder) / "run" / "console.json").read_text())
    assert entry["service"] == "console"
    assert entry["grpc"].startswith("http://127.0.0.1:")
    assert installation.run("top", "--interval", "0.1")["console"] == entry["grpc"]


async def test_tools_compute_as_the_operations_do(installation: Installation, labelled: httpx.Client) -> None:
    url = f"{installation.endpoint('console').grpc}/mcp"
    async with Client(streamable_http_client(url)) as client:
        found = await client.call_tool("retrieve", {"query": "rare1word0", "collection": "mine", "max_candidates": 2})
        assert found.structured_content is not None
        texts = [each["text"] for each in found.structured_content["candidates"]]
        judged = await client.call_tool("judge", {"query": "rare1word0", "candidates": texts})
        ranked = await client.call_tool("rerank", {"query": "rare1word0", "candidates": texts})
    over_http = posted(labelled, "/v1/judge", query="rare1word0", candidates=texts)
    assert judged.structured_content is not None and ranked.structured_content is not None
    keys = [
        [each["judgment_key"] for each in answer["judgments"]] for answer in (judged.structured_content, over_http)
    ]
    assert keys[0] == keys[1]
    assert ranked.structured_content == posted(labelled, "/v1/rerank", query="rare1word0", candidates=texts)


def test_requests_are_counted_by_route_and_status(installation: Installation, http: httpx.Client) -> None:
    before = counted(installation)
    http.get("/v1/labels", params={"collection": "nowhere"})
    http.get("/v1/stats")
    http.get("/v1/stats")
    assert counted(installation) - before == {
        ("calls_total", "/v1/labels", "404"): 1, ("seconds_count", "/v1/labels", ""): 1,
        ("calls_total", "/v1/stats", "200"): 2, ("seconds_count", "/v1/stats", ""): 2,
    }  # fmt: skip


def counted(installation: Installation) -> Counter[tuple[str, str, str]]:
    """What the console's metrics say of each route and status."""
    text = httpx.get(f"http://{installation.endpoint('console').metrics}/metrics").text
    samples = [each for family in text_string_to_metric_families(text) for each in family.samples]
    names = "qrelay_http_calls_total", "qrelay_http_seconds_count"
    return Counter({
        (each.name.removeprefix("qrelay_http_"), each.labels["route"], each.labels.get("status", "")): int(each.value)
        for each in samples if each.name in names
    })  # fmt: skip


DOCUMENTED = re.compile(r"curl -s '?http://127\.0\.0\.1:7405([^'\s]+)'?(?: -H '[^']*' -d '(\{.*?\})')?\n", re.DOTALL)


def test_what_the_docs_show_works(labelled: httpx.Client) -> None:
    shown = DOCUMENTED.findall((Path(__file__).parents[2] / "docs" / "http.md").read_text("utf8"))
    assert len(shown) >= 7
    for path, body in shown:
        answer = labelled.post(path, json=json.loads(body)) if body else labelled.get(path)
        assert answer.status_code == 200, (path, answer.text)

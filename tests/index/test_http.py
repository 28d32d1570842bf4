"""The engine `http` on a real server that misbehaves: what it asks, what it reads, and what becomes of failures."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qrelay.errors import (
    BackendTimeout,
    BackendUnavailable,
    ConfigError,
    EndpointPaused,
    EndpointRefuses,
    MalformedInput,
    QrelayError,
    RequestRefused,
    TransientError,
)
from qrelay.index.http.answer import read_hits
from qrelay.index.http.presets import PRESETS, Preset
from qrelay.index.http.template import filled, path_of
from qrelay.services.retriever.retriever import load_retriever
from qrelay.services.retriever.service import SERVICE
from qrelay.settings import load_settings
from qrelay.types import Candidate, CandidateSet, Passage, Query, Score
from tests.index.searching import answering, engine, hit, page, serving
from tests.llm.endpoint import Answer, ScriptedEndpoint, answer, endless, hang_up, packed, where

SECRET = "s3cret-key"
DOCUMENTS = [{"_id": f"d{n}", "title": f"t{n}", "text": f"tides word{n}"} for n in range(8)]


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint() as running:
        running.default = answering(DOCUMENTS)
        yield running


def ids(answered: tuple[Candidate, ...] | QrelayError) -> list[str]:
    assert not isinstance(answered, QrelayError), answered
    return [each.passage.passage_id for each in answered]


def only(
    endpoint: ScriptedEndpoint, *script: Answer, limit: int = 3, **http: Any
) -> tuple[Candidate, ...] | QrelayError:
    """What the engine makes of one query."""
    endpoint.script(*script)
    with engine(endpoint, **http) as asked:
        (answered,) = asked.search(["tides"], None, limit)
    return answered


def test_a_search_is_asked_by_the_template_and_its_hits_become_candidates(endpoint: ScriptedEndpoint) -> None:
    answered = only(endpoint, limit=2)
    assert endpoint.paths == ["/docs/_search"]
    assert endpoint.requests == [
        {"query": {"multi_match": {"query": "tides", "fields": ["title", "text"]}}, "size": 2, "from": 0}
    ]
    assert answered == (
        Candidate(Passage("d0#0", "d0", "t0", "tides word0"), (Score("opensearch", 1.0, 1),)),
        Candidate(Passage("d1#0", "d1", "t1", "tides word1"), (Score("opensearch", 1.0, 2),)),
    )


def test_more_than_a_page_is_asked_for_in_pages_and_what_comes_again_counts_once(endpoint: ScriptedEndpoint) -> None:
    assert ids(only(endpoint, limit=7, page_size=3)) == [f"d{n}#0" for n in range(7)]
    assert [(each["from"], each["size"]) for each in endpoint.requests] == [(0, 3), (3, 3), (6, 1)]
    moved = [page([hit("a"), hit("b")]), page([hit("b"), hit("c")]), page([hit("d")])]
    answered = only(endpoint, *moved, limit=10, page_size=2)
    assert ids(answered) == ["a#0", "b#0", "c#0", "d#0"], "a short page is the last"
    assert isinstance(answered, tuple) and [each.scores[0].rank for each in answered] == [1, 2, 3, 4]


def test_an_engine_that_gives_one_page_for_ever_is_asked_no_further(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = page([hit("a"), hit("b")])
    assert ids(only(endpoint, limit=1000, page_size=2)) == ["a#0", "b#0"]
    assert len(endpoint.requests) == 2
    assert ids(only(endpoint, page([]))) == []


def test_a_template_without_pages_is_asked_once_and_more_than_was_asked_is_cut(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = page([hit(str(n)) for n in range(9)])
    assert len(ids(only(endpoint, limit=5, page_size=2, request={"q": "{query}", "k": "{size}"}))) == 5
    assert endpoint.requests == [{"q": "tides", "k": 5}]


def test_an_engine_may_be_asked_by_its_address_and_call_a_collection_otherwise(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = answer(200, [{"key": 7, "body": ["one", "two"]}])
    answered = only(
        endpoint, preset="", path="/search/{collection}", method="GET", names={"docs": "my docs/2"}, system="mine",
        request={"q": "{query}", "rows": "{size}", "from": "{from}"}, hits="0", id="key", text="body", score="",
    )  # fmt: skip
    assert isinstance(answered, MalformedInput) and "retriever.http.hits" in str(answered)
    assert endpoint.paths == ["/search/my%20docs%2F2"]
    assert endpoint.requests == [{"q": "tides", "rows": "3", "from": "0"}]


def test_no_query_leaves_its_place_in_the_template() -> None:
    odd = '", "size": "{size}'
    assert filled({"a": {"b": ["{query} {from}"]}, "n": "{size}", "c": 1}, {"query": odd, "from": 2, "size": 3}) == {
        "a": {"b": [f"{odd} 2"]}, "n": 3, "c": 1,
    }  # fmt: skip
    assert path_of("/{collection}/_search", "a/../b?c") == "/a%2F..%2Fb%3Fc/_search"


SAMPLES: dict[Preset, Any] = {
    "opensearch": {"timed_out": False, "_shards": {"failed": 0}, "hits": {"total": {"value": 1}, "hits": [
        {"_index": "docs", "_id": "a", "_score": 1.5, "_source": {"title": "T", "text": "x"}}]}},
    "elasticsearch": {"hits": {"hits": [{"_id": "a", "_score": 1.5, "_source": {"title": "T", "text": ["x"]}}]}},
    "vespa": {"root": {"id": "toplevel", "relevance": 1.0, "fields": {"totalCount": 1}, "coverage": {"full": True},
        "children": [{"id": "a", "relevance": 1.5, "source": "docs", "fields": {"title": "T", "text": "x"}}]}},
    "qdrant": {"status": "ok", "time": 0.1, "result": {"points": [
        {"id": "a", "version": 3, "score": 1.5, "payload": {"title": "T", "text": "x"}}]}},
}  # fmt: skip


@pytest.mark.parametrize("preset", SAMPLES)
def test_answers_of_known_engines_are_read_by_their_presets(preset: Preset) -> None:
    (read,) = read_hits(SAMPLES[preset], PRESETS[preset])
    assert (read.passage, read.score) == (Passage("a#0", "a", "T", "x"), 1.5)


def test_vespa_leaves_the_list_out_where_it_found_nothing_and_says_where_it_failed() -> None:
    nothing = {"root": {"id": "toplevel", "fields": {"totalCount": 0}}}
    assert read_hits(nothing, PRESETS["vespa"]) == []
    with pytest.raises(BackendUnavailable, match=r"not whole, root\.errors is"):
        read_hits({"root": {"errors": [{"code": 12, "summary": "Timed out"}]}}, PRESETS["vespa"])


def test_a_hit_is_a_passage_where_its_document_is_named_or_its_id_says_it(endpoint: ScriptedEndpoint) -> None:
    chunk = hit("chunk-9", source={"title": "", "text": "x", "doc": "d9"})
    answered = only(endpoint, page([chunk, hit("d4#2"), hit("d5")]), doc_id="_source.doc")
    assert isinstance(answered, tuple)
    assert [(each.passage.passage_id, each.passage.doc_id) for each in answered] == [
        ("chunk-9", "d9"), ("d4#2", "d4"), ("d5#0", "d5"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "trouble",
    [
        answer(429, {"error": {"type": "circuit_breaking_exception"}}, {"Retry-After": "0"}),
        answer(503, b"<html>no upstream</html>"),
        answer(200, b"<html>a proxy's page</html>"),
        page([], timed_out=True),
        page([hit("a")], _shards={"failed": 1}),
        hang_up,
    ],
)
def test_trouble_that_passes_is_waited_out(endpoint: ScriptedEndpoint, trouble: Answer) -> None:
    assert ids(only(endpoint, trouble)) == ["d0#0", "d1#0", "d2#0"]
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    ("trouble", "kind", "said"),
    [
        (answer(503, {}), BackendUnavailable, "answered 503"),
        (answer(429, {}, {"Retry-After": "0.001"}), TransientError, "too many requests, retry-after: 0.001"),
        (answer(429, {}, {"Retry-After": "3000"}), EndpointPaused, "asks for a pause until"),
        (answer(200, b"no JSON"), BackendUnavailable, "a search engine that answers in JSON"),
        (endless(b"[" * 65536), BackendUnavailable, "retriever.http.max_reply_bytes"),
        (packed(64 * 1024**2), BackendUnavailable, "retriever.http.max_reply_bytes"),
        (answer(401, {"error": {"type": "security_exception"}}), EndpointRefuses, "retriever.http.api_key_env"),
        (
            answer(404, {"error": {"type": "index_not_found_exception"}}),
            EndpointRefuses,
            "retriever.http.names, path",
        ),
        (answer(301, b"", {"Location": "http://else"}), EndpointRefuses, "set retriever.http.url to where it is now"),
        (answer(400, {"error": {"type": "parsing_exception"}}), EndpointRefuses, "path, request and retriever.http"),
    ],
)
def test_trouble_that_stays_is_an_error_that_names_the_setting_and_is_tried_again_later(
    endpoint: ScriptedEndpoint, trouble: Answer, kind: type[QrelayError], said: str
) -> None:
    endpoint.default = trouble
    failed = only(endpoint, max_reply_bytes=65536)
    assert isinstance(failed, kind) and said in str(failed), repr(failed)
    assert "judge" not in str(failed)


def test_silence_ends_at_the_timeout(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = endpoint.silence
    failed = only(endpoint, request_timeout_s=0.05, max_retries=0)
    assert isinstance(failed, BackendTimeout) and "retriever.http.request_timeout_s" in str(failed)


def test_one_querys_failure_is_its_own(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = where("odd", answer(400, {"error": {"type": "query_shard_exception"}}), answering(DOCUMENTS))
    with engine(endpoint) as asked:
        good, bad, other = asked.search(["tides", "odd", "word3"], None, 2)
    assert ids(good) == ["d0#0", "d1#0"] and ids(other)[0] == "d3#0"
    assert isinstance(bad, RequestRefused) and "query_shard_exception" in str(bad)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"hits": {"total": 3}}, None),
        ({"results": []}, "no list at 'hits.hits': set retriever.http.hits"),
        ({"hits": {"hits": {"a": 1}}}, "no list at 'hits.hits'"),
        ({"hits": {"hits": [hit("a"), {"_score": 1}]}}, "hit 2 has no id at '_id': set retriever.http.id"),
        ({"hits": {"hits": ["a"]}}, "hit 1 has no id"),
        ({"hits": {"hits": [{"_id": True}]}}, "hit 1 has no id"),
        ({"hits": {"hits": [hit("a b")]}}, "the id 'a b'"),
        ({"hits": {"hits": [{"_id": "a", "_score": "best", "_source": {"text": "x"}}]}}, "no number at '_score'"),
        ({"hits": {"hits": [{"_id": "a", "_source": {"body": "x"}}]}}, "no hit has a text at '_source.text'"),
    ],
)
def test_an_answer_that_does_not_fit_the_mapping_is_an_error_for_good_that_names_the_setting(
    endpoint: ScriptedEndpoint, body: Any, said: str | None
) -> None:
    failed = only(endpoint, answer(200, body))
    if said is None:
        assert failed == ()
        return
    assert isinstance(failed, MalformedInput) and said in str(failed)
    assert len(endpoint.requests) == 1, "asking again would not help"


def test_what_some_hits_lack_is_left_empty_and_odd_characters_are_replaced(endpoint: ScriptedEndpoint) -> None:
    bare = {"_id": "b", "_source": {"title": None}}
    odd = json.dumps({"hits": {"hits": [hit("a", None, {"text": "nul \0 \ud83d"}), bare]}}).encode()
    answered = only(endpoint, answer(200, odd))
    assert isinstance(answered, tuple)
    assert [each.passage.text for each in answered] == ["nul \ufffd ?", ""]
    assert [each.scores for each in answered] == [(Score("opensearch", None, 1),), (Score("opensearch", None, 2),)]


def test_metadata_that_finds_no_room_is_logged_once(
    endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    full = page([hit("a", None, {"text": "x", "metadata": {"long": "x" * 3000, "year": 2020}})])
    endpoint.script(full, full)
    with engine(endpoint) as asked:
        for _ in range(2):
            ((found,),) = asked.search(["tides"], None, 1)
            assert found.passage.metadata == {"year": "2020"}
    assert [each.getMessage().partition(" were left")[0] for each in caplog.records] == [
        "opensearch, for one query: 1 fields of metadata"
    ]


@pytest.mark.parametrize(
    ("auth", "header", "sent"),
    [
        ({"auth": "bearer"}, "Authorization", f"Bearer {SECRET}"),
        ({"auth": "api-key"}, "Authorization", f"ApiKey {SECRET}"),
        ({"auth": "api-key", "key_header": "X-Api-Key"}, "X-Api-Key", SECRET),
        ({"auth": "basic"}, "Authorization", "Basic czNjcmV0LWtleQ=="),
    ],
)
@pytest.mark.parametrize("by", ["api_key_env", "api_key_file"])
def test_the_credential_is_sent_and_shown_nowhere(
    endpoint: ScriptedEndpoint, auth: dict[str, str], header: str, sent: str, by: str,
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    monkeypatch.setenv("SEARCH_KEY", SECRET)
    (tmp_path / "key").write_text(f"{SECRET}\n")
    given = "SEARCH_KEY" if by == "api_key_env" else str(tmp_path / "key")
    endpoint.script(answer(401, {"error": {"message": f"the key {SECRET} is not known"}}), answering(DOCUMENTS))
    with engine(endpoint, **auth, **{by: given}) as asked:
        (refused,), (answered,) = (asked.search(["tides"], None, 1) for _ in range(2))
        told = f"{asked.describe()} {asked.version}"
    assert ids(answered) == ["d0#0"]
    assert endpoint.headers[-1][header] == sent
    assert isinstance(refused, EndpointRefuses)
    assert SECRET not in f"{refused} {caplog.text} {told}"


def test_a_credential_that_is_not_there_is_told_at_start(endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    for missing in ({"api_key_env": "NOT_SET_ANYWHERE"}, {"api_key_file": str(tmp_path / "none")}):
        with pytest.raises(ConfigError, match="api_key"), engine(endpoint, auth="bearer", **missing):
            pass


def test_a_request_with_a_vector_gets_that_of_the_configured_model(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = answer(200, SAMPLES["qdrant"])
    with engine(endpoint, preset="qdrant") as asked:
        assert asked.embedder
        (answered,) = asked.search(["tides"], np.array([[0.5, -0.25]], np.float32), 5)
    assert ids(answered) == ["a#0"]
    assert endpoint.requests[0] == {"query": [0.5, -0.25], "limit": 5, "offset": 0, "with_payload": True}
    assert endpoint.paths == ["/collections/docs/points/query"]


def retrieved(folder: Path, endpoint: ScriptedEndpoint, **more: str) -> Callable[[str], CandidateSet | QrelayError]:
    environ = {
        "QRELAY_RETRIEVER__ENGINE": "http", "QRELAY_RETRIEVER__COLLECTIONS": '["docs"]',
        "QRELAY_RETRIEVER__HTTP__URL": endpoint.address, "QRELAY_RETRIEVER__HTTP__PRESET": "opensearch",
        "QRELAY_ALL__DATA_DIR": str(folder), "QRELAY_RETRIEVER__EMBEDDER": "hash", **more,
    }  # fmt: skip
    retriever = load_retriever(load_settings(SERVICE.settings, "retriever", environ=environ))
    return lambda collection: retriever.retrieve([Query("q1", "tides", collection)])[0]


def test_the_retriever_serves_the_collections_that_are_named_without_a_model(
    endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    ask = retrieved(tmp_path, endpoint)
    found_set = ask("docs")
    assert isinstance(found_set, CandidateSet) and len(found_set.candidates) == 8
    assert found_set.index_version.startswith("opensearch@") and found_set.trace[0].model == "opensearch"
    assert "no index of the collection 'other' is served" in str(ask("other"))


def test_the_retriever_embeds_where_the_request_asks_for_it(endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    endpoint.default = answer(200, SAMPLES["qdrant"])
    found_set = retrieved(tmp_path, endpoint, QRELAY_RETRIEVER__HTTP__PRESET="qdrant")("docs")
    assert isinstance(found_set, CandidateSet) and found_set.trace[0].model.startswith("hash")
    assert len(endpoint.requests[0]["query"]) > 10


def test_every_problem_of_the_settings_is_told_at_once_with_what_to_do() -> None:
    with pytest.raises(ConfigError) as caught:
        load_settings(
            SERVICE.settings, "retriever",
            environ={"QRELAY_RETRIEVER__ENGINE": "http", "QRELAY_RETRIEVER__HTTP__URL": "https://me:pw@host",
                     "QRELAY_RETRIEVER__HTTP__AUTH": "bearer", "QRELAY_RETRIEVER__HTTP__SYSTEM": "my engine",
                     "QRELAY_RETRIEVER__HTTP__REQUEST": '{"a": "b"}'},
        )  # fmt: skip
    problems = (
        "http.url holds credentials", "needs collections", "neither {query} nor {vector}", "must be one word",
        "http.api_key_env or http.api_key_file go together",
    )  # fmt: skip
    for said in problems:
        assert said in str(caught.value)
    assert "pw" not in str(caught.value).replace("http", "")


def test_threads_share_the_connections_of_one_engine(endpoint: ScriptedEndpoint) -> None:
    with serving(endpoint) as versions:
        assert versions.marks() == versions.marks() == {"docs": 0}
        assert versions.open("docs").version == versions.open("docs").version

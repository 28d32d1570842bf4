"""Embedding models behind HTTP: OpenAI's shape and text-embeddings-inference's, and endpoints that misbehave."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from qrelay.errors import (
    BackendTimeout,
    BackendUnavailable,
    ConfigError,
    ContentFiltered,
    EndpointPaused,
    EndpointRefuses,
    QrelayError,
)
from qrelay.http.connection import Limits
from qrelay.http.pacing import Policy
from qrelay.index.build import BuildRequest, build_index
from qrelay.index.embedding import loader
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import HashEmbedder
from qrelay.models.embedding_endpoint import EndpointEmbedder, EndpointModel
from qrelay.models.engines import dim_of
from qrelay.services.retriever.retriever import load_retriever
from qrelay.types import CandidateSet, Query
from tests.conftest import LONG_S
from tests.index.documents import made_up, write_jsonl
from tests.llm.endpoint import Answer, ScriptedEndpoint, answer, endless, hang_up, packed

DIM = HashEmbedder.dim
FAST = Policy(concurrency=4, max_retries=2, retry_base_s=0.001, total_timeout_s=LONG_S, breaker_failures=99)
KEY = "sk-very-secret"
SECTION = "retriever.embedder_endpoint"


def vectors_of(texts: Sequence[str]) -> list[list[float]]:
    """What the doubles answer: the shipped double's vectors, so that an index of them is exact."""
    return [[float(value) for value in row] for row in HashEmbedder().encode(texts, "query")]


def texts_of(handler: BaseHTTPRequestHandler) -> list[str]:
    body = json.loads(handler.asked)  # type: ignore[attr-defined]
    found: list[str] = body.get("input") or body["inputs"]
    return found


def openai(handler: BaseHTTPRequestHandler) -> None:
    """A well-behaved endpoint of OpenAI's shape, whose entries come in no order."""
    rows = [{"index": n, "embedding": row} for n, row in enumerate(vectors_of(texts_of(handler)))]
    answer(200, {"model": "m", "data": rows[::-1]})(handler)


def tei(handler: BaseHTTPRequestHandler) -> None:
    answer(200, vectors_of(texts_of(handler)))(handler)


def taking(most: int, status: int = 413, body: object = "too large") -> Answer:
    """Refuses more than so many texts at once."""

    def send(handler: BaseHTTPRequestHandler) -> None:
        (openai if len(texts_of(handler)) <= most else answer(status, body))(handler)

    return send


@pytest.fixture
def endpoint() -> Iterator[ScriptedEndpoint]:
    with ScriptedEndpoint() as made:
        made.default = openai
        yield made


def embedder(endpoint: ScriptedEndpoint, policy: Policy = FAST, limits: Limits | None = None, **model: Any) -> Any:
    own = {"api": "openai", "model": "m", "revision": "r1", "dimensions": DIM, "normalise": False, **model}
    return EndpointEmbedder(
        endpoint.url,
        EndpointModel(**own),
        api_key=KEY,
        policy=policy,
        limits=limits or Limits(LONG_S, retry_refused_s=30),
        section=SECTION,
    )


TEXTS = ["iron and light", "water", "", "a longer text about iron", "light"] * 3


@pytest.mark.parametrize(("api", "served", "path"), [("openai", openai, "/v1/embeddings"), ("tei", tei, "/v1/embed")])
def test_vectors_come_in_the_texts_order_and_in_requests_of_a_few_texts(
    endpoint: ScriptedEndpoint, api: str, served: Answer, path: str
) -> None:
    endpoint.default = served
    found = embedder(endpoint, api=api, texts=4).encode(TEXTS, "document")
    np.testing.assert_array_equal(found, HashEmbedder().encode(TEXTS, "document"))
    assert found.dtype == np.float32
    assert set(endpoint.paths) == {path}
    assert sorted(len(each.get("input") or each["inputs"]) for each in endpoint.requests) == [3, 4, 4, 4]
    assert all(headers["Authorization"] == f"Bearer {KEY}" for headers in endpoint.headers)


def test_an_endpoint_on_this_machine_is_asked_past_any_proxy(
    endpoint: ScriptedEndpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy, where nobody listens, would carry the texts away in plain text."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert embedder(endpoint).encode(["a"], "query").shape == (1, DIM)


def test_each_kind_of_text_gets_its_prompt(endpoint: ScriptedEndpoint) -> None:
    made = embedder(endpoint, query_prompt="query: ", document_prompt="passage: ")
    made.encode(["iron"], "query")
    made.encode(["iron"], "document")
    assert [each["input"] for each in endpoint.requests] == [["query: iron"], ["passage: iron"]]


def test_vectors_are_of_unit_length_unless_they_are_compared_by_the_dot_product(endpoint: ScriptedEndpoint) -> None:
    texts = [" ".join(f"{letter}{n}" for n in range(40)) for letter in "ab"]
    whole, unit = embedder(endpoint), embedder(endpoint, normalise=True)
    kept = embedder(endpoint, normalise=True, dim=16)
    np.testing.assert_allclose(np.linalg.norm(unit.encode(texts, "query"), axis=1), 1, atol=1e-6)
    assert (np.linalg.norm(whole.encode(texts, "query"), axis=1) > 1.01).all()
    short = kept.encode(texts, "query")
    assert short.shape == (2, 16) and kept.dim == 16
    first = whole.encode(texts, "query")[:, :16]
    np.testing.assert_allclose(short, first / np.linalg.norm(first, axis=1, keepdims=True), atol=1e-6)


def test_the_fingerprint_names_all_that_the_vectors_follow_from(endpoint: ScriptedEndpoint) -> None:
    changes: list[dict[str, Any]] = [
        {}, {"model": "other"}, {"revision": "r2"}, {"dimensions": 32}, {"dim": 16}, {"query_prompt": "q: "},
        {"document_prompt": "d: "}, {"normalise": True}, {"api": "tei"},
    ]  # fmt: skip
    prints = [embedder(endpoint, **each).fingerprint for each in changes]
    assert len(set(prints)) == len(prints)
    assert prints[0].startswith("m@r1+endpoint-") and dim_of(prints[0]) == DIM and dim_of(prints[4]) == 16
    assert embedder(endpoint, texts=1).fingerprint == prints[0], "how many at once changes no vector"


@pytest.mark.parametrize(
    "refusal",
    [
        (413, {"error": "batch size 9 > maximum allowed batch size 4", "error_type": "Validation"}),
        (400, {"error": {"message": "too many inputs", "type": "invalid_request_error", "param": "input"}}),
        (422, {"detail": "no reason that anybody knows"}),
    ],
)
def test_a_batch_that_the_endpoint_does_not_take_is_asked_again_in_halves(
    endpoint: ScriptedEndpoint, refusal: tuple[int, object]
) -> None:
    endpoint.default = taking(2, *refusal)
    endpoint.script(openai)  # it answers others
    made = embedder(endpoint, texts=9)
    made.encode(["iron"], "query")
    np.testing.assert_array_equal(made.encode(TEXTS[:9], "query"), HashEmbedder().encode(TEXTS[:9], "query"))
    assert {len(each["input"]) for each in endpoint.requests} == {9, 5, 4, 3, 2, 1}


def test_one_text_that_is_too_long_is_cut_until_the_endpoint_reads_it(
    endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    def picky(handler: BaseHTTPRequestHandler) -> None:
        too_long = {"error": {"code": "context_length_exceeded", "message": "maximum context length is 8 tokens"}}
        fits = max(map(len, texts_of(handler))) <= 20
        (openai if fits else answer(400, too_long))(handler)

    endpoint.default = picky
    long = "iron and light and water and more of all of these"
    found = embedder(endpoint).encode(["water", long, "iron"], "document")
    cut = long[: len(long) // 2]
    cut = cut if len(cut) <= 20 else cut[: len(cut) // 2]
    np.testing.assert_array_equal(found, HashEmbedder().encode(["water", cut, "iron"], "document"))
    assert "longer than the endpoint reads" in caplog.text


def test_a_text_that_a_filter_refuses_is_an_error_that_does_not_show_the_text(endpoint: ScriptedEndpoint) -> None:
    def filtered(handler: BaseHTTPRequestHandler) -> None:
        refused = {"error": {"code": "content_filter", "message": "refused: forbidden"}}
        (answer(400, refused) if "forbidden" in handler.asked else openai)(handler)  # type: ignore[attr-defined]

    endpoint.default = filtered
    with pytest.raises(ContentFiltered) as failed:
        embedder(endpoint).encode(["iron", "forbidden", "light"], "query")
    assert "forbidden" not in str(failed.value)


def rows(*embeddings: object) -> dict[str, object]:
    return {"data": [{"index": n, "embedding": each} for n, each in enumerate(embeddings)]}


GOOD = [1.0] * DIM
NO_ANSWERS: dict[str, tuple[Answer, type[QrelayError]]] = {
    "a server error": (answer(503, "busy"), BackendUnavailable),
    "no JSON": (answer(200, b"<html>"), BackendUnavailable),
    "no data": (answer(200, {"object": "list"}), BackendUnavailable),
    "too few": (answer(200, rows(GOOD)), BackendUnavailable),
    "too many": (answer(200, rows(GOOD, GOOD, GOOD)), BackendUnavailable),
    "one index twice": (
        answer(200, {"data": [{"index": 0, "embedding": GOOD}, {"index": 0, "embedding": GOOD}]}),
        BackendUnavailable,
    ),
    "no list": (answer(200, rows(GOOD, "abc")), BackendUnavailable),
    "a word": (answer(200, rows(GOOD, ["one", *GOOD[1:]])), BackendUnavailable),
    "a list in a vector": (answer(200, rows(GOOD, [[1.0], *GOOD[1:]])), BackendUnavailable),
    "nothing in a vector": (answer(200, rows(GOOD, [None, *GOOD[1:]])), BackendUnavailable),
    "no number": (answer(200, rows(GOOD, [math.nan, *GOOD[1:]])), BackendUnavailable),
    "infinite": (answer(200, rows(GOOD, [math.inf, *GOOD[1:]])), BackendUnavailable),
    "larger than float32": (answer(200, rows(GOOD, [1e300, *GOOD[1:]])), BackendUnavailable),
    "hangs up": (hang_up, BackendUnavailable),
    "too large a body": (answer(200, rows(GOOD, GOOD) | {"more": "x" * 70_000}), BackendUnavailable),
    "a bomb": (packed(10**7), BackendUnavailable),
    "a body without an end": (endless(b"x" * 1000), BackendUnavailable),
    "the key": (answer(401, {"error": {"message": f"bad key {KEY}"}}), EndpointRefuses),
    "no such model": (answer(404, {"error": {"code": "model_not_found"}}), EndpointRefuses),
    "a quota": (answer(429, {"error": {"code": "insufficient_quota"}}), EndpointRefuses),
    "vectors of another size": (answer(200, rows(GOOD[1:], GOOD[1:])), EndpointRefuses),
}


@pytest.mark.parametrize("case", NO_ANSWERS)
def test_what_is_no_answer_is_an_error_after_retries_and_shows_no_key(endpoint: ScriptedEndpoint, case: str) -> None:
    endpoint.default, kind = NO_ANSWERS[case]
    made = embedder(endpoint, limits=Limits(LONG_S, max_reply_bytes=64_000))
    with pytest.raises(kind) as failed:
        made.encode(["iron", "light"], "query")
    assert KEY not in str(failed.value)
    assert len(endpoint.requests) == (3 if kind is BackendUnavailable else 1)


def test_another_size_names_the_setting_to_correct(endpoint: ScriptedEndpoint) -> None:
    made = embedder(endpoint, dimensions=32)
    with pytest.raises(EndpointRefuses, match=rf"vectors of {DIM} dimensions, {SECTION}.dimensions is 32"):
        made.encode(["iron"], "query")


def test_silence_is_a_timeout(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = endpoint.silence
    made = embedder(endpoint, Policy(max_retries=0), Limits(0.05))
    with pytest.raises(BackendTimeout, match=rf"{SECTION}.request_timeout_s"):
        made.encode(["iron"], "query")


def test_a_passing_failure_is_tried_again_and_a_short_pause_waited_out(endpoint: ScriptedEndpoint) -> None:
    endpoint.script(answer(503, "busy"), answer(429, "slow down", {"Retry-After": "0.01"}))
    np.testing.assert_array_equal(
        embedder(endpoint).encode(["iron"], "query"), HashEmbedder().encode(["iron"], "query")
    )
    assert len(endpoint.requests) == 3


def test_a_long_pause_is_told_at_once_and_noted(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = answer(429, "come back", {"Retry-After": "1000"})
    made = embedder(endpoint, Policy(max_retries=1, total_timeout_s=5))
    with pytest.raises(EndpointPaused, match="retry-after: 1000"):
        made.encode(["iron"], "query")
    assert "retry-after: 1000" in made.notes["paused"]


def test_another_model_than_before_is_no_answer(endpoint: ScriptedEndpoint) -> None:
    made = embedder(endpoint)
    made.encode(["iron"], "query")
    endpoint.default = answer(200, {"model": "another", **rows(GOOD)})
    with pytest.raises(BackendUnavailable, match=rf"now answers as 'another', .*{SECTION}.revision"):
        made.encode(["iron"], "query")


def test_threads_ask_side_by_side(endpoint: ScriptedEndpoint) -> None:
    made, both = embedder(endpoint), threading.Barrier(2)

    def together(handler: BaseHTTPRequestHandler) -> None:
        both.wait(LONG_S)
        openai(handler)

    endpoint.default = together
    found: dict[str, Any] = {}
    callers = [
        threading.Thread(target=lambda text=text: found.update({text: made.encode([text], "query")}))  # type: ignore[misc]
        for text in ("iron", "light")
    ]
    for each in callers:
        each.start()
    for each in callers:
        each.join()
    assert sorted(found) == ["iron", "light"]


def test_passages_are_cut_by_words() -> None:
    with ScriptedEndpoint() as endpoint:
        made = embedder(endpoint)
        text = " ".join(f"word{n}" for n in range(100))
        windows = made.windows(text, 40, 20)
        assert windows[0] == " ".join(f"word{n}" for n in range(30))
        assert windows[1].startswith("word15 ") and windows[-1].endswith("word99")
        assert made.unknown([text]) == (100, 0)
        assert endpoint.requests == []


def settings(endpoint: ScriptedEndpoint, folder: Path, **own: Any) -> RetrieverSettings:
    asked = {
        "url": endpoint.url, "model": "m", "dimensions": DIM, "normalise": False, "max_retries": 0,
        "retry_refused_s": 1e-9, **own,
    }  # fmt: skip
    return RetrieverSettings(
        embedder="endpoint", index_dir=folder / "index", registry_poll_s=0, embedder_endpoint=asked
    )


@pytest.fixture
def built(endpoint: ScriptedEndpoint, tmp_path: Path) -> RetrieverSettings:
    """An index whose passages the endpoint embedded."""
    source = write_jsonl(tmp_path / "c.jsonl", made_up(40))
    made = settings(endpoint, tmp_path)
    build_index(BuildRequest(str(source), "tiny", tmp_path / "index"), loader(made)("endpoint"), print)
    return made


def test_an_index_is_built_and_served_by_an_endpoint_as_by_the_model_itself(
    built: RetrieverSettings, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    source = tmp_path / "c.jsonl"
    build_index(BuildRequest(str(source), "tiny", tmp_path / "own"), HashEmbedder(), print)
    ours = load_retriever(built)
    theirs = load_retriever(RetrieverSettings(embedder="hash", index_dir=tmp_path / "own", registry_poll_s=0))
    queries = [Query(f"q{n}", f"word{n} word{n + 1}", "tiny") for n in range(5)]
    for one, other in zip(ours.retrieve(queries), theirs.retrieve(queries), strict=True):
        assert isinstance(one, CandidateSet) and isinstance(other, CandidateSet)
        assert one.candidates == other.candidates
        assert one.trace[-1].model == ours.fingerprint
    assert ours.fingerprint.startswith(f"m@{endpoint.url}+endpoint-")


def test_a_query_that_the_endpoint_refuses_is_its_own_error_and_the_others_are_answered(
    built: RetrieverSettings, endpoint: ScriptedEndpoint
) -> None:
    retriever = load_retriever(built)

    def filtered(handler: BaseHTTPRequestHandler) -> None:
        refused = {"error": {"code": "content_filter"}}
        (answer(400, refused) if "word3" in texts_of(handler) else openai)(handler)

    endpoint.default = filtered
    found = retriever.retrieve(
        [Query("a", "word1", "tiny"), Query("b", "word3", "tiny"), Query("c", "word2", "tiny")]
    )
    assert [type(each) for each in found] == [CandidateSet, ContentFiltered, CandidateSet]


def test_an_endpoint_that_is_away_is_an_error_of_each_query_and_service_goes_on_when_it_is_back(
    built: RetrieverSettings, endpoint: ScriptedEndpoint
) -> None:
    endpoint.default = answer(503, "busy")
    retriever = load_retriever(built)  # which asks nothing yet
    found = retriever.retrieve([Query("a", "word1", "tiny"), Query("b", "word2", "tiny")])
    assert all(isinstance(each, BackendUnavailable) for each in found)
    endpoint.default = answer(401, {"error": {"code": "invalid_api_key"}})
    assert isinstance(retriever.retrieve([Query("a", "word1", "tiny")])[0], EndpointRefuses)
    endpoint.default = openai
    assert isinstance(retriever.retrieve([Query("a", "word1", "tiny")])[0], CandidateSet)


def test_getinfo_says_what_the_endpoint_asks_for(
    endpoint: ScriptedEndpoint, built: RetrieverSettings, tmp_path: Path
) -> None:
    retriever = load_retriever(settings(endpoint, tmp_path, retry_refused_s=1000))
    endpoint.default = answer(401, {"error": {"code": "invalid_api_key"}})
    assert isinstance(retriever.retrieve([Query("a", "word1", "tiny")])[0], EndpointRefuses)
    assert "retriever.embedder_endpoint.api_key_env" in retriever.info().details["embedder: refuses"]


def test_settings_that_are_not_whole_are_refused_together() -> None:
    with pytest.raises(ValidationError) as failed:
        RetrieverSettings(embedder="endpoint", embedder_endpoint={"url": "https://me:secret@host/v1"})
    said = str(failed.value)
    assert all(each in said for each in ("holds credentials", "model is empty", "dimensions is 0"))
    with pytest.raises(ValidationError, match=r"embedder_dim \(65\) exceeds"):
        RetrieverSettings(
            embedder="endpoint",
            embedder_dim=65,
            embedder_endpoint={"url": "https://h/v1", "model": "m", "dimensions": 64},
        )


def test_an_address_with_credentials_reaches_no_fingerprint() -> None:
    asked = {"url": "https://me:secret@host/v1", "model": "m", "dimensions": 2}
    with pytest.raises(ConfigError, match="holds credentials"):
        loader(RetrieverSettings(embedder_endpoint=asked))("endpoint")


def test_a_key_that_is_not_set_is_named(endpoint: ScriptedEndpoint, tmp_path: Path) -> None:
    made = settings(endpoint, tmp_path, api_key_env="NO_SUCH_KEY")
    with pytest.raises(ConfigError, match=r"retriever.embedder_endpoint.api_key_env names NO_SUCH_KEY"):
        loader(made)("endpoint")

"""A search engine's double: a real HTTP server that answers as OpenSearch does, over documents in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from qrelay.index.http.engine import HttpEngine, HttpVersions
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import load_embedder
from qrelay.models.registry import Registry
from qrelay.models.served import Embedders
from tests.conftest import LONG_S
from tests.llm.endpoint import Answer, ScriptedEndpoint, answer

Documents = Sequence[Mapping[str, Any]]


def answering(documents: Documents) -> Answer:
    """Of every document, how many of the question's words it has: the most first, ties by id; the page asked for."""
    words = {str(each["_id"]): {*f"{each['title']} {each['text']}".split()} for each in documents}
    sources = {str(each["_id"]): {"title": each["title"], "text": each["text"]} for each in documents}

    def send(handler: BaseHTTPRequestHandler) -> None:
        asked = json.loads(getattr(handler, "asked", "{}"))
        question = {*asked["query"]["multi_match"]["query"].split()}
        scores = {name: len(question & own) for name, own in words.items()}
        order = sorted(scores, key=lambda name: (-scores[name], name))[asked["from"] :][: asked["size"]]
        page([hit(name, scores[name], sources[name]) for name in order])(handler)

    return send


def hit(name: str, score: float | None = 1.0, source: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A hit as OpenSearch has it."""
    return {"_id": name, "_score": score, "_source": source or {"title": "", "text": f"text of {name}"}}


def page(hits: Sequence[Mapping[str, Any]], **more: Any) -> Answer:
    """An answer with these hits."""
    return answer(200, {"timed_out": False, "_shards": {"failed": 0}, "hits": {"hits": hits}, **more})


@contextmanager
def serving(endpoint: ScriptedEndpoint, **http: Any) -> Iterator[HttpVersions]:
    """The engine over this double: hasty, and with `http` as its settings."""
    hasty = {"retry_base_s": 0.001, "max_retries": 2, "request_timeout_s": LONG_S, "total_timeout_s": LONG_S}
    own = {"preset": "opensearch", "url": endpoint.address, **hasty, "retry_refused_s": 1e-9, **http}
    settings = RetrieverSettings.model_validate(
        {"engine": "http", "collections": ["docs"], "http": own, "embedder": "hash"}
    )
    embedders = Embedders("hash", Registry(settings.registry_folder), load_embedder)
    versions = HttpVersions(settings, embedders)
    try:
        yield versions
    finally:
        versions.close()


@contextmanager
def engine(endpoint: ScriptedEndpoint, **http: Any) -> Iterator[HttpEngine]:
    """The same, of the collection docs."""
    with serving(endpoint, **http) as versions:
        yield versions.open("docs")

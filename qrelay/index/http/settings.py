"""The engine `http`'s settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from qrelay.http.settings import HttpSettings
from qrelay.index.http.presets import PRESETS, Preset, Search
from qrelay.index.http.template import placeholders

_PART = "empty: the preset's"


class SearchSettings(HttpSettings):
    """The engine `http`: any search over REST."""

    preset: Preset = Field(
        "", description="opensearch, elasticsearch, vespa or qdrant: what is not set here; or none"
    )
    path: str = Field("", description=f"Of a search, {{collection}} in it: /{{collection}}/_search; {_PART}")
    method: Literal["POST", "GET"] = Field("POST", description="GET: the request's fields are the address's query")
    headers: dict[str, str] = Field({}, description="Added to every request; credentials belong into auth")
    request: Any = Field(
        None,
        description="Template of the request, JSON whose texts hold {query}, {size}, {from}, {collection}, {vector} "
        f"(of retriever.embedder); {_PART}",
    )
    hits: str = Field("", description=f"Where an answer has the list of hits, a dotted path: hits.hits; {_PART}")
    id: str = Field("", description=f"Where a hit has its id; {_PART}")
    doc_id: str = Field(
        "", description="Where a hit that is a passage has its document's id; empty: see docs/retrieval.md"
    )
    title: str = Field("", description=f"Where a hit has its title; {_PART}")
    text: str = Field("", description=f"Where a hit has its text; {_PART}")
    score: str = Field("", description=f"Where a hit has its score; {_PART}")
    metadata: str = Field("", description=f"Where a hit has its metadata, an object; {_PART}")
    faults: tuple[str, ...] | None = Field(
        None, description=f"What is there, and not false, 0 or empty, where an answer is not whole; {_PART}"
    )
    system: str = Field("", description="The system's name beside its scores and ranks; empty: the preset, else http")
    names: dict[str, str] = Field({}, description="What the engine calls a collection, where it is another name")
    max_reply_bytes: int = Field(
        32 * 1024**2, ge=1024, description="Maximum bytes of one page, unpacked; of a longer one the rest is not read"
    )
    page_size: int = Field(100, ge=1, le=10_000, description="Hits asked for at once; more are asked for in pages")
    auth: Literal["", "bearer", "basic", "api-key"] = Field("", description="How the engine is told who asks")
    key_header: str = Field("", description=f"With api-key: the header of the key; empty: Authorization; {_PART}")
    api_key_env: str = Field("", description="With auth: variable with the token, the key, or user:password")
    api_key_file: Path | None = Field(None, description="File with the same, instead")

    @property
    def search(self) -> Search:
        """The preset's search with what is set here."""
        preset = PRESETS[self.preset]
        names = ("path", "hits", "id", "doc_id", "title", "text", "score", "metadata", "key_header")
        changed = {name: getattr(self, name) or getattr(preset, name) for name in names}
        request = preset.request if self.request is None else self.request
        faults = preset.faults if self.faults is None else self.faults
        return Search(request=request, faults=faults, **changed)

    @property
    def wants_vectors(self) -> bool:
        """Whether its requests hold the query's vector."""
        return "vector" in placeholders(self.search.request)

    @property
    def system_name(self) -> str:
        """What scores and ranks are told under."""
        return self.system or self.preset or "http"

    def own_problems(self, collections: Sequence[str]) -> Iterator[str]:
        """What does not hold, each with what to do. collections: those that the retriever is to serve."""
        yield from self.problems("http", "engine http")
        request = self.search.request
        if not collections:
            yield "engine http needs collections: the names to serve, [docs]"
        if not isinstance(request, dict):
            yield "http.request must be an object, the template of a request; or set http.preset"
        elif not {"query", "vector"} & placeholders(request):
            yield "http.request holds neither {query} nor {vector}: every query would get the same answer"
        elif not {"from", "size"} & placeholders(request):
            yield "http.request holds neither {size} nor {from}: an engine's own limit would cut every answer"
        if self.method == "GET" and not _flat(request):
            yield "http.request is nested or holds {vector}, which an address cannot: use http.method POST"
        if self.system_name.split() != [self.system_name]:
            yield f"http.system {self.system_name!r} must be one word, which a run's tag can be"
        if bool(self.auth) != bool(self.api_key_env or self.api_key_file):
            yield "http.auth (bearer, basic, api-key) and http.api_key_env or http.api_key_file go together"


def _flat(request: Any) -> bool:
    """Whether every field is one value."""
    values = request.values() if isinstance(request, dict) else ()
    return "vector" not in placeholders(request) and not any(isinstance(each, dict | list) for each in values)

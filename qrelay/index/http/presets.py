"""What is ready-made for common engines: request, answer and credentials. Every part may be set otherwise.

| preset | documentation |
|---|---|
| opensearch, elasticsearch | `_search`: https://docs.opensearch.org/latest/api-reference/search-apis/search/ |
| vespa | Query API: https://docs.vespa.ai/en/reference/query-api-reference.html |
| qdrant | Query points: https://api.qdrant.tech/api-reference/search/query-points |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

Preset = Literal["", "opensearch", "elasticsearch", "vespa", "qdrant"]


@dataclass(frozen=True, slots=True)
class Search:
    """One search of an engine. path, request: templates, see `template.py`. hits: where its answer has the list; the
    others: where a hit has what they name. faults: what an answer that is whole lacks, or has as nothing. key_header:
    where a key goes; "": as `Authorization: ApiKey`."""

    path: str = ""
    request: Any = None
    hits: str = "hits"
    id: str = "id"
    doc_id: str = ""
    title: str = "title"
    text: str = "text"
    score: str = "score"
    faults: tuple[str, ...] = ()
    key_header: str = ""
    metadata: str = "metadata"
    """The last, which no version covers: it moves no candidate, and labels' keys cover what is read of it."""


_SEARCH: Final = Search(
    path="/{collection}/_search",
    request={
        "query": {"multi_match": {"query": "{query}", "fields": ["title", "text"]}},
        "size": "{size}",
        "from": "{from}",
    },
    hits="hits.hits",
    id="_id",
    title="_source.title",
    text="_source.text",
    score="_score",
    metadata="_source.metadata",
    faults=("timed_out", "_shards.failed"),
)
PRESETS: Final[dict[Preset, Search]] = {
    "": Search(),
    "opensearch": _SEARCH,
    "elasticsearch": _SEARCH,
    "vespa": Search(
        path="/search/",
        request={
            "yql": "select * from sources {collection} where userQuery()",
            "query": "{query}",
            "hits": "{size}",
            "offset": "{from}",
        },
        hits="root.children",
        title="fields.title",
        text="fields.text",
        metadata="fields.metadata",
        score="relevance",
        faults=("root.errors",),
    ),
    "qdrant": Search(
        path="/collections/{collection}/points/query",
        request={"query": "{vector}", "limit": "{size}", "offset": "{from}", "with_payload": True},
        hits="result.points",
        title="payload.title",
        text="payload.text",
        metadata="payload.metadata",
        key_header="api-key",
    ),
}

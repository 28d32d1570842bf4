"""Every operation of the API, once. Routes, the OpenAPI document and MCP's tools are made of this table."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

from pydantic import BaseModel, TypeAdapter, ValidationError

from qrelay.errors import MalformedInput, Oversized
from qrelay.web.api import calls, compatible, exporting, feeding, ledger, models
from qrelay.web.security import Action, Person
from qrelay.web.site import Site

_FIELDS: Final = 1_000_000
"""Of one body, as over gRPC (`runtime/intake.py`): a value of two bytes takes dozens when it is parsed."""
_SHOWN: Final = 5
"""Problems of one body that are told."""


@dataclass(frozen=True)
class Operation:
    """answer: what a success answers, None: bytes of `media`. tool: whether MCP has it. writes: whether it changes
    anything."""

    method: str
    path: str
    call: Callable[[Site, Person, Any], Awaitable[Any]]
    action: Action
    request: type[BaseModel]
    answer: Any
    tool: bool = False
    writes: bool = False
    media: tuple[str, ...] = ("application/json",)

    @property
    def name(self) -> str:
        """Of the operation, and of the tool."""
        return self.call.__name__

    @property
    def said(self) -> str:
        """What it does, in one paragraph."""
        return " ".join((self.call.__doc__ or "").split())

    @cached_property
    def answers(self) -> TypeAdapter[Any]:
        """Of the answer's type."""
        return TypeAdapter(self.answer)

    def read(self, body: bytes) -> Any:
        """The request in a JSON body. Raises MalformedInput, Oversized."""
        if body.count(b",") + body.count(b"{") + body.count(b"[") > _FIELDS:
            raise Oversized(f"a body of more than {_FIELDS} values: send less in one request")
        with _telling():
            return self.request.model_validate_json(body)

    def taken(self, values: dict[str, Any]) -> Any:
        """The request in a URL's parameters, or a tool's arguments. Raises MalformedInput."""
        with _telling():
            return self.request.model_validate(values)

    def shown(self, answer: Any, limit: int) -> bytes:
        """The answer as JSON, of `limit` bytes at most. Raises Oversized."""
        sparse = self.request is compatible.TeiRerankRequest
        found = self.answers.dump_json(answer, by_alias=True, exclude_none=sparse)
        if len(found) > limit:
            raise Oversized(f"answer of {len(found)} bytes; grpc.max_message_bytes is {limit}: ask for less at once")
        return found


@contextmanager
def _telling() -> Iterator[None]:
    """What pydantic finds, as one MalformedInput that names each field."""
    try:
        yield
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        told = [f"{'.'.join(map(str, each['loc'])) or 'the body'}: {each['msg']}" for each in found[:_SHOWN]]
        more = f"; and {len(found) - _SHOWN} problems more" if len(found) > _SHOWN else ""
        raise MalformedInput("; ".join(told)[:2000] + more) from None


OPERATIONS: Final = (
    Operation("POST", "/v1/retrieve", calls.retrieve, Action.CALL, models.RetrieveRequest, models.CandidateSet, True),
    Operation("POST", "/v1/rerank", calls.rerank, Action.CALL, models.RerankRequest, models.CandidateSet, True),
    Operation("POST", "/v1/judge", calls.judge, Action.JUDGE, models.JudgeRequest, models.JudgedSet, True),
    Operation("POST", "/v1/feed", feeding.feed, Action.FEED, models.FeedRequest, models.Fed, writes=True),
    Operation("GET", "/v1/labels", ledger.labels, Action.READ, models.LabelsRequest, models.Labels, True),
    Operation("POST", "/v1/labels", ledger.decide, Action.LABEL, models.DecideRequest, models.Decided, writes=True),
    Operation("GET", "/v1/queries", ledger.queries, Action.READ, models.QueriesRequest, models.Queries, True),
    Operation("GET", "/v1/stats", ledger.stats, Action.READ, models.StatsRequest, models.StatsAnswer, True),
    Operation(
        "GET", "/v1/export", exporting.export, Action.EXPORT, models.ExportRequest, None,
        media=("application/x-ndjson", "text/plain", "application/json"),
    ),
    Operation(
        "POST", "/embed", compatible.tei_embed, Action.CALL, compatible.TeiEmbedRequest, list[list[float]]
    ),
    Operation(
        "POST", "/rerank", compatible.tei_rerank, Action.CALL, compatible.TeiRerankRequest, list[compatible.TeiRank]
    ),
    Operation(
        "POST", "/v2/embed", compatible.cohere_embed, Action.CALL, compatible.CohereEmbedRequest,
        compatible.CohereEmbedAnswer,
    ),
    Operation(
        "POST", "/v2/rerank", compatible.cohere_rerank, Action.CALL, compatible.CohereRerankRequest,
        compatible.CohereRerankAnswer,
    ),
)  # fmt: skip

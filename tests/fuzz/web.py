"""What programs and browsers send to the console: JSON bodies, parameters of URLs, forms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request

from qrelay import wire
from qrelay.errors import InputError
from qrelay.formats.queries import query_from
from qrelay.judging.report.read import read_measured
from qrelay.judging.report.warn import plain_warnings
from qrelay.labels.browse import queries
from qrelay.labels.where import parse_where
from qrelay.security.identity import named
from qrelay.web.api import models, shapes
from qrelay.web.api.operations import OPERATIONS, Operation
from qrelay.web.console.judge.diagrams import reliability
from qrelay.web.console.queries.asked import asked
from qrelay.web.console.queries.guide import peoples_scale
from qrelay.web.console.queries.visible import exact, visible
from qrelay.web.pages import whole_number
from qrelay.web.security import refuse_foreign, refuse_forged
from tests.fuzz.parser import Parser, constant, each, file
from tests.web.reports import report

_JUDGE: Final = {
    "query": "how?",
    "collection": "docs",
    "query_id": "q1",
    "candidates": ["a text", {"text": "another", "title": "Two", "passage_id": "d#1"}],
    "reference_answers": ["so"],
}
_FEED: Final = {
    "collection": "docs",
    "round": 1,
    "queries": [{"query": "how?", "query_id": "q", "attributes": {"a": "b"}}],
}
_DECIDE: Final = {"collection": "docs", "query_id": "q1", "passage_id": "d#1", "grade": 2, "note": "so"}
_EMBED: Final = {"inputs": ["a", "b"], "normalize": True, "truncate": None}
_RERANK: Final = {"model": "m", "query": "q", "documents": ["a", "b"], "texts": ["a", "b"], "top_n": 1}
_SEEDS: Final = tuple(json.dumps(body) for body in (_JUDGE, _FEED, _DECIDE, _EMBED, _RERANK))


def _bodies(data: bytes, _: Path) -> None:
    """Every operation reads it; what one understands becomes the message that its service gets."""
    each(*(_read(operation, data) for operation in OPERATIONS if operation.method == "POST"))


def _read(operation: Operation, data: bytes) -> Callable[[], Any]:
    def read() -> Any:
        asked = operation.read(data)
        if isinstance(asked, models.JudgeRequest | models.RerankRequest):
            wire.to_proto(shapes.candidate_set(asked, asked.candidates))
        if isinstance(asked, models.FeedRequest):
            for query in asked.queries:
                query_from({**query.model_dump(exclude={"query"}), "text": query.query}, asked.collection)

    return read


def _parameters(data: bytes, _: Path) -> None:
    values = dict(parse_qsl(data.decode("utf8", "replace"), keep_blank_values=True))
    operations = [operation for operation in OPERATIONS if operation.method == "GET"]
    each(*(lambda operation=operation: operation.taken(values) for operation in operations))
    parse_where(values.get("where", ""))


def _form(data: bytes, _: Path) -> None:
    """Headers, an empty line, a form: refused in words, and only so."""
    head, _empty, body = data.partition(b"\n\n")
    headers = [(name.lower().strip(), value.strip()) for name, _colon, value in
               (line.partition(b":") for line in head.split(b"\n"))]  # fmt: skip
    connection = HTTPConnection({"type": "http", "method": "POST", "path": "/", "headers": headers})
    try:
        refuse_foreign("POST", connection.headers)
        refuse_forged("POST", connection, body)
        named(connection.cookies.get("qrelay_person", ""))
    except HTTPException as error:
        raise InputError(error.detail) from error


def _address(data: bytes, _: Path) -> None:
    """A page's address: what it asks for, and its place in a list."""
    request = Request({"type": "http", "method": "GET", "path": "/queries", "headers": [], "query_string": data})
    given = request.query_params
    each(
        lambda: asked(request).query(given.get("of", ""), given.get("id", "")),
        lambda: queries.place_in(given.get("at", ""), given.get("sort", "id")),
        lambda: whole_number(given.get("n", ""), "n"),
        lambda: peoples_scale(given.get("scale", ""), "", ()),
        lambda: visible(exact(given.get("search", ""))),
    )


def _report(path: Path) -> None:
    """A report on judges, as far as its page computes with it."""
    found = read_measured(path)
    shown = found.model_dump()
    for name, system in found.systems.items():
        reliability(system.reliability)
        plain_warnings({**shown, "data": shown}, name)


_SENT: Final = (
    b"host: localhost:7405\norigin: http://localhost:7405\ncontent-type: application/x-www-form-urlencoded\n"
    b"cookie: qrelay_csrf=abc; qrelay_person=Ana%20B\n\ncsrf=abc&name=Ana"
)

_ASKED: Final = (
    "search=a+b&collection=docs&differ=0.5&sort=id&missing=1&round=1&graded=yes&blind=1&scale=0-3&of=docs&id=q%231&n=3"
    "&at=WyJpZCIsZmFsc2UsImRvY3MiLCJxMSJd"
)

PARSERS: Final = (
    Parser("bodies over HTTP", "json", constant(*_SEEDS), _bodies),
    Parser("parameters over HTTP", "bytes", constant("collection=docs&page_size=3&where=grade%3E%3D2"), _parameters),
    Parser("forms over HTTP", "bytes", constant(_SENT), _form),
    Parser("addresses of pages", "bytes", constant(_ASKED), _address),
    Parser("report on judges", "json", constant(json.dumps(report())), file("report.json", _report)),
)

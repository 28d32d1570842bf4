"""One query whole, or blind; and a passage's whole text."""

from __future__ import annotations

from typing import Any, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from qrelay.labels.browse import queries
from qrelay.labels.browse.one import Whole, latest_scale, whole
from qrelay.web.console.queries.asked import Asked, asked
from qrelay.web.console.queries.guide import guide, peoples_scale
from qrelay.web.console.queries.shown import cards
from qrelay.web.pages import render
from qrelay.web.routes import route
from qrelay.web.site import site_of

TEMPLATE: Final = "queries/one.html"


def query(request: Request) -> Response:
    """The page of one query."""
    wants = asked(request)
    return render(request, TEMPLATE, **values(request, wants, *_named(request)))


def values(request: Request, wants: Asked, collection: str, query_id: str) -> dict[str, Any]:
    """What the page's template asks for. Raises HTTPException: there is no such query."""
    site, person = site_of(request), request.state.person.name
    with site.ledger().snapshot() as snapshot:
        row = queries.row_of(snapshot.connection, collection, query_id)
        view = whole(snapshot, collection, query_id, site.sink.rules) if row else None
        if row is None or view is None:
            raise _absent(collection, query_id)
        before, after = queries.beside(snapshot.connection, wants.wanted, row)
        decided = latest_scale(snapshot.connection, collection)
    scale = peoples_scale(wants.scale, decided, _scales(view))
    shown = cards(view, person, blind=wants.blind)
    return {
        "asked": wants, "row": row, "view": view, "cards": shown, "before": before, "after": after,
        "guide": guide(site, scale), "here": wants.query(collection, query_id),
        "graded": sum(card.mine is not None for card in shown),
    }  # fmt: skip


def text(request: Request) -> Response:
    """A passage's whole text, as text."""
    collection, query_id = _named(request)
    wanted = request.query_params.get("passage", "")
    with site_of(request).ledger().snapshot() as snapshot:
        record = snapshot.judged_set(collection, query_id)
    for candidate in record.candidate_set.candidates if record else ():
        if candidate.passage.passage_id == wanted:
            return PlainTextResponse(f"{candidate.passage.title}\n\n{candidate.passage.text}")
    raise _absent(collection, query_id, f" with a passage {wanted[:80]!r}")


def _named(request: Request) -> tuple[str, str]:
    given = request.query_params
    return given.get("of", ""), given.get("id", "")


def _absent(collection: str, query_id: str, more: str = "") -> HTTPException:
    return HTTPException(404, f"the ledger holds no query {query_id[:80]!r} of collection {collection[:80]!r}{more}")


def _scales(view: Whole) -> list[str]:
    """The scales of the judges whose labels the query has, that count first."""
    return [given.judge.identity.scale for shown in view.passages for given in shown.labels]


ROUTES = [route("/query", query), route("/query/text", text)]

"""The list of queries, or of dead letters."""

from __future__ import annotations

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from qrelay.labels.browse import letters, queries
from qrelay.labels.browse.choices import choices
from qrelay.labels.ledger.reader import Snapshot
from qrelay.web.console.queries.asked import Asked, asked
from qrelay.web.pages import render
from qrelay.web.routes import route
from qrelay.web.site import site_of

PAGE: Final = 50
SORTS: Final = {
    "id": "collection and id",
    "newest": "newest first",
    "disagreement": "judges differ most",
    "uncertainty": "least certain",
    "apart": "people and judges differ most",
    "missing": "most missing labels",
    "graded": "most graded by people",
}


def listing(request: Request) -> Response:
    """Queries by search, filters and order, a page at a time."""
    wants, at = asked(request), request.query_params.get("at", "")
    with site_of(request).ledger().snapshot() as snapshot:
        found = _letters(snapshot, wants, at) if wants.dead else _queries(snapshot, wants, at)
        known = choices(snapshot)
    return render(request, "queries/list.html", asked=wants, wanted=wants.wanted, choices=known, sorts=SORTS, **found)


def _queries(snapshot: Snapshot, wants: Asked, at: str) -> dict[str, Any]:
    page = queries.listed(snapshot.connection, wants.wanted, size=PAGE, token=at)
    count = queries.counted(snapshot.connection, wants.wanted)
    return {"rows": page.rows, "letters": (), "count": count, "next": page.next, "before": page.before}


def _letters(snapshot: Snapshot, wants: Asked, at: str) -> dict[str, Any]:
    of = wants.wanted.collection, wants.wanted.search
    rows, following = letters.listed(snapshot.connection, *of, size=PAGE, token=at)
    count = letters.counted(snapshot.connection, *of)
    return {"rows": (), "letters": rows, "count": count, "next": following, "before": ""}


ROUTES = [route("/queries", listing)]

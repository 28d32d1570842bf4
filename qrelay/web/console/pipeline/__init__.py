"""What flows, waits, fails and costs, live; and dead letters, which can be sent again from here.

The table and its figures are one part of the page (`pipeline/now.html`), which is rendered for the page and again for
each event of its stream, so both are the same, and without its script the page shows the moment it was loaded.
"""

from __future__ import annotations

from typing import Any, Final

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute

from qrelay.errors import InputError
from qrelay.labels.browse import letters
from qrelay.v1 import sink_pb2
from qrelay.web.events import events
from qrelay.web.pages import form, part, render
from qrelay.web.routes import route
from qrelay.web.security import Action
from qrelay.web.site import Site, site_of

PAGE: Final = 20
_NOW: Final = "pipeline/now.html"


async def pipeline(request: Request) -> Response:
    """Everything at this moment, and the dead letters that wait."""
    site, given = site_of(request), request.query_params
    waiting = await site.reading.run(_waiting, site, given.get("at", ""))
    answer = {name: given[name][:9] for name in ("replayed", "left") if given.get(name, "").isdecimal()}
    return render(request, "pipeline/page.html", **await _now(site), **waiting, answer=answer)


async def pipeline_events(request: Request) -> Response:
    """The part of the page that changes, each time that it has."""
    site = site_of(request)

    async def look() -> dict[str, str]:
        return {"html": part(_NOW, **await _now(site))}

    return events(request, look)


async def pipeline_replay(request: Request) -> Response:
    """Sends dead letters again, as `qrelay dlq replay` does."""
    asked = sink_pb2.ReplayDeadLettersRequest(**_named(await form(request)))
    answer = await site_of(request).call("sink", "ReplayDeadLetters", asked)
    return RedirectResponse(f"/pipeline?replayed={answer.replayed}&left={len(answer.skipped_ids)}", 303)


def _named(fields: FormData) -> dict[str, Any]:
    """Raises InputError: the form names neither a dead letter nor all of them."""
    if fields.get("all"):
        return {"all": True}
    if not fields.get("id"):
        raise InputError("no dead letter is named: load the page again")
    return {"dead_letter_ids": [str(fields["id"])]}


async def _now(site: Site) -> dict[str, Any]:
    open_letters = await site.reading.run(_counted, site)
    return {"state": await site.overview.state(), "open_letters": open_letters}


def _counted(site: Site) -> int:
    with site.ledger().snapshot() as snapshot:
        return letters.counted(snapshot.connection)


def _waiting(site: Site, at: str) -> dict[str, Any]:
    with site.ledger().snapshot() as snapshot:
        rows, following = letters.listed(snapshot.connection, size=PAGE, token=at)
    return {"letters": rows, "next": following}


ROUTES: list[BaseRoute] = [
    route("/pipeline", pipeline),
    route("/pipeline/events", pipeline_events),
    route("/pipeline/replay", pipeline_replay, Action.OPERATE, ["POST"]),
]

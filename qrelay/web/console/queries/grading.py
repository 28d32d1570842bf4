"""A grade, and taking it back, through the same function as `qrelay label`.

A form is answered with the page that it was on. The page's script asks for the passage alone and puts it in the
place of the old one: what the screen shows as graded is on disk.
"""

from __future__ import annotations

from collections.abc import Callable

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from qrelay.errors import InputError
from qrelay.labels.deciding import decide, take_back
from qrelay.labels.ledger.overrides import NewOverride
from qrelay.web.console.queries.asked import Asked, asked
from qrelay.web.console.queries.one import values
from qrelay.web.pages import form, render, whole_number
from qrelay.web.routes import route
from qrelay.web.security import Action, decider
from qrelay.web.site import site_of

PART = "x-part"
"""The header by which the page's script asks for the passage alone."""
MAX_NOTE = 2000


async def grade(request: Request) -> Response:
    """Records a person's grade of a pair."""
    return await _answered(request, decided)


async def undo(request: Request) -> Response:
    """Takes the person's grade of a pair back."""
    return await _answered(request, taken_back)


async def _answered(request: Request, record: Callable[[Request, FormData], None]) -> Response:
    fields, site = await form(request), site_of(request)
    await site.deciding.run(record, request, fields)
    if PART not in request.headers:
        return RedirectResponse(_back(request, fields), 303)
    return await site.reading.run(_part, request, fields)


def decided(request: Request, fields: FormData) -> None:
    """Records the grade that a form says. Raises InputError: nobody is named, or a field cannot be."""
    note = _text(fields, "note")
    if len(note) > MAX_NOTE:
        raise InputError(f"a note of {len(note)} characters: {MAX_NOTE} are the most")
    person, scale = decider(request), _text(fields, "scale")
    said = NewOverride(_text(fields, "id"), _text(fields, "passage"), _whole(fields, "grade"), scale, person, note)
    decide(site_of(request).ledger(), _text(fields, "of"), said, known=_whole(fields, "known"))


def taken_back(request: Request, fields: FormData) -> None:
    """Takes back the person's grade of the pair that a form says. Raises InputError as `decided`."""
    pair = _text(fields, "of"), _text(fields, "id"), _text(fields, "passage")
    take_back(site_of(request).ledger(), *pair, decider(request))


def _back(request: Request, fields: FormData) -> str:
    number = _text(fields, "number")
    place = f"#p{number}" if number.isascii() and number.isdecimal() else ""
    return asked(request).query(_text(fields, "of"), _text(fields, "id")) + place


def _part(request: Request, fields: FormData) -> Response:
    """The passage as it is now."""
    wants: Asked = asked(request)
    found = values(request, wants, _text(fields, "of"), _text(fields, "id"))
    passage_id = _text(fields, "passage")
    card = next((each for each in found["cards"] if each.passage.passage_id == passage_id), None)
    if card is None:
        raise InputError(f"the query's page shows no passage {passage_id[:80]!r}: load it again")
    return render(request, "queries/passage.html", card=card, **found)


def _text(fields: FormData, name: str) -> str:
    return str(fields.get(name, ""))


def _whole(fields: FormData, name: str) -> int:
    return whole_number(_text(fields, name), name)


ROUTES = [
    route("/query/grade", grade, Action.LABEL, ["POST"]),
    route("/query/undo", undo, Action.LABEL, ["POST"]),
]

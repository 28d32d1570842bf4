"""Pages on queries and their labels, and where people grade.

asked.py     what an address asks for, and addresses that ask for it
listing.py   the list of queries and of dead letters
one.py       one query whole
shown.py     a passage as a page shows it: whole, or blind
guide.py     on which scale people grade, and what its grades mean
grading.py   a grade, and taking it back
people.py    progress, agreement, and people's grades as a file
samples.py   annotated pairs from a file, graded blind
visible.py   characters that hide or turn text round, made visible
"""

from __future__ import annotations

from datetime import datetime

from starlette.routing import BaseRoute

from qrelay.labels.ledger.times import moment
from qrelay.web.console.queries import grading, listing, one, people, samples
from qrelay.web.console.queries.visible import exact, visible
from qrelay.web.pages import filters


def _when(time: int | datetime) -> str:
    """A time for people; microseconds since 1970 or a moment, in UTC."""
    found = moment(time) if isinstance(time, int) else time
    return f"{found:%Y-%m-%d %H:%M} UTC"


filters().update(visible=visible, exact=exact, when=_when)
ROUTES: list[BaseRoute] = [*listing.ROUTES, *one.ROUTES, *grading.ROUTES, *people.ROUTES, *samples.ROUTES]

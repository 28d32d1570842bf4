"""Annotated pairs from a file, graded blind: what `qrelay judge slice` drew for people.

Files lie in the folder `to-grade` of data_dir. A page shows one pair, its query and its text, and nothing else before
or after the grade; grades are decisions in the ledger like any other, so exports and calibration see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from starlette.datastructures import FormData
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from qrelay.errors import InputError
from qrelay.formats.annotated_pairs import GradedPair, read_annotated_pairs
from qrelay.labels.browse.one import last_decision, latest_scale
from qrelay.labels.browse.people import grades_of
from qrelay.labels.ledger.overrides import Override
from qrelay.naming import document_of
from qrelay.types import Passage
from qrelay.web.console.queries.grading import decided, taken_back
from qrelay.web.console.queries.guide import guide, peoples_scale
from qrelay.web.console.queries.shown import CUT, Card
from qrelay.web.pages import form, render, whole_number
from qrelay.web.routes import route
from qrelay.web.security import Action
from qrelay.web.site import Site, site_of

FOLDER: Final = "to-grade"
MAX_BYTES: Final = 16 * 1024**2
MOST_FILES: Final = 100
_KEPT: Final = 2
"""Files whose pairs stay in memory: each grade asks for them twice."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A file's pairs; `mine`: the person's own grades of them; `scale`: the one that the address asks for, or ""."""

    file: str
    collection: str
    scale: str
    pairs: tuple[GradedPair, ...]
    mine: Mapping[tuple[str, str], Override]

    def address(self, path: str = "/sample", **more: Any) -> str:
        """Of one of its pages."""
        asked = {"file": self.file, "of": self.collection} | ({"scale": self.scale} if self.scale else {})
        return f"{path}?{urlencode({**asked, **more})}"

    def grade(self, number: int) -> Override | None:
        """The person's of pair `number`, from 1."""
        pair = self.pairs[number - 1]
        return self.mine.get((pair.query_id, pair.passage_id))

    @property
    def done(self) -> int:
        """Pairs that the person has graded."""
        return sum(self.grade(number) is not None for number in range(1, len(self.pairs) + 1))

    def next_after(self, number: int) -> int:
        """The next pair that the person has not graded, from the beginning again behind the end; 0: none is left."""
        order = [*range(number + 1, len(self.pairs) + 1), *range(1, number + 1)]
        return next((each for each in order if self.grade(each) is None), 0)


def samples(request: Request) -> Response:
    """The files that there are."""
    site = site_of(request)
    names = [each.collection for each in site.ledger().stats() if each.queries]
    return render(request, "queries/samples.html", files=_files(site), collections=names, folder=_folder(site))


def sample(request: Request) -> Response:
    """One pair: the one that is asked for, else the next that the person has not graded."""
    site, found = site_of(request), _sample(request)
    number = whole_number(request.query_params.get("n") or "0", "n")
    number = number if 1 <= number <= len(found.pairs) else found.next_after(0)
    with site.ledger().snapshot() as snapshot:
        known, decided_on = last_decision(snapshot.connection), latest_scale(snapshot.connection, found.collection)
    scale = peoples_scale(found.scale, decided_on, ())
    pair = found.pairs[number - 1] if number else None
    last = whole_number(request.query_params.get("last", "0"), "last")
    return render(
        request, "queries/sample.html", sample=found, number=number, pair=pair, known=known, guide=guide(site, scale),
        card=_card(pair, number, found) if pair else None,
        last=found.pairs[last - 1] if 1 <= last <= len(found.pairs) and found.grade(last) else None, last_number=last,
    )  # fmt: skip


async def grade(request: Request) -> Response:
    """Records the grade, and shows the next pair."""
    fields, site = await form(request), site_of(request)
    number = _number(fields)
    await site.deciding.run(decided, request, fields)
    found = await site.reading.run(_sample, request)
    return RedirectResponse(found.address(n=found.next_after(number), last=number), 303)


async def undo(request: Request) -> Response:
    """Takes the grade back, and shows the pair again."""
    fields, site = await form(request), site_of(request)
    number = _number(fields)
    await site.deciding.run(taken_back, request, fields)
    found = await site.reading.run(_sample, request)
    return RedirectResponse(found.address(n=number), 303)


def _number(fields: FormData) -> int:
    return whole_number(str(fields.get("number", "")), "number")


def _card(pair: GradedPair, number: int, found: Sample) -> Card:
    passage = Passage(pair.passage_id, document_of(pair.passage_id), pair.title, pair.text)
    return Card(number, passage, pair.text[:CUT], max(0, len(pair.text) - CUT), found.grade(number), hidden=True)


def _sample(request: Request) -> Sample:
    """The file and collection that the address names. Raises InputError: there is none, or it is no such file."""
    site, given = site_of(request), request.query_params
    path = next((each for each in _files(site) if each.name == given.get("file", "")), None)
    if path is None:
        raise InputError(f"no file {given.get('file', '')[:80]!r} in {_folder(site)}: `qrelay judge slice` makes one")
    there = path.stat()
    if there.st_size > MAX_BYTES:
        raise InputError(f"{path} has more than {MAX_BYTES} bytes: draw fewer pairs")
    pairs, collection = _pairs(path, there.st_mtime_ns, there.st_size), given.get("of", "")
    with site.ledger().snapshot() as snapshot:
        snapshot.require_collection(collection)
        ids = sorted({each.query_id for each in pairs})
        mine = grades_of(snapshot.connection, collection, request.state.person.name, ids)
    return Sample(path.name, collection, given.get("scale", ""), pairs, mine)


@lru_cache(maxsize=_KEPT)
def _pairs(path: Path, _changed_ns: int, _size: int) -> tuple[GradedPair, ...]:
    """The file's pairs, read again where it has changed."""
    return tuple(read_annotated_pairs(path, ungraded=True))


def _folder(site: Site) -> Path:
    return site.settings.data_dir / FOLDER


def _files(site: Site) -> list[Path]:
    folder = _folder(site)
    return sorted(each for each in folder.glob("*.tsv") if each.is_file())[:MOST_FILES] if folder.is_dir() else []


ROUTES = [
    route("/samples", samples),
    route("/sample", sample),
    route("/sample/grade", grade, Action.LABEL, ["POST"]),
    route("/sample/undo", undo, Action.LABEL, ["POST"]),
]

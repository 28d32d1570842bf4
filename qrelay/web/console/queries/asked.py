"""What an address asks for: which queries, where in their list, and whether grading is blind; and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Final
from urllib.parse import urlencode

from starlette.requests import Request

from qrelay.errors import InputError
from qrelay.labels.browse.queries import GRADED, SORTS, Wanted

_NUMBERS: Final = ("differ", "unsure", "apart")
_TEXTS: Final = ("collection", "search", "graded", "judge", "sort")
_DEFAULT: Final = Wanted()


@dataclass(frozen=True, slots=True)
class Asked:
    """`dead`: dead letters are asked for instead of queries; `blind`: no label before the grade; `scale`: on which
    people grade, "" for the collection's."""

    wanted: Wanted = _DEFAULT
    dead: bool = False
    blind: bool = False
    scale: str = ""

    def address(self, path: str, **more: Any) -> str:
        """`path` asking for the same; `more`: parameters of their own."""
        said = {each.name: getattr(self.wanted, each.name) for each in fields(Wanted)}
        changed = {name: value for name, value in said.items() if value != getattr(_DEFAULT, name)}
        flags = {"missing": self.wanted.missing, "dead": self.dead, "blind": self.blind}
        told = {**changed, **{name: "1" for name, on in flags.items() if on}}
        told |= {"scale": self.scale} if self.scale else {}
        told |= {name: value for name, value in more.items() if value}
        return f"{path}?{urlencode(told)}" if told else path

    def query(self, collection: str, query_id: str, **more: Any) -> str:
        """The address of one query, seen from this list."""
        return self.address("/query", of=collection, id=query_id, **more)

    def blinded(self, blind: bool) -> Asked:
        """The same, blind or not."""
        return replace(self, blind=blind)


def asked(request: Request) -> Asked:
    """Of the address. Raises InputError: a value that cannot be."""
    given = request.query_params
    told: dict[str, Any] = {name: given.get(name, getattr(_DEFAULT, name)).strip() for name in _TEXTS}
    told |= {name: _share(given, name) for name in _NUMBERS}
    wanted = Wanted(**told, missing=bool(given.get("missing")), round=_round(given.get("round", "")))
    for value, known in ((wanted.graded, GRADED), (wanted.sort, SORTS)):
        if value not in known:
            raise InputError(f"{value[:40]!r} is not one of {', '.join(filter(None, known))}: choose it in the form")
    return Asked(wanted, bool(given.get("dead")), bool(given.get("blind")), given.get("scale", ""))


def _share(given: Mapping[str, str], name: str) -> float:
    text = given.get(name, "").strip()
    try:
        value = float(text or 0)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise InputError(f"{name} {text[:40]!r}: give a number from 0 to 1, as 0.3")
    return value


def _round(text: str) -> int | None:
    if text and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InputError(f"round {text[:40]!r} is no whole number")
    return int(text) if text else None

"""Names that a mistyped one may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_MOST: Final = 3
_LONGEST: Final = 200
"""Characters of a name that is compared: nobody mistypes a longer one, and comparing takes their square."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " Did you mean 'a' or 'b'?" with the names that are nearest to `word`; empty where none is near."""
    near = [name for name in known if len(name) <= _LONGEST]
    found = get_close_matches(word, near, n=_MOST) if len(word) <= _LONGEST else []
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


def listed(known: Iterable[str], none: str = "none") -> str:
    """The names in order, with commas; `none` where there is none."""
    return ", ".join(sorted(known)) or none

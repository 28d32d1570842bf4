"""Names that a mistyped one may have meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

_MOST: Final = 3


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """ " Did you mean 'a' or 'b'?" with the names that are nearest to `word`; empty where none is near."""
    found = get_close_matches(word, list(known), n=_MOST)
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


def listed(known: Iterable[str], none: str = "none") -> str:
    """The names in order, with commas; `none` where there is none."""
    return ", ".join(sorted(known)) or none

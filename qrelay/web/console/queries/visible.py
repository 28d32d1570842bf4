"""Characters that hide in a text or turn it round, made visible: a passage must not look like another one.

`visible` marks controls, bidirectional overrides and isolates, zero-width spaces and tags; `exact`, for ids and
names, also joiners and every blank that is not a space.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_JOINERS: Final = "\u200c\u200d"
"""Part of the spelling of Persian or Hindi words, and of emoji."""
_BLANKS: Final = "\t\n\r"
_SUSPECT: Final = re.compile(
    "[\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]"
)


def visible(text: str) -> str:
    """The text with what is hidden in it as `[U+202E]`; line breaks and tabs stay."""
    return _SUSPECT.sub(lambda found: found[0] if found[0] in _JOINERS + _BLANKS else _mark(found[0]), text)


def exact(text: str) -> str:
    """An id or a name: whatever could make it look like another one is marked."""
    marked = _SUSPECT.sub(lambda found: _mark(found[0]), text)
    return "".join(_mark(each) if each != " " and unicodedata.category(each) == "Zs" else each for each in marked)


def _mark(character: str) -> str:
    return f"[U+{ord(character):04X}]"

"""The words of a text in any script.

A word is a run of letters and digits with their combining marks. Scripts without blanks between words, and Korean,
whose particles join theirs, have characters for words, each with its marks.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

import regex

_SCRIPTS: Final = (
    "Han Hiragana Katakana Bopomofo Hangul Thai Lao Khmer Myanmar Tai_Le New_Tai_Lue Tai_Tham Tai_Viet Javanese"
    " Balinese"
)
_UNSPACED: Final = "".join(rf"\p{{Script={name}}}" for name in _SCRIPTS.split()) + r"\u30fc"
_CHARACTER: Final = rf"[[{_UNSPACED}]&&[\p{{L}}\p{{N}}]]\p{{M}}*"
_SPACED: Final = rf"(?:[[\p{{L}}\p{{N}}]--[{_UNSPACED}]]\p{{M}}*)+"
_WORDS: Final = regex.compile(r"[\w\p{N}\p{M}]+")
_RUNS: Final = regex.compile(rf"(?V1)((?:{_CHARACTER})+)|({_SPACED})")
_CHARACTERS: Final = regex.compile(rf"(?V1){_CHARACTER}")
_SPACED_WORD: Final = regex.compile(rf"(?V1){_SPACED}")
_UNITS: Final = regex.compile(rf"(?V1){_CHARACTER}|(?:(?!{_CHARACTER}).)+", regex.DOTALL)
_PIECES: Final = regex.compile(rf"(?V1){_CHARACTER}|(?:(?!{_CHARACTER})\S){{1,16}}")
_WIDTHS: Final = re.compile("[\uff00-\uffef]+")
_IGNORED: Final = re.compile(
    "[\u00ad\u200c\u200d\u2060\u20e3\ufe00-\ufe0f"  # soft hyphen, joiners, keycap, variation selectors
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c7\u0640\u064b-\u065f\u0670]"  # Hebrew points, Arabic vowels, and the tatweel
)


def composed(text: str) -> str:
    """The text in Unicode's composed form, half and full width alike, without characters that only say how it is
    written: what writers of one word may do differently."""
    if text.isascii():
        return text
    text = _WIDTHS.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text)
    return _IGNORED.sub("", unicodedata.normalize("NFC", text))


def words(text: str) -> list[str]:
    """The words of a text, composed; a run of a script without blanks is one, and underscores belong to words."""
    found: list[str] = _WORDS.findall(composed(text))
    return found


def normalised(text: str) -> str:
    """Its words without case, punctuation and spacing: what is the same of two texts is one question."""
    return " ".join(words(text.casefold()))


def units(word: str) -> list[str]:
    """The parts of a word: each character of a script without blanks, and what stands between them."""
    return [word] if word.isascii() else _UNITS.findall(word)


def runs(text: str) -> list[tuple[list[str], str]]:
    """The words of a composed text as they come, an underscore parting them: (the characters of a run of a script
    without blanks, "") or ([], a word)."""
    return [(_CHARACTERS.findall(unspaced), word) for unspaced, word in _RUNS.findall(text)]


def spaced_words(text: str) -> list[tuple[int, int]]:
    """(start, end) of each word of a script that has blanks between its words."""
    return [found.span() for found in _SPACED_WORD.finditer(text)]


def pieces(text: str) -> Iterator[tuple[int, int]]:
    """(start, end) of what a text is measured by: what stands between blanks, at most 16 characters of it, and each
    character of a script without blanks."""
    return (found.span() for found in _PIECES.finditer(text))

"""Why a generated question is of no use: rules that need no model, each with a name that the manifest counts by.

not_one_question  empty, several lines or questions, or no question mark at its end
too_short         fewer than 4 words
too_long          more than 30 words
needs_context     speaks of a passage, a text, "this function": means nothing to who has not seen the passage
copies_passage    8 or more words in a row are the passage's
other_language    written in another script than the passage
duplicate         the same words as a question before it
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Final

from qrelay.text import passage_text
from qrelay.types import Passage
from qrelay.words import normalised, units, words

MIN_WORDS: Final = 4
MAX_WORDS: Final = 30
MAX_COPIED_WORDS: Final = 7
_CHARACTERS_A_WORD: Final = 2
"""How many characters of a script without blanks count as a word."""
_UNSPACED: Final = frozenset({"CJK", "HIRAGANA", "KATAKANA", "THAI", "LAO", "KHMER", "MYANMAR"})
_MARKS: Final = "?\uff1f؟"
_THING: Final = (
    r"(?:passages?|texts?|documents?|paragraphs?|excerpts?|snippets?|articles?|sections?|contexts?|examples?|"
    r"descriptions?|documentation|authors?|study|paper|report|function|method|class|module|attribute|decorator)"
)
_CONTEXT: Final = re.compile(
    rf"\b(?:this|these|those)\b|\baccording to\b|\b(?:mentioned|described|given|shown|listed|provided) "
    rf"(?:above|below|here|in)\b|\bthe (?:given |provided |above |following )?{_THING}"
    r"(?! (?:of|that|which|who|to|used|for|called|named|with|in|from|by|is called|from)\b)\b"
    rf"|\bthe (?:given|provided|above|following) {_THING}\b",
    re.IGNORECASE,
)


class Faults:
    """The rules, and the questions seen so far."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def find(self, question: str, passage: Passage) -> str:
        """The first rule that the question breaks, or "". Does not remember the question: see `remember`."""
        if len(question) - len(question.rstrip(_MARKS)) != 1 or sum(question.count(mark) for mark in _MARKS) != 1:
            return "not_one_question"
        script = _script(question)
        a_word = _CHARACTERS_A_WORD if script in _UNSPACED else 1
        size = len(_parts(question, script)) // a_word
        if not MIN_WORDS <= size <= MAX_WORDS:
            return "too_short" if size < MIN_WORDS else "too_long"
        if _CONTEXT.search(question):
            return "needs_context"
        source = passage_text(passage.title, passage.text)
        if _copied(_parts(question, script), _parts(source, script), (MAX_COPIED_WORDS + 1) * a_word):
            return "copies_passage"
        if script and (theirs := _script(passage.text)) and script != theirs:
            return "other_language"
        return "duplicate" if normalised(question) in self._seen else ""

    def remember(self, question: str) -> None:
        """Another one of the same words is a duplicate from now on."""
        self._seen.add(normalised(question))


def _parts(text: str, script: str) -> list[str]:
    """Its words; of a script without blanks, its characters."""
    found = words(text.casefold())
    return [part for word in found for part in units(word)] if script in _UNSPACED else found


def _copied(parts: list[str], source: list[str], span: int) -> bool:
    held = {tuple(source[at : at + span]) for at in range(len(source) - span + 1)}
    return any(tuple(parts[at : at + span]) in held for at in range(len(parts) - span + 1))


def _script(text: str) -> str:
    """The script of most letters, as Unicode's names begin (LATIN, CYRILLIC, CJK, …); "" without letters. Japanese
    mixes three: they count as CJK."""
    names = Counter(unicodedata.name(c, "").split(" ")[0].split("-")[0] for c in text[:2000] if c.isalpha())
    if not names:
        return ""
    best = names.most_common(1)[0][0]
    return "CJK" if best in ("HIRAGANA", "KATAKANA") else best

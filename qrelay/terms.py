"""The words of a text in any script, its terms as BM25 counts them, and BM25's two constants.

A word is a run of letters and digits with their combining marks (so `read_text` is found by "read text", and "vitamin
C" keeps its C). Scripts without blanks between words, and Korean, whose particles join theirs, have characters for
words, each with its marks, and every two that stand beside each other are a term, as in Lucene's CJKAnalyzer. A
character is a term by itself too, or a word of one would find nothing.

Terms are words in lower case, without bm25s's English stop words, stemmed by Snowball; those of ASCII are what they
were in the first indexes, letter by letter. k1=0.9 and b=0.4 are those of Pyserini's baselines; on MedQuAD's dev
queries this tokenisation has MRR@10 0.528, bm25s's own 0.519.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final

import regex

K1: Final = 0.9
B: Final = 0.4
TOKENIZER: Final = "words-bigrams-lower-stop_en-snowball_en"
Tokenize = Callable[[str], list[str]]

_ALNUM: Final = re.compile(r"[^\W_]+")
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
_UNITS: Final = regex.compile(rf"(?V1){_CHARACTER}|(?:(?!{_CHARACTER}).)+", regex.DOTALL)
_WIDTHS: Final = re.compile("[\uff00-\uffef]+")
_IGNORED: Final = re.compile(
    "[\u00ad\u200c\u200d\u2060\u20e3\ufe00-\ufe0f"  # soft hyphen, joiners, keycap, variation selectors
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c7\u0640\u064b-\u065f\u0670]"  # Hebrew points, Arabic vowels, and the tatweel
)
_local = threading.local()


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


def units(word: str) -> list[str]:
    """The parts of a word: each character of a script without blanks, and what stands between them."""
    return [word] if word.isascii() else _UNITS.findall(word)


def tokenize(text: str) -> list[str]:
    """The terms of a text, repeats included."""
    if text.isascii():
        return _stemmed(_ALNUM.findall(text.lower()))
    found: list[str] = []
    for unspaced, word in _RUNS.findall(composed(text.lower())):
        if word:
            found.append(word)
        else:
            characters = _CHARACTERS.findall(unspaced)
            found += [*characters, *map("".join, pairwise(characters))]
    return _stemmed(found)


def _alnum(text: str) -> list[str]:
    return _stemmed(_ALNUM.findall(text.lower()))


def _stemmed(found: list[str]) -> list[str]:
    """Without stop words. A stemmer a thread: Snowball's keeps state."""
    if not hasattr(_local, "stem"):
        import Stemmer
        from bm25s.stopwords import STOPWORDS_EN

        _local.stem, _local.stop = Stemmer.Stemmer("english").stemWords, frozenset(STOPWORDS_EN)
    stop = _local.stop
    terms: list[str] = _local.stem([word for word in found if word not in stop])
    return terms


TOKENIZERS: Final[Mapping[str, Tokenize]] = {TOKENIZER: tokenize, "alnum-lower-stop_en-snowball_en": _alnum}
"""By the name that an index keeps; earlier ones stay, for the indexes that they made."""

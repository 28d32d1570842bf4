"""The terms of a text as BM25 counts them, and BM25's two constants.

Words are those of `qrelay.words` (so `read_text` is found by "read text", and "vitamin C" keeps its C). In scripts
without blanks every two characters beside each other are a term, as in Lucene's CJKAnalyzer. A character is
a term by itself too: otherwise a query of one would find nothing.

Terms are words in lower case, without the language's stop words (bm25s's lists), stemmed by Snowball, where there are
such for the language; English terms of ASCII are what they were in the first indexes, letter by letter. k1=0.9 and
b=0.4 are those of Pyserini's baselines; on MedQuAD's dev queries these terms have MRR@10 0.528, bm25s's own 0.519.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise
from typing import Final, NamedTuple

from qrelay.words import composed, runs

K1: Final = 0.9
B: Final = 0.4
ENGLISH: Final = "en"
Tokenize = Callable[[str], list[str]]


class Language(NamedTuple):
    """Its English name, Snowball's algorithm, and bm25s's list of stop words: "" where there is none."""

    name: str
    stemmer: str
    stopwords: str = ""


LANGUAGES: Final[Mapping[str, Language]] = {
    "ar": Language("Arabic", "arabic"),
    "ca": Language("Catalan", "catalan"),
    "cs": Language("Czech", "czech"),
    "da": Language("Danish", "danish", "DANISH"),
    "de": Language("German", "german", "GERMAN"),
    "el": Language("Greek", "greek"),
    ENGLISH: Language("English", "english", "EN"),
    "es": Language("Spanish", "spanish", "SPANISH"),
    "et": Language("Estonian", "estonian"),
    "eu": Language("Basque", "basque"),
    "fa": Language("Persian", "persian"),
    "fi": Language("Finnish", "finnish"),
    "fr": Language("French", "french", "FRENCH"),
    "hi": Language("Hindi", "hindi"),
    "hu": Language("Hungarian", "hungarian"),
    "hy": Language("Armenian", "armenian"),
    "id": Language("Indonesian", "indonesian"),
    "it": Language("Italian", "italian", "ITALIAN"),
    "lt": Language("Lithuanian", "lithuanian"),
    "nl": Language("Dutch", "dutch", "DUTCH"),
    "no": Language("Norwegian", "norwegian", "NORWEGIAN"),
    "pl": Language("Polish", "polish"),
    "pt": Language("Portuguese", "portuguese", "PORTUGUESE"),
    "ro": Language("Romanian", "romanian"),
    "ru": Language("Russian", "russian", "RUSSIAN"),
    "sr": Language("Serbian", "serbian"),
    "sv": Language("Swedish", "swedish", "SWEDISH"),
    "ta": Language("Tamil", "tamil"),
    "tr": Language("Turkish", "turkish", "TURKISH"),
}
"""By ISO 639-1. Any other language has neither stemmer nor stop words, as `ANY` says; scripts without blanks are cut
as they are in English, whose words often stand among theirs."""
ANY: Final = "any"
_NAME: Final = re.compile(r"words-bigrams-lower-stop_(\w+)-snowball_(\w+)")
_FIRST: Final = "alnum-lower-stop_en-snowball_en"
"""Of the first indexes, which are still searched."""
_ALNUM: Final = re.compile(r"[^\W_]+")
_local = threading.local()


def tokenizer_of(language: str) -> str:
    """The name, which an index keeps, of what makes a language's terms."""
    found = LANGUAGES.get(language, Language("", ""))
    stop, stem = (language if each else "none" for each in (found.stopwords, found.stemmer))
    return f"words-bigrams-lower-stop_{stop}-snowball_{stem}"


TOKENIZER: Final = tokenizer_of(ENGLISH)


def language_of(tokenizer: str) -> str:
    """The language whose terms a tokenizer makes."""
    found = _NAME.fullmatch(tokenizer)
    if found is None:
        return ENGLISH
    return found[2] if found[2] in LANGUAGES else ANY


def named_tokenizer(name: str) -> Tokenize | None:
    """What makes the terms of that name; None: this qrelay does not have it."""
    if name == _FIRST:
        return _alnum
    language = language_of(name)
    return partial(tokenize, language=language) if tokenizer_of(language) == name else None


def tokenize(text: str, language: str = ENGLISH) -> list[str]:
    """The terms of a text, repeats included."""
    if text.isascii():
        return _stemmed(_ALNUM.findall(text.lower()), language)
    found: list[str] = []
    for characters, word in runs(composed(text.lower())):
        if word:
            found.append(word)
        else:
            found += [*characters, *map("".join, pairwise(characters))]
    return _stemmed(found, language)


def _alnum(text: str) -> list[str]:
    return _stemmed(_ALNUM.findall(text.lower()), ENGLISH)


def _stemmed(found: list[str], language: str) -> list[str]:
    """Without stop words. A stemmer a thread and language: Snowball's keeps state."""
    known: dict[str, tuple[Callable[[list[str]], list[str]], frozenset[str]]] = _local.__dict__
    if language not in known:
        known[language] = _stemmer(language)
    stem, stop = known[language]
    return stem([word for word in found if word not in stop])


def _stemmer(language: str) -> tuple[Callable[[list[str]], list[str]], frozenset[str]]:
    import Stemmer
    from bm25s import stopwords

    facts = LANGUAGES.get(language, Language("", ""))
    stem = Stemmer.Stemmer(facts.stemmer).stemWords if facts.stemmer else list
    return stem, frozenset(getattr(stopwords, f"STOPWORDS_{facts.stopwords}", ()))

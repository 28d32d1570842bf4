"""The terms of a text as BM25 counts them, and BM25's two constants.

Words are those of `qrelay.words` (so `read_text` is found by "read text", and "vitamin C" keeps its C). In scripts
without blanks every two characters beside each other are a term, as in Lucene's CJKAnalyzer. A character is
a term by itself too: otherwise a query of one would find nothing.

Terms are words in lower case, without bm25s's English stop words, stemmed by Snowball; those of ASCII are what they
were in the first indexes, letter by letter. k1=0.9 and b=0.4 are those of Pyserini's baselines; on MedQuAD's dev
queries this tokenisation has MRR@10 0.528, bm25s's own 0.519.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Final

from qrelay.words import composed, runs

K1: Final = 0.9
B: Final = 0.4
TOKENIZER: Final = "words-bigrams-lower-stop_en-snowball_en"
Tokenize = Callable[[str], list[str]]

_ALNUM: Final = re.compile(r"[^\W_]+")
_local = threading.local()


def tokenize(text: str) -> list[str]:
    """The terms of a text, repeats included."""
    if text.isascii():
        return _stemmed(_ALNUM.findall(text.lower()))
    found: list[str] = []
    for characters, word in runs(composed(text.lower())):
        if word:
            found.append(word)
        else:
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

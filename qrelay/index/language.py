"""In which language a corpus is, so that BM25 has that language's stemmer and stop words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import islice
from typing import Any, Final

from qrelay.terms import ANY, ENGLISH, LANGUAGES

_TEXTS: Final = 400
_CHARACTERS: Final = 1000
_SURE: Final = 0.9
_MOST: Final = 0.6
_UNSPACED: Final = frozenset({"zh", "wuu", "yue", "ja", "ko", "th", "lo", "km", "my", "bo", "dz"})


def detected(texts: Iterable[str]) -> str:
    """The language, as ISO 639-1, of most of the first texts whose language is sure; "any" where most are in one that
    BM25 knows nothing of. English where nothing is sure, as for code and tables, and for scripts without blanks."""
    found = Counter[str]()
    for text in islice(texts, _TEXTS):
        language, probability = _identifier().classify(text[:_CHARACTERS])
        found[str(language) if probability >= _SURE else ""] += 1
    total, unsure = found.total(), found.pop("", 0)
    for language, count in found.most_common(1):
        if count > _MOST * (total - unsure) and count > _MOST * total / 2:
            return language if language in LANGUAGES else ENGLISH if language in _UNSPACED else ANY
    return ENGLISH


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)

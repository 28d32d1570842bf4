"""Exact match and token F1 of an answer, as SQuAD's official script has them (Rajpurkar et al., "SQuAD: 100,000+
Questions for Machine Comprehension of Text", EMNLP 2016, section 6.1): lower case, without punctuation, articles and
repeated blanks; of several references the best counts."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Final

_ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """The text as both measures read it."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, references: Sequence[str]) -> float:
    """1.0 where the answer is one of the references, else 0.0."""
    return float(any(normalised(answer) == normalised(reference) for reference in references))


def token_f1(answer: str, references: Sequence[str]) -> float:
    """The harmonic mean of precision and recall of tokens, repeats counted, with the best reference; where either has
    no token, 1.0 if both have none (SQuAD 2.0's rule)."""
    return max((_f1(normalised(answer).split(), normalised(each).split()) for each in references), default=0.0)


def _f1(answer: list[str], reference: list[str]) -> float:
    if not answer or not reference:
        return float(answer == reference)
    common = sum((Counter(answer) & Counter(reference)).values())
    return 2.0 * common / (len(answer) + len(reference))

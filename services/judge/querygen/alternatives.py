"""The questions of a log that are most alike: what `contrastive_likelihood` measures a query against.

Likeness is the cosine of TF-IDF vectors of words: a rare word, such as a name, weighs most, so the alternatives of
"What are the symptoms of Lowe syndrome?" are the other questions about Lowe syndrome. No model is needed, and the
answer is the same everywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from qrelay.errors import InputError
from services.judge.strategies.contrastive import ALTERNATIVES

_AT_ONCE: Final = 1024


def nearest(texts: Sequence[str], log: Sequence[str], n: int) -> Iterator[list[str]]:
    """For each of `texts` the `n` texts of the log that are most alike, the nearest first, its own left out; fewer
    where no more share a word with it. Texts are equal where only case and blanks differ.

    Raises:
        InputError: the log holds no words.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    known = list({_plain(text): text for text in reversed(log)}.values())[::-1]
    vectorizer = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+")  # noqa: S106 (no password)
    try:
        vectors = vectorizer.fit_transform(known)
    except ValueError as error:
        raise InputError(f"the query log holds nothing to compare with ({error})") from error
    for start in range(0, len(texts), _AT_ONCE):
        part = texts[start : start + _AT_ONCE]
        likeness = vectorizer.transform(part) @ vectors.T
        for row, text in enumerate(part):
            yield list(islice(_best(likeness[row], known, text), n))


def annotated(queries: Iterable[dict[str, Any]], log: Sequence[str], n: int) -> Iterator[dict[str, Any]]:
    """The queries, each with its alternatives in the attribute that the judge reads."""
    held = list(queries)
    for query, found in zip(held, nearest([query["text"] for query in held], log, n), strict=True):
        attributes = {**query.get("attributes", {}), ALTERNATIVES: json.dumps(found, ensure_ascii=False)}
        yield {**query, "attributes": attributes}


def _best(row: Any, known: Sequence[str], text: str) -> Iterator[str]:
    own = _plain(text)
    for _, column in sorted(zip(-row.data, row.indices, strict=True)):
        if _plain(known[column]) != own:
            yield known[column]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())

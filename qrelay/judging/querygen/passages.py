"""The corpus, and a sample of it: passages that can carry a question, spread over the documents.

A corpus is JSONL, plain or gzip, or the folder that holds corpus.jsonl[.gz]. A line is BEIR's (`_id`, `title`,
`text`: a document is one passage) or what `qrelay index passages` writes (`passage_id`, `doc_id`, `title`, `text`).

The order of the sample depends on the ids and the seed alone: first one passage of every document, then a second, and
among these by hash. It is read in one pass; memory holds `pool` passages. Passages of a document that do not stand
beside each other in the file count as of several documents.
"""

from __future__ import annotations

import hashlib
import heapq
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from qrelay.errors import MalformedInput
from qrelay.formats.lines import file_in
from qrelay.formats.records import passage_fields, read_records
from qrelay.types import Passage
from qrelay.words import units
from qrelay.words import words as words_of

MIN_WORDS: Final = 12
"""Words of prose, below which a passage is too short to carry a question."""
_PROSE_SHARE: Final = 0.6
"""Share of a passage's words that must be plain words, not code, numbers or rules of a table."""
_SHINGLE, _SKETCH, _ALIKE = 3, 8, 6
"""Near-duplicates share 6 of the 8 least hashes of their three-word shingles (bottom-k sketch, Broder 1997)."""
_PLAIN: Final = re.compile(r"[\"'(\[`*]*[^\W\d_]+(?:['’-][^\W\d_]+)*[\"')\]`*,.;:!?]*")  # noqa: RUF001


@dataclass(slots=True)
class Sample:
    """passages: in the order in which they are asked. unsuitable: how many were left out, by reason. read: passages
    of the corpus. corpus_hash: sha256 of ids and texts, in the corpus's order."""

    passages: list[Passage]
    unsuitable: Counter[str] = field(default_factory=Counter)
    read: int = 0
    corpus_hash: str = ""


def sample(corpus: Path, *, seed: int, pool: int, min_words: int = MIN_WORDS) -> Sample:
    """At most `pool` suitable passages of `corpus`, near-duplicates of earlier ones left out.

    Raises:
        MalformedInput: the corpus is absent, damaged, or holds no suitable passage.
    """
    found, digest = Sample([]), hashlib.sha256()
    passages = _counted(read_passages(corpus), found, digest)
    keyed = heapq.nsmallest(pool, _keyed(passages, seed, min_words, found), key=lambda each: each[:3])
    found.corpus_hash = digest.hexdigest()
    found.passages = list(_unlike(passage for _, _, _, passage in keyed))
    found.unsuitable["near_duplicate"] = len(keyed) - len(found.passages)
    if not found.passages:
        raise MalformedInput(
            f"{corpus} holds no passage to ask about: {found.read} were read, left out: "
            f"{dict(+found.unsuitable) or 'none'}; lower --min-words, or give another corpus"
        )
    return found


def unsuitable(passage: Passage, min_words: int = MIN_WORDS) -> str:
    """Why no question should be asked about the passage ("too_short", "mostly_code"), or "". Scripts that put no
    blanks between words are measured by characters, three to a word."""
    spaced, plain, unspaced = 0, 0, 0
    for word in passage.text.split():
        characters = _unspaced(word)
        unspaced += characters
        spaced += not characters
        plain += not characters and _PLAIN.fullmatch(word) is not None
    prose, words = plain + unspaced // 3, spaced + unspaced // 3
    if prose < min_words:
        return "too_short" if words < 2 * min_words else "mostly_code"
    return "" if prose >= _PROSE_SHARE * words else "mostly_code"


def _unspaced(word: str) -> int:
    """Characters of scripts written without blanks (Thai, kana, Chinese, …)."""
    return sum("\u0e00" <= c <= "\u0eff" or "\u3040" <= c <= "\u9fff" for c in word) if not word.isascii() else 0


def read_passages(corpus: Path) -> Iterator[Passage]:
    """The passages, in the file's order. Raises MalformedInput, naming the line."""
    for _, fields in read_records(file_in(corpus, "corpus.jsonl"), passage_fields):
        yield Passage(*fields)


def _counted(passages: Iterable[Passage], found: Sample, digest: Any) -> Iterator[Passage]:
    for passage in passages:
        found.read += 1
        for part in (passage.passage_id, passage.doc_id, passage.title, passage.text):
            data = part.encode("utf-8", "replace")
            digest.update(len(data).to_bytes(8, "big") + data)
        yield passage


def _keyed(
    passages: Iterable[Passage], seed: int, min_words: int, found: Sample
) -> Iterator[tuple[int, str, str, Passage]]:
    """(place within its document, hash, id, passage): the least come first."""
    for _, group in groupby(passages, key=lambda passage: passage.doc_id):
        suitable = []
        for passage in group:
            reason = unsuitable(passage, min_words)
            if reason:
                found.unsuitable[reason] += 1
            else:
                key = hashlib.sha256(f"{seed}\0{passage.passage_id}".encode("utf-8", "replace")).hexdigest()
                suitable.append((key, passage.passage_id, passage))
        suitable.sort(key=lambda each: each[:2])
        yield from ((place, *each) for place, each in enumerate(suitable))


def _unlike(passages: Iterable[Passage]) -> Iterator[Passage]:
    """Those that are no near-duplicate of one before them."""
    holders: dict[int, list[int]] = {}
    for number, passage in enumerate(passages):
        sketch = _sketch(passage.text)
        shared = Counter(holder for value in sketch for holder in holders.get(value, ()))
        if shared and max(shared.values()) >= min(_ALIKE, len(sketch)):
            continue
        for value in sketch:
            holders.setdefault(value, []).append(number)
        yield passage


def _sketch(text: str) -> list[int]:
    words = [unit for word in words_of(text.casefold()) for unit in units(word)]
    shingles = {" ".join(words[at : at + _SHINGLE]) for at in range(max(1, len(words) - _SHINGLE + 1))}
    digests = (hashlib.blake2b(each.encode("utf-8", "replace"), digest_size=8).digest() for each in shingles)
    return heapq.nsmallest(_SKETCH, map(int.from_bytes, digests))

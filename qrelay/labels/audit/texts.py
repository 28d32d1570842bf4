"""Texts that are the same, and texts that are nearly the same as one of very many.

The same: the same words in the same order (`mining.texts.normalised`). Nearly: a Jaccard similarity of at least NEAR
between their sets of shingles, three words of a passage, four characters of a query, which is too short for the
others. Among many texts the similarity is estimated by MinHash (Broder 1997) with 63 hash functions: its standard
error at 0.8 is 0.05.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Final

import numpy as np
from datasketch import MinHash, MinHashLSH
from numpy.typing import NDArray

from qrelay.identity import digest
from qrelay.labels.mining.texts import normalised, shingles

NEAR: Final = 0.8
_BANDS, _ROWS = 9, 7
"""Two texts of similarity 0.8 meet in a band with probability 0.88, of 0.85 with 0.97, of 0.5 with 0.07."""
_PERMUTATIONS: Final = _BANDS * _ROWS
_EMPTY: Final = MinHash(num_perm=_PERMUTATIONS)
"""Its permutations are everyone's: drawing them takes as long as a signature."""


def text_key(text: str) -> int:
    """64 bits that texts with the same words share; 0 for a text without a word."""
    words = normalised(text)
    return int(digest(words)[:16], 16) or 1 if words else 0


def word_shingles(text: str) -> set[bytes]:
    """Three neighbouring words each; of a shorter text the whole."""
    return {" ".join(words).encode("utf-8", "replace") for words in shingles(normalised(text))}


def letter_shingles(text: str) -> set[bytes]:
    """Four neighbouring characters each; of a shorter text the whole."""
    words = normalised(text)
    return {words[i : i + 4].encode("utf-8", "replace") for i in range(max(1, len(words) - 3)) if words}


def minhash(made_of: set[bytes]) -> MinHash:
    """The signature of a set of shingles."""
    made = MinHash(_PERMUTATIONS, hashfunc=zlib.crc32, permutations=_EMPTY.permutations, scheme=_EMPTY.scheme)
    made.update_batch(sorted(made_of))
    return made


class NearTexts:
    """Texts that were put in, to look up those that are nearly the same: MinHash LSH (datasketch). Takes about 4 KB a
    text (3.6 KB measured with 160 words each)."""

    def __init__(self, shingles: Callable[[str], set[bytes]] = word_shingles) -> None:
        self._shingles = shingles
        self._lsh = MinHashLSH(num_perm=_PERMUTATIONS, params=(_BANDS, _ROWS))
        self._signatures: list[NDArray[np.uint32]] = []
        self._names: list[str] = []

    def __len__(self) -> int:
        return len(self._names)

    def put(self, name: str, text: str) -> None:
        """Remember a text; one without a word is not remembered."""
        self.meet(name, text, remember=True)

    def meet(self, name: str, text: str, *, remember: bool) -> tuple[str, float] | None:
        """The nearest text that was there before, with its estimated similarity, if that is at least NEAR; of equals
        the one that came first."""
        found_in = self._shingles(text)
        if not found_in:
            return None
        made = minhash(found_in)
        found = self._nearest(made)
        if remember:
            self._lsh.insert(len(self._names), made, check_duplication=False)
            self._signatures.append(np.asarray(made.hashvalues, np.uint32))
            self._names.append(name)
        return found

    def _nearest(self, made: MinHash) -> tuple[str, float] | None:
        near = sorted(self._lsh.query(made))
        if not near:
            return None
        known = np.stack([self._signatures[i] for i in near])
        alike = (known == np.asarray(made.hashvalues)).mean(axis=1)
        best = int(alike.argmax())
        return (self._names[near[best]], float(alike[best])) if alike[best] >= NEAR else None

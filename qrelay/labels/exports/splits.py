"""Splits without leakage: queries that belong together fall into the same split, by hash, whatever is committed when.

Queries belong together where they share a text (the same words: `normalised`) and, by `group_by`,

    query           nothing more: a query's split never changes, so increments may be split
    doc             a document that is relevant to both
    attribute:NAME  the value of that attribute

"Together" is transitive (union-find). A group is named by the least hash of its queries' texts, which no order of
commits can change, and that name's hash chooses the split: with 0.8, about 80% of the *groups*. One large group may
therefore take many queries to one side; the manifest counts both.

Memory: 16 bytes a query, and what `spill.py` keeps on disk; not a byte a judgment.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from qrelay.errors import InputError
from qrelay.labels.exports.spill import Spill
from qrelay.labels.mining.texts import normalised

BY_QUERY: Final = "query"
BY_DOC: Final = "doc"
BY_ATTRIBUTE: Final = "attribute:"
_SUM_TOLERANCE: Final = 1e-9


@dataclass(frozen=True, slots=True)
class Splits:
    """Names with their shares (0 to 1, together 1), and what belongs together."""

    shares: tuple[tuple[str, float], ...]
    group_by: str = BY_DOC

    @property
    def names(self) -> tuple[str, ...]:
        """The splits, as they were given."""
        return tuple(name for name, _ in self.shares)

    @property
    def attribute(self) -> str:
        """The attribute to group by; empty: none."""
        return self.group_by.removeprefix(BY_ATTRIBUTE) if self.group_by.startswith(BY_ATTRIBUTE) else ""

    def of_group(self, least: int) -> int:
        """The number of the split of the group whose name is `least` (64 bits)."""
        point = int.from_bytes(hashlib.sha256(least.to_bytes(8, "big")).digest()[:8], "big") / 2**64
        reached = 0.0
        for number, (_, share) in enumerate(self.shares):
            reached += share
            if point < reached:
                return number
        return len(self.shares) - 1

    def describe(self) -> dict[str, Any]:
        """For the manifest."""
        return {"shares": dict(self.shares), "group_by": self.group_by}


def parse_splits(text: str, group_by: str = BY_DOC) -> Splits:
    """`train=0.8,dev=0.1,test=0.1`.

    Raises:
        InputError: not such a list, shares that do not sum to 1, or no such grouping.
    """
    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        if not name.isidentifier() or name in shares or not _is_share(share):
            raise InputError(f"--split: {part!r} is not NAME=SHARE with a new name: write train=0.8,dev=0.1,test=0.1")
        shares[name] = float(share)
    if abs(sum(shares.values()) - 1) > _SUM_TOLERANCE:
        raise InputError(f"--split: the shares of {text!r} sum to {sum(shares.values()):g}: they must sum to 1")
    splits = Splits(tuple(shares.items()), group_by)
    if group_by not in (BY_QUERY, BY_DOC) and not splits.attribute:
        raise InputError(f"--group-by: there is no {group_by!r}: use doc, query, or attribute:NAME")
    return splits


def _is_share(text: str) -> bool:
    try:
        return 0 < float(text) <= 1
    except ValueError:
        return False


def key(kind: str, value: str) -> bytes:
    """The identity of something that queries may share."""
    return hashlib.sha256(f"{kind}\0{value}".encode("utf-8", "surrogatepass")).digest()[:16]


def text_key(text: str) -> bytes:
    """The identity of a query's text: its words, or the text itself where it has none."""
    return key("text", normalised(text) or text)


def name_of(text: str) -> int:
    """A group's name if it held this query alone: 64 bits of its text's identity."""
    return int.from_bytes(text_key(text)[:8], "big")


class Groups:
    """Union-find over queries in the order in which they are added."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self._parent = array("q")
        self._least = array("Q")

    def add(self, name: int, keys: Iterable[bytes]) -> None:
        """The next query: its own name, and what it may share with others."""
        number = len(self._parent)
        self._parent.append(number)
        self._least.append(name)
        for each in keys:
            first = self._spill.put(each, number)
            if first is not None:
                self._join(first, number)

    def name(self, number: int) -> int:
        """The name of the group of the query that was added as this one, from 0."""
        return self._least[self._root(number)]

    def _root(self, number: int) -> int:
        parent = self._parent
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    def _join(self, one: int, other: int) -> None:
        low, high = sorted((self._root(one), self._root(other)))
        self._parent[high] = low
        self._least[low] = min(self._least[low], self._least[high])


class Leaks:
    """Checks, while an export is written, that nothing which queries share is on two sides."""

    def __init__(self, spill: Spill) -> None:
        self._spill = spill
        self.found = 0

    def add(self, split: int, keys: Sequence[bytes]) -> None:
        """A query that is written into this split."""
        self.found += sum(self._spill.put(each, split) not in (None, split) for each in keys)

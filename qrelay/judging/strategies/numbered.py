"""Numbered lists of passages for prompts: a canonical order, seeded shuffles, windows, and replies read strictly."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from typing import Final

from qrelay.identity import digest
from qrelay.judging.strategies import hygiene
from qrelay.types import Passage

Text = tuple[str, str]
"""(title, text): what of a passage is read."""

NUMBERS: Final = re.compile(r"\[?\d{1,4}\]?(?:[\s,;>]*\[\d{1,4}\]|[\s,;>]+\d{1,4}\]?)*\.?")
"""Numbers, in brackets or not, with nothing but blanks, commas, semicolons or ">" between them."""
_NUMBER: Final = re.compile(r"\d+")


def read_numbers(reply: str, count: int) -> list[int] | None:
    """The numbers in `reply`, in its order: "[2] [5]", "2, 5", "[3] > [1]"; [] for "none".

    None where anything else is said, a number is not between 1 and `count`, or one comes twice: what it means would
    have to be guessed.
    """
    said = reply.strip()
    if said.casefold().rstrip(".") == "none":
        return []
    if not NUMBERS.fullmatch(said):
        return None
    numbers = [int(found) for found in _NUMBER.findall(said)]
    valid = all(1 <= number <= count for number in numbers) and len(set(numbers)) == len(numbers)
    return numbers if valid else None


def canonical(passages: Iterable[Passage]) -> list[Text]:
    """The different texts, sorted."""
    return sorted({(passage.title, passage.text) for passage in passages})


def shuffled(texts: Sequence[Text], query: str, number: int) -> list[Text]:
    """The shuffle of pass `number`, from 0; the same for the same texts, query and number."""
    seed = int(digest(hygiene.as_data(query), str(number))[:16], 16)
    return random.Random(seed).sample(texts, len(texts))


def size(text: str) -> int:
    """The words of `text`, or an eighth of its bytes where that is more (scripts without blanks)."""
    return max(len(text.split()), len(text.encode("utf-8", "replace")) // 8)


def windows(sizes: Sequence[int], budget: int, overlap: int) -> list[tuple[int, int]]:
    """[start, stop) of windows that cover a list, each of at most `budget` in all (or of one item). Neighbours share
    up to `overlap` items, fewer where the budget has no room for them beside the next item."""
    found: list[tuple[int, int]] = []
    start = stop = 0
    while stop < len(sizes):
        first = max(start, stop - overlap)
        start = next((n for n in range(first, stop) if sum(sizes[n : stop + 1]) <= budget), stop)
        stop += 1
        while stop < len(sizes) and sum(sizes[start : stop + 1]) <= budget:
            stop += 1
        found.append((start, stop))
    return found

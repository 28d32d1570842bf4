"""Texts or pairs in batches of about equal cost, the longest first, so that a batch pads little."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

CPU_TOKENS: Final = 2048
"""Of a batch on a processor, padding included."""
GPU_TOKENS: Final = 65_536


def batches(lengths: Sequence[int], tokens: int, most: int) -> Iterator[list[int]]:
    """Places, each once, at most `most` at a time; a batch's places times its longest are at most `tokens`, unless
    it is one alone."""
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    at = 0
    while at < len(order):
        many = max(1, min(most, tokens // max(1, lengths[order[at]])))
        yield order[at : at + many]
        at += many


def tokens_on(device: str) -> int:
    """Of a batch on this type of device."""
    return CPU_TOKENS if device == "cpu" else GPU_TOKENS

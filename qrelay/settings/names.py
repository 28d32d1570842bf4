"""Checks of names that several sections share."""

from __future__ import annotations

from qrelay.identity import valid_collection


def valid_collections(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names. Raises ValueError: no collection can have one of them."""
    if bad := [name for name in names if not valid_collection(name)]:
        raise ValueError(f"{', '.join(map(repr, bad))}: use up to 64 of a-z 0-9 _ -, the first a letter or digit")
    return names

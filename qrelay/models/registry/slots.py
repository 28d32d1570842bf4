"""Slots: the places that a version can serve.

A slot is of a kind, `bi_encoder` (the retriever's model) or `cross_encoder` (the reranker's), and named so: the
default slot, for every collection. A collection can have one of its own, `bi_encoder:medquad`. What is promoted there
serves that collection alone; while nothing is, the default slot's version does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from qrelay.errors import InputError
from qrelay.identity import valid_collection
from qrelay.nearest import did_you_mean

BI_ENCODER: Final = "bi_encoder"
"""The retriever's kind, and its default slot."""
CROSS_ENCODER: Final = "cross_encoder"
"""The reranker's."""
KINDS: Final = (BI_ENCODER, CROSS_ENCODER)
_OF: Final = ":"


def slot_of(kind: str, collection: str = "") -> str:
    """The collection's own slot; without a collection, the default one."""
    return f"{kind}{_OF}{collection}" if collection else kind


def kind_of(slot: str) -> str:
    """`bi_encoder` or `cross_encoder`."""
    return slot.partition(_OF)[0]


def collection_of(slot: str) -> str:
    """Whose own slot it is; "": the default slot."""
    return slot.partition(_OF)[2]


def in_words(slot: str) -> str:
    """The slot as a part of file names: `bi-encoder`, `bi-encoder-medquad`."""
    kind, collection = kind_of(slot).replace("_", "-"), collection_of(slot)
    return f"{kind}-{collection}" if collection else kind


def require_slot(slot: str, known: Iterable[str] = ()) -> None:
    """Raises InputError where there cannot be such a slot. known: slots that something was published for."""
    kind, colon, collection = slot.partition(_OF)
    if kind not in KINDS:
        meant = did_you_mean(slot, [*KINDS, *known])
        raise InputError(
            f"there is no slot {slot!r}: it is {' or '.join(KINDS)}, or with a collection, {KINDS[0]}:NAME.{meant}"
        )
    if colon and not valid_collection(collection):
        raise InputError(
            f"there is no slot {slot!r}: the collection's name is up to 64 of a-z 0-9 _ -, the first a letter or"
            f" digit; the default slot is {kind}"
        )

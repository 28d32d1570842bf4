"""Which questions are computed together, and what is not computed twice. Pure: token ids in, groups out.

Neighbours that begin alike (one query's passages, after the same instructions) form a group: their common prefix is
computed once, and what follows it in one padded batch. Order is kept, so a group is a run of neighbours.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

Ids = Sequence[int]

WORTHWHILE_TOKENS = 16
"""A shorter common prefix is not worth a cache of its own."""
_KEPT = 0.8
"""A question that would shorten the group's prefix to less than this share begins a new group (the next query)."""
_PADDED = 1.3
"""A group's batch is at most this many times as large as its tokens without padding."""


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """One sequence of token ids to compute. wanted: the positions whose predictions of the next token are read."""

    ids: tuple[int, ...]
    wanted: range

    @property
    def shareable(self) -> int:
        """How many tokens a prefix may take: the first position that is read must be computed."""
        return self.wanted.start


@dataclass(frozen=True, slots=True)
class Group:
    """Neighbours [start, stop) whose first `prefix` tokens are the same."""

    start: int
    stop: int
    prefix: int


def common(one: Ids, other: Ids) -> int:
    """The number of tokens with which both begin."""
    shortest = min(len(one), len(other))
    if tuple(one[:shortest]) == tuple(other[:shortest]):
        return shortest
    return next(n for n in range(shortest) if one[n] != other[n])


def groups(sequences: Sequence[TokenQuery], batch_tokens: int) -> Iterator[Group]:
    """The sequences in order, cut into groups whose padded rests hold at most `batch_tokens` tokens each; a longer
    sequence stands alone. A lone sequence's prefix is all that `shareable` allows."""
    start = 0
    while start < len(sequences):
        prefix, stop = sequences[start].shareable, start + 1
        while stop < len(sequences):
            new = min(prefix, sequences[stop].shareable, common(sequences[start].ids, sequences[stop].ids))
            if stop - start > 1 and new < _KEPT * prefix:
                break
            rests = [len(each.ids) - new for each in sequences[start : stop + 1]]
            padded = max(rests) * len(rests)
            if padded > min(batch_tokens, _PADDED * sum(rests)):
                break
            prefix, stop = new, stop + 1
        yield Group(start, stop, prefix if prefix >= WORTHWHILE_TOKENS else 0)
        start = stop


def padded_batches(sequences: Sequence[TokenQuery], batch_tokens: int) -> Iterator[Sequence[TokenQuery]]:
    """The sequences in order, cut into batches of at most `batch_tokens` tokens, padding included, and little of it;
    a longer sequence stands alone. For engines without a prefix cache."""
    start = 0
    for stop in range(1, len(sequences) + 1):
        lengths = [len(each.ids) for each in sequences[start : stop + 1]]
        padded = max(lengths) * len(lengths)
        if stop == len(sequences) or padded > min(batch_tokens, _PADDED * sum(lengths)):
            yield sequences[start:stop]
            start = stop

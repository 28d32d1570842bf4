"""Which questions are computed together, and what is not computed twice. Pure: token ids in, groups out.

Neighbours that begin alike (one query's passages, after the same instructions) form a group: their common prefix is
computed once, and what follows it in one padded batch. Order is kept, so a group is a run of neighbours. Engines
without a prefix cache pack the targets of one context into one row (`packed`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Ids = Sequence[int]

WORTHWHILE_TOKENS = 16
"""A shorter common prefix is not worth a cache of its own."""
_KEPT = 0.8
"""A question that would shorten the group's prefix to less than this share begins a new group (the next query)."""
_OWN = 0.5
"""A question that would lose more than this share of itself, which the one after it shares, begins a new group."""
_PADDED = 1.3
"""A group's batch is at most this many times as large as its tokens without padding."""
PADDING = 32
"""Tokens to whose multiple a sequence is padded where nothing else decides its width."""


@dataclass(frozen=True, slots=True)
class TokenQuery:
    """One sequence of token ids to compute. wanted: the positions whose predictions of the next token are read.
    shared: others are computed with it that are the same up to the first of these."""

    ids: tuple[int, ...]
    wanted: range
    shared: bool = False

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
    alike = [_alike(*pair) for pair in itertools.pairwise(sequences)]
    start = 0
    while start < len(sequences):
        prefix, stop = sequences[start].shareable, start + 1
        while stop < len(sequences):
            new = min(prefix, alike[stop - 1])
            if stop - start > 1 and new < _KEPT * prefix:
                break
            if stop < len(alike) and alike[stop] - new > _OWN * len(sequences[stop].ids):
                break
            rests = [len(each.ids) - new for each in sequences[start : stop + 1]]
            padded = max(rests) * len(rests)
            if padded > min(batch_tokens, _PADDED * sum(rests)):
                break
            prefix, stop = new, stop + 1
        yield Group(start, stop, prefix if prefix >= WORTHWHILE_TOKENS else 0)
        start = stop


def _alike(one: TokenQuery, other: TokenQuery) -> int:
    """The number of tokens that the two may share."""
    return min(one.shareable, other.shareable, common(one.ids, other.ids))


@dataclass(frozen=True, slots=True)
class Row:
    """What an engine without a prefix cache computes of one or several sequences, in order.

    ids and positions: of each token. branches: 0 for what all tokens after it see, n for what only the nth sequence's
    own do. places: for each sequence, the indices into `ids` after which its predictions are read.
    """

    ids: tuple[int, ...]
    positions: tuple[int, ...]
    branches: tuple[int, ...]
    places: tuple[tuple[int, ...], ...]


def packed(sequences: Sequence[TokenQuery], row_tokens: int) -> Iterator[Row]:
    """The sequences in order: a row each, but one row for neighbours that are `shared` and have one context, which
    then stands there once. A row takes no further sequence beyond `row_tokens`."""
    start = 0
    while start < len(sequences):
        stop, first = start + 1, sequences[start]
        tokens = first.wanted.stop
        while first.shared and stop < len(sequences) and _siblings(first, sequences[stop]):
            tokens += len(sequences[stop].wanted) - 1
            if tokens > row_tokens:
                break
            stop += 1
        yield _branched(sequences[start:stop]) if first.shared else _whole(first)
        start = stop


def _siblings(one: TokenQuery, other: TokenQuery) -> bool:
    head = one.wanted.start + 1
    return other.shared and other.wanted.start + 1 == head and other.ids[:head] == one.ids[:head]


def _whole(query: TokenQuery) -> Row:
    length = len(query.ids)
    return Row(query.ids, tuple(range(length)), (0,) * length, (tuple(query.wanted),))


def _branched(queries: Sequence[TokenQuery]) -> Row:
    """The context, whose last token predicts the first of every target, and what follows it of each, after which
    something is read."""
    head = queries[0].wanted.start + 1
    ids, positions, branches = list(queries[0].ids[:head]), list(range(head)), [0] * head
    places = []
    for number, query in enumerate(queries, 1):
        rest = query.ids[head : query.wanted.stop]
        places.append((head - 1, *range(len(ids), len(ids) + len(rest))))
        ids += rest
        positions += range(head, head + len(rest))
        branches += [number] * len(rest)
    return Row(tuple(ids), tuple(positions), tuple(branches), tuple(places))


def padded_batches(rows: Iterable[Row], batch_tokens: int) -> Iterator[tuple[Sequence[Row], int]]:
    """(rows, width): neighbours of one width, in order, at most `batch_tokens` tokens with their padding; a longer
    row stands alone.

    A width is a row's own length, rounded up to `PADDING`, whatever comes with it: with quantised activations
    another width moves log-probabilities (by 0.36 at most for a 135M model, 0.23 for a 0.5B), other rows do not.
    """
    for width, alike in itertools.groupby(rows, key=lambda each: -(-len(each.ids) // PADDING) * PADDING):
        together, most = list(alike), max(1, batch_tokens // width)
        for start in range(0, len(together), most):
            yield together[start : start + most], width

"""Which of the kept candidates the judge shall see: a pure function.

The head of the ranking, because that is where the model's mistakes cost most; then one candidate from
each of equal strata of the remaining ranks, because negatives from one rank region are alike. At
most a few passages of one document, so that a long document cannot fill the sample. The choice within a
stratum is drawn from a generator seeded by the query: the same query always gets the same sample, on
every replica.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

from qrelay.identity import digest
from qrelay.types import Candidate, Query


def sample_indices(
    query: Query, ranked: Sequence[Candidate], *, size: int, head: int, max_per_document: int
) -> set[int]:
    """Indices into `ranked` (best first) of at most `size` candidates.

    Fewer than `size` only where the per-document limit leaves no more.
    """
    per_document: Counter[str] = Counter()
    chosen: set[int] = set()

    def take(index: int) -> bool:
        passage = ranked[index].passage
        document = passage.doc_id
        if not (passage.text or passage.title):  # lost to a message's limit: nothing to judge
            return False
        if len(chosen) >= size or index in chosen or per_document[document] >= max_per_document:
            return False
        per_document[document] += 1
        chosen.add(index)
        return True

    for index in range(min(head, len(ranked))):
        take(index)
    generator = random.Random(digest(query.collection, query.query_id, query.text))
    for stratum in _strata(len(ranked), head, size - len(chosen)):
        generator.shuffle(stratum)
        any(take(index) for index in stratum)
    for index in range(len(ranked)):
        take(index)
    return chosen


def _strata(length: int, start: int, count: int) -> list[list[int]]:
    """Ranks from `start` to `length` in `count` runs of near-equal length, in order."""
    rest = list(range(start, length))
    if count <= 0 or not rest:
        return []
    bounds = [round(i * len(rest) / count) for i in range(count + 1)]
    return [rest[low:high] for low, high in pairwise(bounds) if high > low]

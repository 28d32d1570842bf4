"""The judge's sample: spread, limited per document, and the same every time."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from qrelay.services.reranker.sampling import sample_indices
from tests import samples

SETTINGS = {"size": 25, "head": 10, "max_per_document": 2}


def test_the_head_of_the_ranking_is_always_in_the_sample() -> None:
    ranked = samples.candidates(40)
    assert set(range(10)) <= sample_indices(samples.query(), ranked, **SETTINGS)


def test_the_rest_is_spread_over_the_remaining_ranks() -> None:
    ranked = samples.candidates(40)
    chosen = sorted(sample_indices(samples.query(), ranked, **SETTINGS) - set(range(10)))
    assert len(chosen) == 15
    gaps = [b - a for a, b in zip([9, *chosen], [*chosen, 40], strict=True)]
    assert max(gaps) <= 4


def test_a_query_gets_the_same_sample_every_time_and_another_query_another() -> None:
    ranked = samples.candidates(40)
    first = sample_indices(samples.query(1), ranked, **SETTINGS)
    assert first == sample_indices(samples.query(1), ranked, **SETTINGS)
    others = [sample_indices(samples.query(number), ranked, **SETTINGS) for number in range(2, 6)]
    assert any(other != first for other in others)


@given(
    count=st.integers(0, 60),
    per_document=st.integers(1, 12),
    size=st.integers(1, 30),
    head=st.integers(0, 30),
    limit=st.integers(1, 3),
)
def test_never_more_than_allowed_of_a_document_and_never_fewer_than_possible(
    count: int, per_document: int, size: int, head: int, limit: int
) -> None:
    ranked = samples.candidates(count, per_document)
    chosen = sample_indices(samples.query(), ranked, size=size, head=head, max_per_document=limit)
    documents = Counter(ranked[i].passage.doc_id for i in chosen)
    assert all(number <= limit for number in documents.values())
    possible = sum(min(limit, number) for number in Counter(c.passage.doc_id for c in ranked).values())
    assert len(chosen) == min(size, possible)

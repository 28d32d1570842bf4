"""What people should grade next, so that intervals are narrow for the fewest grades.

Whole queries come in an order of chance. Pairs are drawn with a probability that grows with how far their grade moves
the measures of the runs; a tenth of the sample is spread evenly, so that every pair has a chance, and other measures
and systems can be estimated too ("Active statistical inference", Zrnic and Candès, ICML 2024, mix likewise). A pair
is drawn where a number that belongs to it and the seed lies below its probability: a larger sample of the same seed
holds the smaller one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from qrelay.errors import InputError
from qrelay.formats.beir import Qrels, Run
from qrelay.formats.graded_sample import GradedSample
from qrelay.identity import digest
from qrelay.training.evaluation.agreement import Judged
from qrelay.training.evaluation.pair_sample import Frame, chances_of, influence
from qrelay.training.evaluation.powered import needed

_DIGITS: Final = 13
"""Hexadecimal ones, of a number by chance."""


def whole_queries(
    llm: Qrels, runs: Mapping[str, Run], measures: Sequence[str], n: int, seed: int
) -> Iterator[tuple[str, str]]:
    """The pairs to grade of `n` queries, or all where there are fewer; query by query in their order by chance, so
    that those who stop at the end of a query have a smaller sample of the same kind.

    Raises:
        InputError: fewer than 3 queries.
    """
    if min(n, len(llm)) < 3:
        raise InputError(f"{min(n, len(llm))} queries: an interval needs at least 3 in the sample, better 20")
    for query_id in sorted(llm, key=lambda each: digest(str(seed), each))[:n]:
        yield from ((query_id, doc_id) for doc_id in sorted(needed(llm[query_id], query_id, runs, measures)))


def drawn_pairs(
    llm: Judged, runs: Mapping[str, Run], measures: Sequence[str], n: int, seed: int
) -> dict[tuple[str, str], float]:
    """(query, document) -> its probability, of about `n` pairs. Raises InputError: a measure that is no sum."""
    frame = Frame.of(llm.qrels, GradedSample({}))
    chances = chances_of(influence(frame, llm.relevant_from, runs, measures), n).tolist()
    names = [query_id for query_id, rows in zip(frame.queries, frame.rows, strict=True) for _ in frame.docs[rows]]
    pairs = zip(names, frame.docs, chances, strict=True)
    return {(query_id, doc_id): p for query_id, doc_id, p in pairs if _number(seed, query_id, doc_id) < p}


def _number(seed: int, query_id: str, doc_id: str) -> float:
    """Between 0 and 1, by chance, but the same for the pair and the seed."""
    return int(digest(str(seed), query_id, doc_id)[:_DIGITS], 16) / 16.0**_DIGITS

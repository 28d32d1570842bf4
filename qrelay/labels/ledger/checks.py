"""What a judged set must be so that every database can hold it, and every format of an export say it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import fields
from typing import Any, Final

from qrelay.errors import InvalidQuery, MalformedInput
from qrelay.identity import require_collection
from qrelay.labels.ledger.columns import Columns, Judged
from qrelay.types import MAX_ROUND, JudgeIdentity, Query, Utility

_ROUNDING: Final = 1e-6
"""How far a sum of probabilities may leave 0..1 by floating point alone."""
INTEGER: Final = range(-(2**31), 2**31)
"""What an INTEGER holds in every database."""
GradedValues = tuple[int, int, Sequence[float], float, float, float]
"""Of a grade: grade, min_grade, probabilities, expected_relevance, entropy, p_relevant."""
_JUDGE_FIELDS: Final = tuple(field.name for field in fields(JudgeIdentity))


def unfit_for_trec(identifier: str) -> bool:
    """Whether an id is empty or holds whitespace: TREC files separate their columns by whitespace."""
    return identifier.split() != [identifier]


def check_query(query: Query) -> None:
    """Raises InvalidQuery: see the module."""
    if unfit_for_trec(query.query_id):
        raise InvalidQuery(
            f"query_id {query.query_id[:80]!r} is empty or contains whitespace, which TREC qrels cannot hold:"
            " use an id without whitespace"
        )
    require_collection(query.collection)
    if not query.text.strip():
        raise InvalidQuery(f"query {query.query_id} has an empty text: give it one or leave it out")
    if not 0 <= query.round <= MAX_ROUND:
        raise InvalidQuery(f"query {query.query_id} is of round {query.round}: use 0 to {MAX_ROUND}")


def check_passages(columns: Columns) -> None:
    """Raises MalformedInput: a passage twice, one that no TREC file can name, or a judgment of none of them."""
    query_id, ids = columns.query.query_id, columns.passage_ids
    known = set(ids)
    if len(known) != len(ids):
        twice = sorted({i for i in ids if ids.count(i) > 1})[:3]
        raise MalformedInput(f"query {query_id} lists passages twice: {', '.join(twice)}; list each once")
    if " ".join(ids).split() != ids and (bad := next(filter(unfit_for_trec, ids), None)) is not None:
        raise MalformedInput(
            f"query {query_id}: passage_id {bad[:80]!r} is empty or contains whitespace, which TREC"
            " qrels cannot hold: rename the document and build the index again"
        )
    not_candidates = sorted({judged.passage_id for judged in columns.judgments} - known)[:3]
    if not_candidates:
        raise MalformedInput(
            f"query {query_id} has judgments of passages that are not its candidates: {', '.join(not_candidates)}"
        )


def nul_in_texts(columns: Columns) -> list[str]:
    """The passages with a NUL character in their title or text, which PostgreSQL's texts cannot hold."""
    if "\0" not in "".join(columns.texts) and "\0" not in "".join(columns.titles):
        return []
    each = zip(columns.passage_ids, columns.titles, columns.texts, strict=True)
    return [passage_id for passage_id, title, text in each if "\0" in title or "\0" in text]


def check_nul(columns: Columns) -> None:
    """Raises MalformedInput: a NUL character in what is stored beside passages and what counts as evidence."""
    if "\0" not in "".join([value for _, values in _short_texts(columns) for value in values]):
        return
    name = next(name for name, values in _short_texts(columns) for value in values if "\0" in value)
    raise MalformedInput(
        f"query {columns.query.query_id!r} has a NUL character in a {name}, which texts in databases"
        " cannot hold: remove it at the source"
    )


def _short_texts(columns: Columns) -> Iterator[tuple[str, list[str]]]:
    """(name of the field, its texts)."""
    query, judgments = columns.query, columns.judgments
    yield "passage_id", columns.passage_ids
    yield "doc_id", columns.doc_ids
    yield "query_id", [query.query_id]
    yield "query text", [query.text]
    yield "index_version", [columns.index_version]
    yield "judgment_key", [judged.judgment_key for judged in judgments]
    yield "calibration", [judged.outcome.calibration for judged in judgments if judged.grade]
    yield "missing_reason", [judged.outcome.reason for judged in judgments if not judged.grade]
    for judge in {id(judged.judge): judged.judge for judged in judgments}.values():
        for name in _JUDGE_FIELDS:
            yield f"judge's {name}", [getattr(judge, name)]


def check_tokens(judged: Judged, prompt_tokens: int) -> None:
    """Raises MalformedInput: a number that no INTEGER holds."""
    if prompt_tokens not in INTEGER:
        raise MalformedInput(
            f"the judgment of passage {judged.passage_id} cannot be stored: prompt_tokens {prompt_tokens}"
        )


def check_grade(passage_id: str, graded: Any, values: GradedValues, utility: Utility | None) -> None:
    """Raises MalformedInput: a number that is not finite, or a grade that its probabilities do not have."""
    grade, min_grade, probabilities, expected, entropy, p_relevant = values
    total = sum(probabilities, expected + entropy + p_relevant)
    if utility:
        total += (utility.nll or 0.0) + (utility.nll_without_passage or 0.0)
    if not math.isfinite(total):  # a sum is finite where all its terms are
        raise MalformedInput(f"the judgment of passage {passage_id} holds a number that is not finite: {graded}")
    offset = grade - min_grade
    if offset < 0 or (probabilities and offset >= len(probabilities)):
        raise MalformedInput(
            f"the judgment of passage {passage_id} has grade {grade}, outside its probabilities: {graded}"
        )
    if grade not in INTEGER or min_grade not in INTEGER:
        raise MalformedInput(f"the judgment of passage {passage_id} has grade {grade}, which cannot be stored")
    if not -_ROUNDING <= p_relevant <= 1 + _ROUNDING:
        raise MalformedInput(f"the judgment of passage {passage_id} has p_relevant {p_relevant}: not in 0..1")

"""A judged set as the rows that it becomes: everything that can be checked and computed before the
database's lock is taken."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, NamedTuple

import orjson

from qrelay.errors import MalformedInput, QrelayError
from qrelay.identity import query_fingerprint
from qrelay.labels.ledger import checks, summaries
from qrelay.labels.ledger.columns import Columns, Judged, of_record
from qrelay.labels.ledger.packing import hash_of, pack
from qrelay.labels.ledger.times import microseconds
from qrelay.types import JudgedSet, JudgeIdentity, Query, Utility, without_text

log = logging.getLogger(__name__)

Row = dict[str, Any]


class JudgmentRow(NamedTuple):
    """A row of `judgments` without the numbers of its query and judge, which its transaction gives: what every row
    has, what a grade has, what a utility is, and what a missing judgment has."""

    passage_id: str
    judgment_key: str
    generation: int
    judged_us: int
    cached: int
    raw_reply: str
    prompt_tokens: int
    grade: int | None = None
    min_grade: int | None = None
    probabilities: str | None = None
    expected_relevance: float | None = None
    entropy: float | None = None
    p_relevant: float | None = None
    calibration: str | None = None
    utility: str | None = None
    missing_reason: str | None = None
    missing_detail: str | None = None


class PassageRow(NamedTuple):
    """A row of `passages`."""

    collection: str
    text_hash: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class PreparedSet:
    """One judged set, checked, as rows that lack only the numbers and times that its transaction gives. No two of its
    judgments have the same key."""

    record: Callable[[], JudgedSet]
    """Makes the set's record."""
    query: Query
    submission: str
    query_row: Row
    packed: bytes
    passage_rows: list[PassageRow]
    judgment_rows: list[JudgmentRow]
    judges: list[JudgeIdentity]
    """judges[i] made judgment_rows[i]."""


def evidence(text: str) -> str:
    """What a model or a failing stage said, as every database can keep it: U+FFFD for NUL."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def prepare(source: JudgedSet | Columns) -> PreparedSet | QrelayError:
    """The set's rows, or what is wrong with it: InvalidQuery or MalformedInput. A passage whose title or text no
    database can hold stays without them: the others were judged too, and paid for."""
    query = source.query if isinstance(source, Columns) else source.candidate_set.query
    try:
        checks.check_query(query)
        columns = source if isinstance(source, Columns) else of_record(source)
        if unfit := checks.nul_in_texts(columns):
            columns = of_record(_without_texts(columns.record(), unfit))
        return _prepared(columns)
    except QrelayError as error:
        return error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        return MalformedInput(f"judged set of query {query.query_id!r} cannot be stored: {error}")


def _prepared(columns: Columns) -> PreparedSet:
    query = columns.query
    hashes = list(map(hash_of, columns.titles, columns.texts))
    checks.check_passages(columns)
    checks.check_nul(columns)
    judgments = _without_repeats(columns.judgments)
    rows = [_judgment_row(judged) for judged in judgments]
    judges = [judged.judge for judged in judgments]
    return PreparedSet(
        record=columns.record,
        query=query,
        submission=query_fingerprint(query.collection, query.query_id, query.text),
        query_row=_query_row(columns, rows, judges),
        packed=pack(columns, hashes),
        passage_rows=_passage_rows(columns, hashes),
        judgment_rows=rows,
        judges=judges,
    )


def _without_repeats(judgments: Sequence[Judged]) -> Sequence[Judged]:
    """Of two with one key the first counts."""
    if len({judged[:2] for judged in judgments}) == len(judgments):
        return judgments
    return [*reversed({judged[:2]: judged for judged in reversed(judgments)}.values())]


def _without_texts(record: JudgedSet, passage_ids: Collection[str]) -> JudgedSet:
    """PostgreSQL's texts hold no NUL, and so no ledger's do: a passage with one has neither title nor text."""
    each = record.candidate_set
    log.warning(
        "%d passages of query %s hold a NUL character, which databases cannot: stored without title and text, such as"
        " %s; build the index again, which replaces it", len(passage_ids), each.query.query_id, min(passage_ids),
    )  # fmt: skip
    candidates = tuple(without_text(c) if c.passage.passage_id in passage_ids else c for c in each.candidates)
    return replace(record, candidate_set=replace(each, candidates=candidates))


def _query_row(columns: Columns, rows: Sequence[JudgmentRow], judges: Sequence[JudgeIdentity]) -> Row:
    query = columns.query
    return {
        "collection": query.collection,
        "query_id": query.query_id,
        "text": query.text,
        "attributes": orjson.dumps(dict(query.attributes), option=orjson.OPT_SORT_KEYS).decode(),
        "reference_answers": orjson.dumps(list(query.reference_answers)).decode(),
        "submitted_us": microseconds(query.submitted_at) if query.submitted_at else None,
        "index_version": columns.index_version,
        "judgments": len(rows),
        "pairs": len({row.passage_id for row in rows}),
        "missing": sum(row.grade is None for row in rows),
        "cached": sum(row.cached for row in rows),
        "prompt_tokens": sum(row.prompt_tokens for row in rows),
        "round": query.round,
        **summaries.of_rows(rows, judges),
    }


def _passage_rows(columns: Columns, hashes: list[str]) -> list[PassageRow]:
    collection = columns.query.collection
    each = zip(hashes, columns.titles, columns.texts, strict=True)
    return [PassageRow(collection, hashed, title, text) for hashed, title, text in each if hashed]


def _judgment_row(judged: Judged) -> JudgmentRow:
    told, outcome = judged.told, judged.outcome
    prompt_tokens = told.prompt_tokens
    checks.check_tokens(judged, prompt_tokens)
    common = (
        judged.passage_id,
        judged.judgment_key,
        0,
        judged.judged_us,
        int(told.cached),
        evidence(told.raw_reply),
        prompt_tokens,
    )
    if judged.grade:
        return JudgmentRow(*common, *_graded_columns(judged.passage_id, outcome, judged.utility))
    if not outcome.reason:
        raise MalformedInput(f"passage {judged.passage_id} is missing without a reason: give one")
    return JudgmentRow(*common, missing_reason=outcome.reason, missing_detail=evidence(outcome.detail))


def _graded_columns(passage_id: str, graded: Any, utility: Utility | None) -> tuple[Any, ...]:
    """The columns from grade to utility."""
    probabilities = list(graded.probabilities)
    grade, min_grade, p_relevant = graded.grade, graded.min_grade, graded.p_relevant
    expected, entropy = graded.expected_relevance, graded.entropy
    checks.check_grade(passage_id, graded, (grade, min_grade, probabilities, expected, entropy, p_relevant), utility)
    return (
        grade,
        min_grade,
        orjson.dumps(probabilities).decode(),
        expected,
        entropy,
        p_relevant,
        graded.calibration,
        orjson.dumps(astuple(utility)).decode() if utility else None,
    )

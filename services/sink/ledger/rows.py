"""A judged set as the rows that it becomes: everything that can be checked and computed before the
database's lock is taken."""

from __future__ import annotations

import math
from dataclasses import astuple, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from qrelay.errors import InvalidQuery, MalformedInput, QrelayError
from qrelay.identity import query_fingerprint, valid_collection
from qrelay.types import CandidateSet, Graded, JudgedSet, JudgeIdentity, Judgment, Missing, Query
from services.sink.ledger.packing import pack, text_hash

Row = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ROUNDING = 1e-6
"""How far a sum of probabilities may leave 0..1 by floating point alone."""


@dataclass(frozen=True, slots=True)
class PreparedSet:
    """One judged set, checked, as rows that lack only the numbers and times that its transaction gives."""

    record: JudgedSet
    query: Query
    submission: str
    query_row: Row
    packed: bytes
    passage_rows: list[Row]
    judgment_rows: list[Row]
    judges: list[JudgeIdentity]
    """judges[i] made judgment_rows[i]."""


def microseconds(when: datetime) -> int:
    """A time with a zone as microseconds since 1970 UTC, exactly."""
    return (when - _EPOCH) // _MICROSECOND


def moment(microseconds_utc: int) -> datetime:
    """The inverse of `microseconds`."""
    return _EPOCH + microseconds_utc * _MICROSECOND


def prepare(record: JudgedSet) -> PreparedSet | QrelayError:
    """The set's rows, or what is wrong with it: InvalidQuery or MalformedInput."""
    query = record.candidate_set.query
    try:
        _check_query(query)
        hashes = [text_hash(candidate.passage) for candidate in record.candidate_set.candidates]
        _check_passages(record)
        rows = [_judgment_row(judgment) for judgment in record.judgments]
        return PreparedSet(
            record=record,
            query=query,
            submission=query_fingerprint(query.collection, query.query_id, query.text),
            query_row=_query_row(record),
            packed=pack(record.candidate_set, hashes),
            passage_rows=_passage_rows(record.candidate_set, hashes),
            judgment_rows=rows,
            judges=[judgment.judge for judgment in record.judgments],
        )
    except QrelayError as error:
        return error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        return MalformedInput(f"judged set of query {query.query_id!r} cannot be stored: {error}")


def unfit_for_trec(identifier: str) -> bool:
    """Whether an id is empty or holds whitespace: TREC files separate their columns by whitespace."""
    return identifier.split() != [identifier]


def _check_query(query: Query) -> None:
    if unfit_for_trec(query.query_id):
        raise InvalidQuery(
            f"query_id {query.query_id[:80]!r} is empty or contains whitespace, which TREC qrels cannot hold:"
            " use an id without whitespace"
        )
    if not valid_collection(query.collection):
        raise InvalidQuery(
            f"collection {query.collection[:80]!r} of query {query.query_id} is not a name: use up to 64 of"
            " a-z 0-9 _ -, the first a letter or digit"
        )
    if not query.text.strip():
        raise InvalidQuery(f"query {query.query_id} has an empty text: give it one or leave it out")


def _check_passages(record: JudgedSet) -> None:
    query_id = record.candidate_set.query.query_id
    ids = [candidate.passage.passage_id for candidate in record.candidate_set.candidates]
    known = set(ids)
    if len(known) != len(ids):
        twice = sorted({i for i in ids if ids.count(i) > 1})[:3]
        raise MalformedInput(f"query {query_id} lists passages twice: {', '.join(twice)}; list each once")
    for passage_id in ids:
        if unfit_for_trec(passage_id):
            raise MalformedInput(
                f"query {query_id}: passage_id {passage_id[:80]!r} is empty or contains whitespace, which TREC"
                " qrels cannot hold: rename the document and build the index again"
            )
    strangers = sorted({j.passage_id for j in record.judgments} - known)[:3]
    if strangers:
        raise MalformedInput(
            f"query {query_id} has judgments of passages that are not its candidates: {', '.join(strangers)}"
        )


def _query_row(record: JudgedSet) -> Row:
    query, judgments = record.candidate_set.query, record.judgments
    return {
        "collection": query.collection,
        "query_id": query.query_id,
        "text": query.text,
        "attributes": orjson.dumps(dict(query.attributes), option=orjson.OPT_SORT_KEYS).decode(),
        "reference_answers": orjson.dumps(list(query.reference_answers)).decode(),
        "submitted_us": microseconds(query.submitted_at) if query.submitted_at else None,
        "index_version": record.candidate_set.index_version,
        "judgments": len(judgments),
        "pairs": len({judgment.passage_id for judgment in judgments}),
        "missing": sum(isinstance(judgment.outcome, Missing) for judgment in judgments),
        "cached": sum(judgment.cached for judgment in judgments),
        "prompt_tokens": sum(judgment.prompt_tokens for judgment in judgments),
    }


def _passage_rows(record: CandidateSet, hashes: list[str]) -> list[Row]:
    collection = record.query.collection
    return [
        {"collection": collection, "text_hash": hashed, "title": c.passage.title, "text": c.passage.text}
        for c, hashed in zip(record.candidates, hashes, strict=True)
        if hashed
    ]


_NO_GRADE = {
    "grade": None,
    "min_grade": None,
    "probabilities": None,
    "expected_relevance": None,
    "entropy": None,
    "p_relevant": None,
    "calibration": None,
    "utility": None,
}


def _judgment_row(judgment: Judgment) -> Row:
    match judgment.outcome:
        case Graded() as graded:
            outcome = _graded_columns(judgment.passage_id, graded)
        case Missing(reason, detail):
            if not reason:
                raise MalformedInput(f"passage {judgment.passage_id} is missing without a reason: give one")
            outcome = {**_NO_GRADE, "missing_reason": reason, "missing_detail": detail}
    return {
        "passage_id": judgment.passage_id,
        "judgment_key": judgment.judgment_key,
        "generation": 0,
        **outcome,
        "judged_us": microseconds(judgment.judged_at),
        "cached": judgment.cached,
        "raw_reply": judgment.raw_reply,
        "prompt_tokens": judgment.prompt_tokens,
    }


def _graded_columns(passage_id: str, graded: Graded) -> Row:
    numbers = [*graded.probabilities, graded.expected_relevance, graded.entropy, graded.p_relevant]
    if graded.utility:
        numbers += [n for n in (graded.utility.nll, graded.utility.nll_without_passage) if n is not None]
    if not all(map(math.isfinite, numbers)):
        raise MalformedInput(f"the judgment of passage {passage_id} holds a number that is not finite: {graded}")
    offset = graded.grade - graded.min_grade
    if offset < 0 or (graded.probabilities and offset >= len(graded.probabilities)):
        raise MalformedInput(
            f"the judgment of passage {passage_id} has grade {graded.grade}, outside its probabilities: {graded}"
        )
    if not -_ROUNDING <= graded.p_relevant <= 1 + _ROUNDING:
        raise MalformedInput(f"the judgment of passage {passage_id} has p_relevant {graded.p_relevant}: not in 0..1")
    return {
        "grade": graded.grade,
        "min_grade": graded.min_grade,
        "probabilities": orjson.dumps(graded.probabilities).decode(),
        "expected_relevance": graded.expected_relevance,
        "entropy": graded.entropy,
        "p_relevant": graded.p_relevant,
        "calibration": graded.calibration,
        "utility": orjson.dumps(astuple(graded.utility)).decode() if graded.utility else None,
        "missing_reason": None,
        "missing_detail": None,
    }

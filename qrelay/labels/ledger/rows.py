"""A judged set as the rows that it becomes: everything that can be checked and computed before the
database's lock is taken."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import orjson

from qrelay.errors import InvalidQuery, MalformedInput, QrelayError
from qrelay.identity import query_fingerprint, require_collection
from qrelay.labels.ledger import summaries
from qrelay.labels.ledger.packing import pack, text_hash
from qrelay.types import (
    MAX_ROUND,
    CandidateSet,
    Graded,
    JudgedSet,
    JudgeIdentity,
    Judgment,
    Missing,
    Query,
    without_text,
)

log = logging.getLogger(__name__)

Row = dict[str, Any]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_ROUNDING = 1e-6
"""How far a sum of probabilities may leave 0..1 by floating point alone."""
_INTEGER: Final = range(-(2**31), 2**31)
"""What an INTEGER holds in every database."""


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

    record: JudgedSet
    query: Query
    submission: str
    query_row: Row
    packed: bytes
    passage_rows: list[PassageRow]
    judgment_rows: list[JudgmentRow]
    judges: list[JudgeIdentity]
    """judges[i] made judgment_rows[i]."""


def microseconds(when: datetime) -> int:
    """A time with a zone as microseconds since 1970 UTC, exactly."""
    since = when - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def moment(microseconds_utc: int) -> datetime:
    """The inverse of `microseconds`."""
    return _EPOCH + microseconds_utc * _MICROSECOND


def evidence(text: str) -> str:
    """What a model or a failing stage said, as every database can keep it: U+FFFD for NUL."""
    return text.replace("\0", "\ufffd") if "\0" in text else text


def prepare(record: JudgedSet) -> PreparedSet | QrelayError:
    """The set's rows, or what is wrong with it: InvalidQuery or MalformedInput. A passage whose title or text no
    database can hold stays without them: the others were judged too, and paid for."""
    query = record.candidate_set.query
    try:
        _check_query(query)
        record = _without_nul(record)
        hashes = [text_hash(candidate.passage) for candidate in record.candidate_set.candidates]
        _check_passages(record)
        _check_nul(record)
        judgments = _without_repeats(record.judgments)
        return PreparedSet(
            record=record,
            query=query,
            submission=query_fingerprint(query.collection, query.query_id, query.text),
            query_row=_query_row(record, judgments),
            packed=pack(record.candidate_set, hashes),
            passage_rows=_passage_rows(record.candidate_set, hashes),
            judgment_rows=[_judgment_row(judgment) for judgment in judgments],
            judges=[judgment.judge for judgment in judgments],
        )
    except QrelayError as error:
        return error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        return MalformedInput(f"judged set of query {query.query_id!r} cannot be stored: {error}")


def _without_repeats(judgments: Sequence[Judgment]) -> Sequence[Judgment]:
    """Of two with one key the first counts."""
    if len({(judgment.passage_id, judgment.judgment_key) for judgment in judgments}) == len(judgments):
        return judgments
    keyed = {(judgment.passage_id, judgment.judgment_key): judgment for judgment in reversed(judgments)}
    return [*reversed(keyed.values())]


def unfit_for_trec(identifier: str) -> bool:
    """Whether an id is empty or holds whitespace: TREC files separate their columns by whitespace."""
    return identifier.split() != [identifier]


def _check_query(query: Query) -> None:
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
    not_candidates = sorted({j.passage_id for j in record.judgments} - known)[:3]
    if not_candidates:
        raise MalformedInput(
            f"query {query_id} has judgments of passages that are not its candidates: {', '.join(not_candidates)}"
        )


def _without_nul(record: JudgedSet) -> JudgedSet:
    """PostgreSQL's texts hold no NUL, and so no ledger's do: a passage with one has neither title nor text."""
    each = record.candidate_set
    bad = [c.passage.passage_id for c in each.candidates if "\0" in c.passage.text or "\0" in c.passage.title]
    if not bad:
        return record
    log.warning(
        "%d passages of query %s hold a NUL character, which databases cannot: stored without title and text, such as"
        " %s; build the index again, which replaces it", len(bad), each.query.query_id, bad[0],
    )  # fmt: skip
    dropped = frozenset(bad)
    candidates = tuple(without_text(c) if c.passage.passage_id in dropped else c for c in each.candidates)
    return replace(record, candidate_set=replace(each, candidates=candidates))


def _check_nul(record: JudgedSet) -> None:
    """What else is stored must hold none."""
    ids = [("passage_id", candidate.passage.passage_id) for candidate in record.candidate_set.candidates]
    ids += [("doc_id", candidate.passage.doc_id) for candidate in record.candidate_set.candidates]
    short = _short_texts(record)
    if "\0" not in "".join([value for _, value in ids]) and "\0" not in "".join([value for _, value in short]):
        return
    name = next(name for name, value in [*ids, *short] if "\0" in value)
    raise MalformedInput(
        f"query {record.candidate_set.query.query_id!r} has a NUL character in a {name}, which texts in databases"
        " cannot hold: remove it at the source"
    )


def _short_texts(record: JudgedSet) -> list[tuple[str, str]]:
    """(name of the field, text) of what is stored of a set beside its passages and what counts as evidence."""
    query = record.candidate_set.query
    texts = [("query_id", query.query_id), ("query text", query.text)]
    texts.append(("index_version", record.candidate_set.index_version))
    for judgment in record.judgments:
        outcome = judgment.outcome
        texts.append(("judgment_key", judgment.judgment_key))
        if isinstance(outcome, Graded):
            texts.append(("calibration", outcome.calibration))
        else:
            texts.append(("missing_reason", outcome.reason))
    for judge in {id(judgment.judge): judgment.judge for judgment in record.judgments}.values():
        texts += [(f"judge's {field.name}", getattr(judge, field.name)) for field in fields(judge)]
    return texts


def _query_row(record: JudgedSet, judgments: Sequence[Judgment]) -> Row:
    query = record.candidate_set.query
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
        "round": query.round,
        **summaries.of_judgments(judgments),
    }


def _passage_rows(record: CandidateSet, hashes: list[str]) -> list[PassageRow]:
    collection = record.query.collection
    return [
        PassageRow(collection, hashed, c.passage.title, c.passage.text)
        for c, hashed in zip(record.candidates, hashes, strict=True)
        if hashed
    ]


def _judgment_row(judgment: Judgment) -> JudgmentRow:
    if judgment.prompt_tokens not in _INTEGER:
        raise MalformedInput(
            f"the judgment of passage {judgment.passage_id} cannot be stored: prompt_tokens {judgment.prompt_tokens}"
        )
    common = (
        judgment.passage_id,
        judgment.judgment_key,
        0,
        microseconds(judgment.judged_at),
        int(judgment.cached),
        evidence(judgment.raw_reply),
        judgment.prompt_tokens,
    )
    match judgment.outcome:
        case Graded() as graded:
            return JudgmentRow(*common, *_graded_columns(judgment.passage_id, graded))
        case Missing(reason, detail):
            if not reason:
                raise MalformedInput(f"passage {judgment.passage_id} is missing without a reason: give one")
            return JudgmentRow(*common, missing_reason=reason, missing_detail=evidence(detail))


def _graded_columns(passage_id: str, graded: Graded) -> tuple[Any, ...]:
    """The columns from grade to utility."""
    _check_grade(passage_id, graded)
    return (
        graded.grade,
        graded.min_grade,
        orjson.dumps(graded.probabilities).decode(),
        graded.expected_relevance,
        graded.entropy,
        graded.p_relevant,
        graded.calibration,
        orjson.dumps(astuple(graded.utility)).decode() if graded.utility else None,
    )


def _check_grade(passage_id: str, graded: Graded) -> None:
    total = sum(graded.probabilities, graded.expected_relevance + graded.entropy + graded.p_relevant)
    if graded.utility:
        total += (graded.utility.nll or 0.0) + (graded.utility.nll_without_passage or 0.0)
    if not math.isfinite(total):  # a sum is finite where all its terms are
        raise MalformedInput(f"the judgment of passage {passage_id} holds a number that is not finite: {graded}")
    offset = graded.grade - graded.min_grade
    if offset < 0 or (graded.probabilities and offset >= len(graded.probabilities)):
        raise MalformedInput(
            f"the judgment of passage {passage_id} has grade {graded.grade}, outside its probabilities: {graded}"
        )
    if graded.grade not in _INTEGER or graded.min_grade not in _INTEGER:
        raise MalformedInput(f"the judgment of passage {passage_id} has grade {graded.grade}, which cannot be stored")
    if not -_ROUNDING <= graded.p_relevant <= 1 + _ROUNDING:
        raise MalformedInput(f"the judgment of passage {passage_id} has p_relevant {graded.p_relevant}: not in 0..1")

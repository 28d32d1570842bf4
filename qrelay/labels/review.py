"""Which pairs people should look at: queries over the ledger, a page at a time, for a review page and `label queue`.

    page = by_disagreement(ledger, "medquad", page_size=50)
    page = by_disagreement(ledger, "medquad", page_size=50, page_token=page.next_page_token)

- by disagreement: the spread (largest less smallest, 0 to 1) of what a pair's judges say: the expected relevance, as
  a share of the way from the scale's least grade to its highest; P(relevant) where a scale is not LOW-HIGH. Combined
  judges have no opinion of their own and are left out, and so are pairs with a spread of 0.
- by uncertainty: 1 - |2 P(relevant) - 1| of the judges' label that counts (`choice.py`): 1 at P = 0.5, 0 where it is
  sure. A pair whose label is missing has none, and is left out.
- by query: all pairs of a query, by passage_id; those too that only people named.

The first two are sorted in the database, ties by query_id and passage_id, and paged by key: a page costs one pass
over the collection's judgments there, and here the memory of the page alone. A token goes on where its page ended
whatever was written since; a pair whose measure changed meanwhile may come twice or not at all. Pairs with an
override that stands are left out unless asked for.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
import sqlalchemy as sa

from qrelay.errors import InputError
from qrelay.labels.choice import in_order
from qrelay.labels.ledger import overrides, schema
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import Override
from qrelay.labels.ledger.precedence import kind_of
from qrelay.labels.ledger.reader import JudgeRow, Label, LabelledQuery, Snapshot
from qrelay.labels.ledger.reasons import Key, reasons
from qrelay.scales import bounds
from qrelay.types import COMBINED, Candidate, Passage

MAX_PAGE_SIZE: Final = 500
DISAGREEMENT: Final = "disagreement"
UNCERTAINTY: Final = "uncertainty"
QUERY: Final = "query"

_judgments, _queries = schema.judgments.c, schema.queries.c


@dataclass(frozen=True, slots=True)
class ReviewPair:
    """A pair for people to look at. `score`: the measure that it was found by, 0 by query. `passage` has no text
    where the ledger holds none. `labels`: the judges', the one that counts first; `override`: the one that stands;
    `reasons`: the judges' words for their labels, in the order of these, "" where there are none."""

    query_id: str
    query: str
    passage: Passage
    score: float
    labels: tuple[tuple[JudgeRow, Label], ...]
    override: Override | None
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReviewPage:
    """One page; `next_page_token` is empty on the last one."""

    pairs: tuple[ReviewPair, ...]
    next_page_token: str


@dataclass(frozen=True, slots=True)
class _Key:
    """Where a page ended: the sort key of its last pair."""

    score: float
    query_id: str
    passage_id: str


def by_disagreement(
    ledger: Ledger, collection: str, *, page_size: int = 50, page_token: str = "", overridden: bool = False
) -> ReviewPage:
    """The pairs that judges differ on most. `page_size`: 1 to MAX_PAGE_SIZE; `overridden`: also with an override.

    Raises:
        UnknownCollection: the ledger holds no query of it.
        InputError: another size, or a token that no page of this list returned.
    """
    return _by(DISAGREEMENT, ledger, collection, page_size, page_token, overridden)


def by_uncertainty(
    ledger: Ledger, collection: str, *, page_size: int = 50, page_token: str = "", overridden: bool = False
) -> ReviewPage:
    """The pairs whose label is least sure. Choices and errors as of `by_disagreement`."""
    return _by(UNCERTAINTY, ledger, collection, page_size, page_token, overridden)


def _by(kind: str, ledger: Ledger, collection: str, size: int, token: str, overridden: bool) -> ReviewPage:
    after = _key_of(token, kind, collection, size)
    with ledger.snapshot() as snapshot:
        snapshot.require_collection(collection)
        return _page(snapshot, collection, kind, measured(snapshot, collection, kind), after, size, overridden)


def by_query(
    ledger: Ledger,
    collection: str,
    query_id: str,
    *,
    page_size: int = 50,
    page_token: str = "",
    overridden: bool = False,
) -> ReviewPage:
    """The pairs of one query, unjudged ones too. Choices as of `by_disagreement`.

    Raises:
        InputError: no such query, another size, or a token that no page of this list returned.
    """
    after = _key_of(page_token, QUERY, collection, page_size)
    with ledger.snapshot() as snapshot:
        record = snapshot.judged_set(collection, query_id)
        if record is None:
            raise InputError(f"the ledger holds no query {query_id[:80]!r} in collection {collection}")
        [query] = snapshot.labelled_queries(collection, ids=[query_id])
        stand = overrides.standing_of(snapshot.connection, collection, [query_id])
        named = {each.passage.passage_id for each in record.candidate_set.candidates}
        named |= {passage_id for _, passage_id in stand}
        wanted = [each for each in sorted(named) if overridden or (query_id, each) not in stand]
        wanted = [each for each in wanted if after is None or (after.query_id, after.passage_id) < (query_id, each)]
        keys = [_Key(0.0, query_id, each) for each in wanted[: page_size + 1]]
        said = reasons(snapshot.connection, collection, [query_id])
        pairs = _pairs_of(query, record.candidate_set.candidates, keys[:page_size], snapshot.judges(), stand, said)
    return ReviewPage(tuple(pairs), _token(QUERY, collection, keys, page_size))


def measured(snapshot: Snapshot, collection: str, kind: str) -> Any:
    """A subquery (query_no, query_id, passage_id, score) of the pairs that have the measure, reviewed ones too."""
    judges = list(snapshot.judges().values())
    return _spread(collection, judges) if kind == DISAGREEMENT else _doubt(collection, judges)


def _spread(collection: str, judges: Sequence[JudgeRow]) -> Any:
    """(query_no, query_id, passage_id, score) of the pairs whose judges differ."""
    opinions = [judge for judge in judges if judge.judge_no > 0 and judge.identity.strategy not in COMBINED]
    said = _said(opinions)
    score = sa.func.max(said) - sa.func.min(said)
    key = _judgments.query_no, _queries.query_id, _judgments.passage_id
    return (
        sa.select(*key, score.label("score"))
        .select_from(schema.judgments.join(schema.queries, _judgments.query_no == _queries.query_no))
        .where(_queries.collection == collection, _judgments.grade.is_not(None))
        .where(_judgments.judge_no.in_([judge.judge_no for judge in opinions]))
        .group_by(*key)
        .having(score > 0)
        .subquery()
    )


def _said(judges: Sequence[JudgeRow]) -> Any:
    """What a judgment says, 0 to 1."""
    by_scale: dict[tuple[int, int], list[int]] = {}
    for judge in judges:
        try:
            by_scale.setdefault(bounds(judge.identity.scale), []).append(judge.judge_no)
        except InputError:
            continue  # no scale LOW-HIGH: its P(relevant) counts
    expected = sa.func.coalesce(_judgments.expected_relevance, _judgments.grade * 1.0)
    cases = [
        (_judgments.judge_no.in_(numbers), (expected - low) / float(high - low))
        for (low, high), numbers in sorted(by_scale.items())
    ]
    return sa.case(*cases, else_=_judgments.p_relevant) if cases else _judgments.p_relevant


def _doubt(collection: str, judges: Sequence[JudgeRow]) -> Any:
    """(query_no, query_id, passage_id, score) of the pairs whose label that counts has a grade."""
    real = sorted((judge for judge in judges if judge.judge_no > 0), key=lambda judge: judge.judge_hash)
    kinds = {judge.judge_no: kind_of(judge.identity) for judge in real}
    places = {judge.judge_no: place for place, judge in enumerate(real)}
    first = sa.func.row_number().over(
        partition_by=(_judgments.query_no, _judgments.passage_id),
        order_by=(
            sa.case(kinds or {0: 0}, value=_judgments.judge_no),
            sa.case((_judgments.grade.is_(None), 1), else_=0),
            _judgments.generation.desc(),
            sa.case(places or {0: 0}, value=_judgments.judge_no),
            _judgments.judgment_key,
        ),
    )
    ordered = (
        sa.select(_judgments.query_no, _queries.query_id, _judgments.passage_id, _judgments.p_relevant)
        .add_columns(first.label("place"))
        .select_from(schema.judgments.join(schema.queries, _judgments.query_no == _queries.query_no))
        .where(_queries.collection == collection, _judgments.judge_no.in_(list(kinds)))  # no retracted judge's
        .subquery()
    )
    score = 1.0 - sa.func.abs(2.0 * ordered.c.p_relevant - 1.0)
    return (
        sa.select(ordered.c.query_no, ordered.c.query_id, ordered.c.passage_id, score.label("score"))
        .where(ordered.c.place == 1, ordered.c.p_relevant.is_not(None))
        .subquery()
    )


def _page(
    snapshot: Snapshot, collection: str, kind: str, pairs: Any, after: _Key | None, size: int, overridden: bool
) -> ReviewPage:
    found = pairs.c
    chosen = sa.select(found.score, found.query_id, found.passage_id)
    if not overridden:
        same = schema.overrides.c.query_no == found.query_no, schema.overrides.c.passage_id == found.passage_id
        chosen = chosen.where(~sa.exists().where(*same, overrides.standing()))
    if after is not None:
        later = sa.and_(found.query_id == after.query_id, found.passage_id > after.passage_id)
        tie = sa.and_(found.score == after.score, sa.or_(found.query_id > after.query_id, later))
        chosen = chosen.where(sa.or_(found.score < after.score, tie))
    ordered = chosen.order_by(found.score.desc(), found.query_id, found.passage_id).limit(size + 1)
    keys = [_Key(*row) for row in snapshot.connection.execute(ordered)]
    return ReviewPage(_filled(snapshot, collection, keys[:size]), _token(kind, collection, keys, size))


def _filled(snapshot: Snapshot, collection: str, keys: Sequence[_Key]) -> tuple[ReviewPair, ...]:
    """The pairs with everything that people need to see, in the order of their keys."""
    by_query: dict[str, list[_Key]] = {}
    for key in keys:
        by_query.setdefault(key.query_id, []).append(key)
    judges = snapshot.judges()
    stand = overrides.standing_of(snapshot.connection, collection, list(by_query))
    said = reasons(snapshot.connection, collection, list(by_query))
    pairs: dict[tuple[str, str], ReviewPair] = {}
    for query in snapshot.labelled_queries(collection, ids=list(by_query)):
        for pair in _pairs_of(query, query.candidates, by_query[query.query_id], judges, stand, said):
            pairs[pair.query_id, pair.passage.passage_id] = pair
    return tuple(pairs[key.query_id, key.passage_id] for key in keys)


def _pairs_of(
    query: LabelledQuery,
    candidates: Sequence[Candidate],
    keys: Sequence[_Key],
    judges: dict[int, JudgeRow],
    stand: dict[tuple[str, str], Override],
    said: dict[Key, str],
) -> list[ReviewPair]:
    passages = {candidate.passage.passage_id: candidate.passage for candidate in candidates}
    labels: dict[str, list[Label]] = {}
    for label in query.labels:
        labels.setdefault(label.passage_id, []).append(label)
    pairs = []
    for key in keys:
        passage = passages.get(key.passage_id) or Passage(key.passage_id, "", "", "")
        given = in_order(labels.get(key.passage_id, ()), judges)
        known = tuple((judges[each.judge_no], each) for each in given)
        why = tuple(said.get((query.query_id, each.passage_id, each.judge_no, each.generation), "") for each in given)
        override = stand.get((query.query_id, key.passage_id))
        pairs.append(ReviewPair(query.query_id, query.text, passage, key.score, known, override, why))
    return pairs


def _token(kind: str, collection: str, keys: Sequence[_Key], size: int) -> str:
    """Where the page ended; empty where no pair is beyond it."""
    if len(keys) <= size:
        return ""
    last = keys[size - 1]
    return base64.urlsafe_b64encode(
        orjson.dumps([kind, collection, last.score, last.query_id, last.passage_id])
    ).decode()


def _key_of(token: str, kind: str, collection: str, page_size: int) -> _Key | None:
    if not 1 <= page_size <= MAX_PAGE_SIZE:
        raise InputError(f"page_size {page_size}: use 1 to {MAX_PAGE_SIZE}")
    if not token:
        return None
    try:
        of_kind, of_collection, score, query_id, passage_id = orjson.loads(base64.urlsafe_b64decode(token))
        texts = isinstance(query_id, str) and isinstance(passage_id, str)
        if (of_kind, of_collection) == (kind, collection) and texts:
            return _Key(float(score), query_id, passage_id)
    except (binascii.Error, ValueError, TypeError):
        pass
    raise InputError(f"page_token {token[:80]!r} is not of this list: use the one of the page before, or none")

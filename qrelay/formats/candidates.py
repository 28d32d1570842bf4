"""What an engine returned, as JSONL: a query a line, and its candidates.

    {"query_id": "7", "query": "tides", "candidates": [
        {"doc_id": "a", "title": "Moon", "text": "…", "scores": {"bm25": 12.1, "dense": {"score": 0.8, "rank": 3}}},
        {"doc_id": "b", "score": 11.9, "rank": 2, "system": "mine"},
        {"doc_id": "c", "passage_id": "c#4", "text": "…"}]}

The query's fields are those of every query line. A candidate with a `passage_id` is a passage as it stands, one
without is a document; it may lack a text, and have `metadata`, an object. `scores`: of each system, a score, or an
object with `score`, `rank` or both; or `score` and `rank` of one system, which `system` names beside them or beside
`candidates`. A rank counts from 1; where none is given it is the candidate's place by that system's scores among all
of the line, ties in the line's order. Where there is no score either, the line's order ranks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from qrelay.errors import MalformedInput
from qrelay.formats.lines import BadRecord, decoded, json_value
from qrelay.formats.queries import query_from
from qrelay.formats.records import candidate_fields, metadata_of, require_text
from qrelay.types import MAX_ROUND, Query, Score

ENGINE: Final = "engine"
"""The system of candidates that name none."""
MAX_SYSTEM_CHARS: Final = 128


@dataclass(frozen=True, slots=True)
class Found:
    """What systems returned: a passage as it stands, or, where `passage_id` is "", a document. text: "" where it came
    without one. metadata: field to text; left_out: how many of its fields were."""

    doc_id: str
    scores: tuple[Score, ...]
    title: str = ""
    text: str = ""
    passage_id: str = ""
    metadata: Mapping[str, str] = field(default_factory=dict, hash=False)
    left_out: int = field(default=0, compare=False)


def parse_candidates(line: str | bytes, collection: str) -> tuple[Query, list[Found]]:
    """A line's query and candidates.

    Raises:
        MalformedInput: not of the format.
        InvalidQuery: no text, or an id that TREC files cannot hold.
    """
    entry = json_value(decoded(line))
    query = query_from(entry, collection)
    rows = entry.get("candidates")
    if not isinstance(rows, list) or not rows:
        raise BadRecord("no candidates: give what was returned as `candidates`, a list of objects with doc_id")
    system = _name(entry.get("system", ENGINE))
    found = []
    for number, row in enumerate(rows, 1):
        try:
            found.append(_found(row, system))
        except MalformedInput as error:
            raise BadRecord(f"candidate {number}: {error}") from error
    _refuse_twice(found)
    return query, _ranked(found)


def _found(row: Any, system: str) -> Found:
    passage_id, doc_id, title, text = candidate_fields(row)
    return Found(doc_id, tuple(_scores(row, system).values()), title, text, passage_id, *metadata_of(row))


def _refuse_twice(found: Sequence[Found]) -> None:
    seen: set[tuple[str, str]] = set()
    for each in found:
        key = (each.passage_id, "") if each.passage_id else ("", each.doc_id)
        if key in seen:
            raise BadRecord(f"{each.passage_id or each.doc_id} is among the candidates twice: give it once")
        seen.add(key)


def _scores(row: Mapping[str, Any], system: str) -> dict[str, Score]:
    """system -> its score; rank 0 where it is to be found out."""
    given = row.get("scores")
    if given is None:
        name = _name(row.get("system", system))
        return {name: _score(name, {"score": row.get("score"), "rank": row.get("rank")})}
    if not isinstance(given, dict) or not given:
        raise BadRecord('scores must be an object of systems, {"bm25": 12.1}')
    return {_name(name): _score(name, value if isinstance(value, dict) else {"score": value})
            for name, value in given.items()}  # fmt: skip


def _name(system: object) -> str:
    if not isinstance(system, str) or system.split() != [system] or len(system) > MAX_SYSTEM_CHARS:
        raise BadRecord(
            f"the system {str(system)[:40]!r}: name it by one word of at most {MAX_SYSTEM_CHARS} characters, which a"
            " run's tag can be"
        )
    require_text(system, "the system's name")
    if "\0" in system:
        raise BadRecord("the system's name holds a NUL character: remove it")
    return system


def _score(system: str, told: Mapping[str, Any]) -> Score:
    score, rank = told.get("score"), told.get("rank")
    if score is not None and (type(score) not in (int, float) or not _finite(score)):
        raise BadRecord(f"the score of {system} is no finite number")
    if rank is not None and (type(rank) is not int or not 0 < rank <= MAX_ROUND):
        raise BadRecord(f"the rank of {system} must be a whole number from 1")
    return Score(system, None if score is None else float(score), rank or 0)


def _finite(number: float) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:
        return False


def _ranked(found: Sequence[Found]) -> list[Found]:
    """With a rank of every system wherever it gave none."""
    ranks = {name: _ranks(found, name) for name in dict.fromkeys(s.system for each in found for s in each.scores)}
    return [
        replace(each, scores=tuple(s if s.rank else s._replace(rank=ranks[s.system][place]) for s in each.scores))
        for place, each in enumerate(found)
    ]


def _ranks(found: Sequence[Found], system: str) -> dict[int, int]:
    """place in the line -> rank by the system's scores; what has none comes last."""
    own = {place: score for place, each in enumerate(found) for score in each.scores if score.system == system}
    order = sorted(own, key=lambda place: -math.inf if (s := own[place].score) is None else s, reverse=True)
    return {place: rank for rank, place in enumerate(order, 1)}

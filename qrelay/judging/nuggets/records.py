"""Nugget lists and assignments as JSON lines.

A list has the fields of the nuggetizer package (`query`, `qid`, `nuggets` of `text` and `importance`), so that its
readers and TREC AutoJudge's take it; an assignment has them too, and `assignment` in each nugget. Beside them: who
made it (`judge`: model, revision, quantisation, hash of the prompts), probabilities, and why something is missing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from qrelay.errors import MalformedInput
from qrelay.formats.lines import BadRecord
from qrelay.formats.records import query_fields, read_records, require_text
from qrelay.identity import digest
from qrelay.types import Missing

VITAL: Final = "vital"
OKAY: Final = "okay"
ASSIGNMENTS: Final = ("not_support", "partial_support", "support")
"""By the grade that is asked for, 0 to 2."""


@dataclass(frozen=True, slots=True)
class Nugget:
    """importance: VITAL, OKAY, or "" where there is none for the reason `missing`; p_vital: its probability."""

    text: str
    importance: str = ""
    p_vital: float | None = None
    missing: Missing | None = None


@dataclass(frozen=True, slots=True)
class NuggetList:
    """A query's nuggets, the vital ones first. missing: why there are none; unread: windows of passages whose reply
    could not be read. judge: who made it."""

    query_id: str
    query: str
    nuggets: tuple[Nugget, ...]
    judge: Mapping[str, str]
    missing: Missing | None = None
    unread: int = 0

    @property
    def id(self) -> str:
        """The identity of the list: who made it, for which query, and what it says."""
        said = [part for each in self.nuggets for part in (each.text, each.importance)]
        return digest(self.query, *self.judge.values(), *said)[:16]


@dataclass(frozen=True, slots=True)
class Assigned:
    """What a text says of one nugget. assignment: one of ASSIGNMENTS, or "" for the reason `missing`.
    probabilities: of ASSIGNMENTS, in their order."""

    nugget: Nugget
    assignment: str = ""
    probabilities: tuple[float, ...] = ()
    missing: Missing | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """A text that may hold nuggets: an answer of a system (`run_id`) or a passage (`run_id` "", `text_id` its id)."""

    query_id: str
    run_id: str
    text_id: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Assignment:
    """A text and all nuggets of its query. nuggets_id: the list's; missing: why there are none."""

    query_id: str
    run_id: str
    text_id: str
    nuggets: tuple[Assigned, ...]
    judge: Mapping[str, str]
    nuggets_id: str = ""
    missing: Missing | None = None


def list_line(found: NuggetList) -> str:
    """A line of a file of nugget lists."""
    return _line(
        qid=found.query_id,
        query=found.query,
        nuggets=[_nugget(each) for each in found.nuggets],
        nuggets_id=found.id,
        judge=dict(found.judge),
        unread_windows=found.unread,
        **_missing(found.missing),
    )


def assignment_line(found: Assignment) -> str:
    """A line of a file of assignments."""
    nuggets = [
        {
            **_nugget(each.nugget),
            "assignment": each.assignment or None,
            "probabilities": [round(p, 6) for p in each.probabilities],
            **_missing(each.missing),
        }
        for each in found.nuggets
    ]
    ids = {"qid": found.query_id, "run_id": found.run_id, "text_id": found.text_id, "nuggets_id": found.nuggets_id}
    return _line(**ids, nuggets=nuggets, judge=dict(found.judge), **_missing(found.missing))


def read_lists(path: Path) -> dict[str, NuggetList]:
    """query id -> its nuggets. Raises MalformedInput: a line that is none, or a query twice; it names the line."""
    found: dict[str, NuggetList] = {}
    for number, each in read_records(path, _list_of):
        if each.query_id in found:
            raise MalformedInput(f"{path}:{number}: the query {each.query_id!r} again: keep one of its lists")
        found[each.query_id] = each
    if not found:
        raise MalformedInput(f"{path} holds no nugget lists: make them with `qrelay judge nuggets create`")
    return found


def read_assignments(path: Path) -> list[Assignment]:
    """The file's assignments. Raises MalformedInput, naming the line."""
    return [found for _, found in read_records(path, _assignment_of)]


def read_answers(path: Path) -> list[Text]:
    """Answers of systems, a JSON object a line: `query_id` (or qid, topic_id), `run_id` (else "answers"), and the
    text as `text` or `answer`, a text or TREC RAG's list of {"text": …}.

    Raises:
        MalformedInput: a line that is none, or two answers of one run to a query; it names the line.
    """
    found: dict[tuple[str, str], Text] = {}
    for number, each in read_records(path, _text_of):
        if (each.query_id, each.run_id) in found:
            raise MalformedInput(
                f"{path}:{number}: another answer of {each.run_id!r} to {each.query_id!r}: give each run its own id"
            )
        found[each.query_id, each.run_id] = each
    return list(found.values())


def _line(**fields: Any) -> str:
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _nugget(each: Nugget) -> dict[str, Any]:
    p = {} if each.p_vital is None else {"p_vital": round(each.p_vital, 6)}
    return {"text": each.text, "importance": each.importance or None, **p, **_missing(each.missing)}


def _missing(missing: Missing | None) -> dict[str, Any]:
    return {"missing": {"reason": missing.reason, "detail": missing.detail}} if missing else {}


def _list_of(record: object) -> NuggetList:
    query_id, query = query_fields(record)
    row = _row(record)
    told = tuple(_nugget_of(each) for each in _rows(row, "nuggets"))
    return NuggetList(query_id, query, told, _judge_of(row), _missing_of(row))


def _assignment_of(record: object) -> Assignment:
    row = _row(record)
    nuggets = tuple(_assigned_of(each) for each in _rows(row, "nuggets"))
    ids = (_told(row, "qid", required=True), _told(row, "run_id"), _told(row, "text_id"))
    return Assignment(*ids, nuggets, _judge_of(row), _told(row, "nuggets_id"), _missing_of(row))


def _assigned_of(row: Mapping[str, Any]) -> Assigned:
    said = row.get("assignment") or ""
    if said not in ("", *ASSIGNMENTS):
        raise BadRecord(f"the assignment {said!r} is none of {', '.join(ASSIGNMENTS)}")
    told = row.get("probabilities") or []
    if not isinstance(told, list) or len(told) not in (0, len(ASSIGNMENTS)) or not all(map(_probability, told)):
        raise BadRecord(f"`probabilities` are not {len(ASSIGNMENTS)} numbers from 0 to 1")
    missing = _missing_of(row) if said else _missing_of(row) or Missing("error", "the file gives no assignment")
    return Assigned(_nugget_of(row), said, tuple(map(float, told)), missing)


def _nugget_of(row: Mapping[str, Any]) -> Nugget:
    importance = row.get("importance") or ""
    if importance not in ("", VITAL, OKAY, "failed"):
        raise BadRecord(f"the importance {importance!r} is neither {VITAL} nor {OKAY}")
    p = row.get("p_vital")
    text = _told(row, "text", required=True)
    return Nugget(text, importance.removeprefix("failed"), p if _probability(p) else None)


def _text_of(record: object) -> Text:
    row = _row(record)
    text = next((row[name] for name in ("text", "answer") if row.get(name)), "")
    if isinstance(text, list):
        text = " ".join(_told(_row(part), "text") for part in text)
    if not isinstance(text, str):
        raise BadRecord("no `text` or `answer`: give the answer's text, or a list of objects with `text`")
    require_text(text, "the answer")
    query_id = next((row[name] for name in ("query_id", "qid", "topic_id", "_id") if row.get(name) is not None), "")
    query_id, run_id = _told({"query_id": query_id}, "query_id", required=True), _told(row, "run_id") or "answers"
    return Text(query_id, run_id, run_id, "", text)


def _judge_of(row: Mapping[str, Any]) -> dict[str, str]:
    told = row.get("judge") or {}
    return {str(key): str(value) for key, value in _row(told).items()}


def _missing_of(row: Mapping[str, Any]) -> Missing | None:
    told = row.get("missing")
    return Missing(_told(_row(told), "reason", required=True), _told(_row(told), "detail")) if told else None


def _probability(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0.0 <= value <= 1.0


def _rows(row: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    told = row.get(name)
    if not isinstance(told, list):
        raise BadRecord(f"no `{name}`: a list of objects")
    return [_row(each) for each in told]


def _row(record: object) -> Mapping[str, Any]:
    if not isinstance(record, dict):
        raise BadRecord("no JSON object")
    return record


def _told(row: Mapping[str, Any], name: str, *, required: bool = False) -> str:
    value = row.get(name)
    text = str(value) if isinstance(value, str | int) else ""
    require_text(text, f"`{name}`")
    if required and not text.strip():
        raise BadRecord(f"no `{name}`: give one")
    return text

"""How records show themselves: one short line, and a table where a notebook shows HTML."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from itertools import islice
from typing import Any, Final

_TEXT_CHARS: Final = 40
_ROWS: Final = 20


def short(text: str) -> str:
    """A text in quotes, in one line, cut."""
    return repr(_cut(text, _TEXT_CHARS))


def _cut(text: str, most: int) -> str:
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most and len(text) <= 4 * most else line[: most - 1] + "…"


def named(record: Any, *parts: str) -> str:
    """A record in one line: its type, and what tells it from others."""
    return f"{type(record).__name__}({', '.join(filter(None, parts))})"


def candidates_html(found: Any) -> str:
    """Of a CandidateSet: each passage with its rank in every system."""
    systems = list(dict.fromkeys(score.system for each in found.candidates for score in each.scores))
    rows = (
        (*_passage(each.passage), *(score.rank if (score := each.score(system)) else "" for system in systems))
        for each in found.candidates
    )
    return _table(found.query.text, ("passage", "text", *systems), rows, len(found.candidates))


def judgments_html(judged: Any) -> str:
    """Of a JudgedSet: each passage with its grade, or why there is none."""
    passages = {each.passage.passage_id: each.passage for each in judged.candidate_set.candidates}
    rows = ((*_passage(passages[each.passage_id]), *_label(each.outcome), each.judge.strategy)
            for each in judged.judgments if each.passage_id in passages)  # fmt: skip
    headings = ("passage", "text", "grade", "P(relevant)", "judge")
    return _table(judged.candidate_set.query.text, headings, rows, len(judged.judgments))


def _passage(passage: Any) -> tuple[str, str]:
    return passage.passage_id, _cut(passage.title or passage.text, 2 * _TEXT_CHARS)


def _label(outcome: Any) -> tuple[object, str]:
    return (outcome.grade, f"{outcome.p_relevant:.2f}") if hasattr(outcome, "grade") else (outcome.reason, "")


def _table(caption: str, headings: Sequence[str], rows: Iterable[Sequence[object]], total: int) -> str:
    """HTML of the first rows, everything in it escaped; says how many of `total` are left out."""
    shown = ["".join(f"<td>{escape(str(cell))}</td>" for cell in row) for row in islice(rows, _ROWS)]
    more = f" (first {len(shown)} of {total})" if total > len(shown) else ""
    head = "".join(f"<th>{escape(each)}</th>" for each in headings)
    body = "".join(f"<tr>{row}</tr>" for row in shown)
    title = f"<caption>{escape(caption)}{more}</caption>"
    return f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

"""Which label counts where several judges labelled one (query, passage) pair."""

from __future__ import annotations

from collections.abc import Mapping

from qrelay.errors import InputError
from services.sink.reader import JudgeRow, Label, LabelledQuery


def chosen_judges(judges: Mapping[int, JudgeRow], wanted: str | None) -> dict[int, JudgeRow]:
    """The judges whose labels count."""
    found = {no: judge for no, judge in judges.items() if judge.judge_hash.startswith(wanted or "")}
    if wanted is not None and len(found) != 1:
        known = ", ".join(f"{j.judge_hash[:12]} ({j.identity.fingerprint})" for j in judges.values()) or "none"
        raise InputError(f"judge {wanted!r} names {len(found)} judges: give the beginning of one hash of {known}")
    return found


def one_a_pair(query: LabelledQuery, judges: Mapping[int, JudgeRow]) -> dict[str, Label]:
    """passage_id -> the label that counts, by passage_id."""
    best: dict[str, Label] = {}
    for label in query.labels:
        if label.judge_no not in judges:
            continue
        held = best.get(label.passage_id)
        if held is None or _precedence(label, judges) < _precedence(held, judges):
            best[label.passage_id] = label
    return dict(sorted(best.items()))


def _precedence(label: Label, judges: Mapping[int, JudgeRow]) -> tuple[bool, int, str]:
    judge = judges[label.judge_no]
    return label.grade is None, -judge.generation, judge.judge_hash

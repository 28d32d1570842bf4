"""Overrides and pairs under review, for `qrelay label`: as JSON and for people."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from qrelay.labels.ledger.overrides import Override
from qrelay.labels.ledger.reader import JudgeRow, Label
from qrelay.labels.review import ReviewPair

_TEXT_SHOWN = 300


def described_override(override: Override) -> dict[str, Any]:
    """The row as JSON values; its time in ISO 8601."""
    return {**asdict(override), "set_at": override.set_at.isoformat() if override.set_at else None}


def printed_override(row: dict[str, Any]) -> str:
    """A described override in a line."""
    grade = "withdrawn" if row["grade"] is None else f"{row['grade']} on {row['scale']}"
    by = row["author"] if row["stands"] else f"{row['author']} (does not stand)"
    pair = f"{row['collection']} {row['query_id']} {row['passage_id']}"
    return f"{row['set_at']}  {pair}: {grade}, by {by}  {row['note']}".rstrip()


def described_pair(pair: ReviewPair) -> dict[str, Any]:
    """The pair as JSON values; numbers as the ledger holds them."""
    override = pair.override
    return {
        "query_id": pair.query_id,
        "query": pair.query,
        "passage_id": pair.passage.passage_id,
        "title": pair.passage.title,
        "text": pair.passage.text,
        "score": pair.score,
        "labels": [{**_label(*each), "reason": why} for each, why in zip(pair.labels, pair.reasons, strict=True)],
        "override": {"grade": override.grade, "scale": override.scale, "author": override.author}
        if override
        else None,
    }


def printed_pair(pair: ReviewPair, measure: str) -> str:
    """The pair in a few lines; a long text is cut."""
    text = " ".join(pair.passage.text.split())
    shown = text if len(text) <= _TEXT_SHOWN else text[: _TEXT_SHOWN - 1] + "…"
    lines = [
        f"{pair.query_id}  {pair.passage.passage_id}  {measure} {pair.score:.3f}",
        f"  query:   {pair.query}",
        f"  passage: {pair.passage.title}: {shown}" if pair.passage.title else f"  passage: {shown}",
        *(f"  {_printed_label(*each, why)}" for each, why in zip(pair.labels, pair.reasons, strict=True)),
    ]
    if pair.override:
        lines.append(f"  override: {pair.override.grade} on {pair.override.scale}, by {pair.override.author}")
    return "\n".join(lines)


def _label(judge: JudgeRow, label: Label) -> dict[str, Any]:
    return {
        "judge": judge.judge_hash,
        "strategy": judge.identity.strategy,
        "model": judge.identity.model,
        "scale": judge.identity.scale,
        "grade": label.grade,
        "p_relevant": label.p_relevant,
        "entropy": label.entropy,
        "missing": label.missing_reason,
        "generation": label.generation,
    }


def _printed_label(judge: JudgeRow, label: Label, why: str) -> str:
    who = f"{judge.identity.strategy} {judge.identity.model} {judge.judge_hash[:12]}"
    if label.grade is None or label.p_relevant is None:
        return f"missing ({label.missing_reason}), {who}"
    said = f": {why}" if why else ""
    return f"{label.grade} on {judge.identity.scale}, P(relevant) {label.p_relevant:.2f}, {who}{said}"

"""Leaderboards as TREC AutoJudge's `autojudge-evaluate` reads them (format `jsonl`): a line a run, topic and measure,
and a run's mean over its topics under the topic `all`. A value that is missing has no line, and counts in no mean."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from statistics import fmean
from typing import Final

from qrelay.errors import MalformedInput

ALL: Final = "all"
Row = tuple[str, str, str, float | None]
"""(run, topic, measure, value)"""


def leaderboard_lines(rows: Iterable[Row]) -> Iterator[str]:
    """The rows, then the means, in the order in which they first come. Raises MalformedInput: a topic named `all`."""
    held: dict[tuple[str, str], list[float]] = {}
    for run, topic, measure, value in rows:
        if topic == ALL:
            raise MalformedInput(f"a query has the id {ALL!r}, which leaderboards keep for means: rename it")
        if value is not None:
            held.setdefault((run, measure), []).append(value)
            yield _line(run, topic, measure, value)
    for (run, measure), values in held.items():
        yield _line(run, ALL, measure, fmean(values))


def _line(run: str, topic: str, measure: str, value: float) -> str:
    return (
        json.dumps({"run_id": run, "topic_id": topic, "measure": measure, "value": value}, ensure_ascii=False) + "\n"
    )

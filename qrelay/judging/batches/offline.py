"""Pairs of a file judged by batches, without a service: order them, come again for the labels.

Nothing is remembered beside the store and the cache: the pairs are asked anew, and what is there is there. So both
can be stopped and run again, and a pair that was ordered is not ordered twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from qrelay.chunks import chunks
from qrelay.errors import BudgetExhausted, QrelayError
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.formats.candidates import Found, parse_candidates
from qrelay.formats.lines import BadRecord, parsed, text_lines
from qrelay.formats.records import say_left_out
from qrelay.identity import judge_digest
from qrelay.judging.failures import hold_of
from qrelay.judging.panel import Panel
from qrelay.llm.batch.backend import OpenAIBatchBackend
from qrelay.llm.batch.driver import BatchDriver
from qrelay.types import CandidateSet, Graded, JudgedSet, Judgment, Missing, Query

_SETS_AT_ONCE = 64
_ROUNDS = 3


@dataclass(slots=True)
class Standing:
    """How pairs stand. pending: answers that are on their way; missing: judgments without a label, by reason; held:
    why nothing more is sent in this run; shown: how the batches stand; elsewhere: whether another process drives
    them.
    """

    labels: int = 0
    cached: int = 0
    pending: int = 0
    missing: dict[str, int] = field(default_factory=dict)
    held: str = ""
    shown: str = ""
    elsewhere: bool = False
    judged: list[JudgedSet] = field(default_factory=list)


def drivers_of(panel: Panel) -> list[BatchDriver]:
    """The drivers of the judges that ask by batches, each once."""
    backends = [judge.backend for judge in panel.judges.values()]
    return list({id(each.driver): each.driver for each in backends if isinstance(each, OpenAIBatchBackend)}.values())


async def ask(panel: Panel, sets: Sequence[CandidateSet]) -> Standing:
    """Every set judged as far as can be for now.

    Raises:
        QrelayError: a query cannot be judged at all.
    """
    found = Standing()
    for part in chunks(sets, _SETS_AT_ONCE):
        for judged in await panel.judge(part):
            if isinstance(judged, QrelayError):
                raise judged
            _count(found, judged)
    return found


def _count(found: Standing, judged: JudgedSet) -> None:
    found.judged.append(judged)
    held = hold_of(judged)
    if isinstance(held, BudgetExhausted):
        found.held = str(held)
    for each in judged.judgments:
        if not isinstance(each.outcome, Missing):
            found.labels += 1
            found.cached += each.cached
        elif each.outcome.on_hold_s is not None:
            found.pending += 1
        else:
            found.missing[each.outcome.reason] = found.missing.get(each.outcome.reason, 0) + 1


async def settle(
    panel: Panel,
    sets: Sequence[CandidateSet],
    *,
    wait: bool,
    say: Callable[[str], None],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Standing:
    """The pairs after their batches were sent and looked at; wait: until none is pending. What waits for a batch is
    sent at once. say: is told of progress."""
    drivers = drivers_of(panel)
    said, rounds = "", 0
    while True:
        found = await ask(panel, sets)
        if not found.pending or found.held or (not wait and rounds >= _ROUNDS):
            return _shown(found, drivers)
        mine = [await each.tick(hurry=True) for each in drivers]
        found.elsewhere = not all(mine)
        if (now := _line(drivers)) != said:
            say(said := now)
        rounds += 1
        if wait:
            await sleep(min(each.limits.poll_s for each in drivers))


def _line(drivers: Sequence[BatchDriver]) -> str:
    return "; ".join(filter(None, (each.shown for each in drivers)))


def _shown(found: Standing, drivers: Sequence[BatchDriver]) -> Standing:
    found.shown = _line(drivers)
    return found


def labels(found: Standing) -> Iterator[dict[str, Any]]:
    """Each label with its pair, as JSON takes it: the fields of `judge cache export`, and those of the pair."""
    for judged in found.judged:
        for each in judged.judgments:
            if isinstance(each.outcome, Graded):
                yield {"query_id": judged.candidate_set.query.query_id, "passage_id": each.passage_id, **_label(each)}


def _label(judgment: Judgment) -> dict[str, Any]:
    return {
        "judgment_key": judgment.judgment_key,
        "judge_hash": judge_digest(judgment.judge),
        "judge": asdict(judgment.judge),
        "outcome": asdict(judgment.outcome),
        "raw_reply": judgment.raw_reply,
        "judged_at": judgment.judged_at.isoformat(),
    }


def read_candidate_pairs(path: Path) -> list[GradedPair]:
    """The pairs of a candidates JSONL, ungraded. A document without a passage_id is judged as it stands.

    Raises:
        MalformedInput: a line is not of the format, or a candidate lacks its text; names the line.
    """
    lines = [each for _, each in parsed(path, text_lines(path), _with_texts)]
    say_left_out(path, sum(each.left_out for _, found in lines for each in found))
    return [
        GradedPair(query.query_id, each.passage_id or each.doc_id, None, query.text, each.title, each.text,
                   tuple(query.reference_answers), each.metadata)
        for query, found in lines
        for each in found
    ]  # fmt: skip


def _with_texts(line: str) -> tuple[Query, list[Found]]:
    query, found = parse_candidates(line, "candidates")
    for each in found:
        if not each.text:
            raise BadRecord(f"candidate {each.passage_id or each.doc_id} has no text: give it as `text`")
    return query, found

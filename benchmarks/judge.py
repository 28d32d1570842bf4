"""Labels a second, ours beside the plain way: same engine, same pairs, one run, a query by turns.

    python -m benchmarks.judge --queries 6                       # the default judge on LiveQA-Med's dev part
    python -m benchmarks.judge --backend llamacpp --model qwen2.5-coder-0.5b-instruct --strategy graded

The plain way is what scripts do: UMBRELA's question (the instructions of the strategy graded, 0 to 3) as a chat for
each pair with the passage first, one request at a time, three tokens generated, the first digit in them taken. Needs
../shared/data/liveqa-med, or --data. Prints labels/s, their ratio, tokens a label and both AUCs; the cache is off.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks.public import LIVEQA, relevant
from benchmarks.references.turns import Timer, order_of
from qrelay.errors import QrelayError
from qrelay.formats.annotated_pairs import GradedPair
from qrelay.judging.cache import NoCache
from qrelay.judging.calibration import raw_score
from qrelay.judging.judge import Judge
from qrelay.judging.load import load_judge
from qrelay.judging.qualification.table import candidate_sets
from qrelay.judging.settings import JudgeSettings
from qrelay.judging.strategies import make_strategy
from qrelay.judging.strategies.chat import ChatGrade
from qrelay.llm.exchange import Chat, Reply
from qrelay.stats.agreement import auc
from qrelay.types import CandidateSet, Graded, JudgedSet

PLAIN = "Passage: {passage}\n\nQuery: {query}\n\n{instructions}\n\nScore, 0, 1, 2 or 3:"
UMBRELA = make_strategy("graded", "0-3")
Way = Callable[[CandidateSet], Awaitable[tuple[list[float], int]]]
"""A query's passages in; a score of each and the tokens read out."""


@dataclass
class Said:
    """What a way said of all queries."""

    scores: list[float] = field(default_factory=list)
    tokens: int = 0


def mixed(pairs: Sequence[GradedPair], queries: int) -> list[GradedPair]:
    """The pairs of the first queries that have both relevant and other passages."""
    kinds: dict[str, set[bool]] = {}
    for pair, good in zip(pairs, relevant(pairs, LIVEQA), strict=True):
        kinds.setdefault(pair.query_id, set()).add(good)
    chosen = [query for query, both in kinds.items() if len(both) == 2][:queries]
    return [pair for pair in pairs if pair.query_id in chosen]


async def plain(judge: Judge, asked: CandidateSet) -> tuple[list[float], int]:
    """One request a pair, one after the other: the grade, 0 where there is none."""
    assert isinstance(UMBRELA, ChatGrade)
    said, tokens = [], 0
    for candidate in asked.candidates:
        instructions = UMBRELA.prompt(asked.query.text, candidate.passage).instructions
        passage = f"{candidate.passage.title}\n{candidate.passage.text}"
        content = PLAIN.format(passage=passage, query=asked.query.text, instructions=instructions)
        (reply,) = await judge.backend.generate([Chat((("user", content),), max_tokens=3)])
        digits = re.findall(r"[0-3]", reply.text) if isinstance(reply, Reply) else []
        said.append(float(digits[0]) if digits else 0.0)
        tokens += reply.prompt_tokens if isinstance(reply, Reply) else 0
    return said, tokens


async def ours(judge: Judge, asked: CandidateSet) -> tuple[list[float], int]:
    """The judge's own way: raw scores."""
    (judged,) = await judge.judge([asked])
    assert isinstance(judged, JudgedSet), judged
    missing = [each.outcome for each in judged.judgments if not isinstance(each.outcome, Graded)]
    assert not missing, f"{len(missing)} labels are missing, the first: {missing[0]}"
    scores = [raw_score(each.outcome) for each in judged.judgments if isinstance(each.outcome, Graded)]
    return scores, sum(each.prompt_tokens for each in judged.judgments)


async def by_turns(ways: Mapping[str, Way], pairs: Sequence[GradedPair]) -> tuple[Timer, dict[str, Said]]:
    """Each query by turns, so that a slow minute of the machine hits all; prints a line a way."""
    sets, timer, said = candidate_sets(pairs, {}), Timer(), {name: Said() for name in ways}
    for warm in ways.values():
        await warm(sets[0])
    for number, asked in enumerate(sets):
        for name in order_of(list(ways), number):
            with timer.timed(name):
                scores, tokens = await ways[name](asked)
            said[name].scores += scores
            said[name].tokens += tokens
    good = relevant(pairs, LIVEQA)
    for name, each in said.items():
        seconds, labels = timer.total(name), len(each.scores)
        print(
            f"{name:<13} {labels / seconds:6.2f} labels/s  {each.tokens / seconds:6.0f} tokens/s  "
            f"{each.tokens / labels:5.0f} tokens a label  AUC {auc(good, each.scores):.4f}"
        )
    return timer, said


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/liveqa-med"))
    parser.add_argument("--queries", type=int, default=6)
    for name in ("backend", "model", "strategy"):
        parser.add_argument(f"--{name}")
    arguments = parser.parse_args()
    if not arguments.data.exists():
        raise SystemExit(f"skipped: {arguments.data} is not there; name LiveQA-Med's folder with --data")
    chosen = {name: getattr(arguments, name) for name in ("backend", "model", "strategy") if getattr(arguments, name)}
    pairs = mixed(LIVEQA.pairs(arguments.data), arguments.queries)
    try:
        judge = load_judge(JudgeSettings.model_validate(chosen), NoCache())
    except QrelayError as error:
        raise SystemExit(str(error)) from error
    try:
        print(f"{judge.identity.fingerprint} {judge.identity.strategy} {judge.identity.decoding}")
        timer, _ = asyncio.run(by_turns({"plain": partial(plain, judge), "ours": partial(ours, judge)}, pairs))
    finally:
        judge.close()
    ratio = timer.total("plain") / timer.total("ours")
    print(f"ours is {ratio:.2f} times as fast over {len(pairs)} pairs of {arguments.queries} queries")


if __name__ == "__main__":
    main()

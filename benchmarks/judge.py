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
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qrelay.errors import QrelayError
from qrelay.formats.annotated_pairs import GradedPair, read_beir
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


def pairs_of(data: Path, queries: int) -> list[GradedPair]:
    """The pairs of the first queries that have both relevant and other passages."""
    pairs = read_beir(data, data / "queries.dev.jsonl", data / "qrels.dev.tsv")
    mixed = [
        query
        for query in dict.fromkeys(pair.query_id for pair in pairs)
        if len({(pair.grade or 0) >= 3 for pair in pairs if pair.query_id == query}) == 2
    ]
    return [pair for pair in pairs if pair.query_id in mixed[:queries]]


async def plain(judge: Judge, asked: CandidateSet) -> tuple[list[float], int]:
    """One request a pair, one after the other: the grade, 0 where there is none; and the tokens read."""
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
    """The judge's own way: raw scores, and the tokens read."""
    (judged,) = await judge.judge([asked])
    assert isinstance(judged, JudgedSet), judged
    missing = [each.outcome for each in judged.judgments if not isinstance(each.outcome, Graded)]
    assert not missing, f"{len(missing)} labels are missing, the first: {missing[0]}"
    scores = [raw_score(each.outcome) for each in judged.judgments if isinstance(each.outcome, Graded)]
    return scores, sum(each.prompt_tokens for each in judged.judgments)


async def run(judge: Judge, sets: Sequence[CandidateSet], relevant: np.ndarray) -> None:
    """Both ways by turns, so that a slow minute of the machine hits both."""
    ways = {"plain": plain, "ours": ours}
    seconds, tokens = dict.fromkeys(ways, 0.0), dict.fromkeys(ways, 0)
    scores: dict[str, list[float]] = {name: [] for name in ways}
    for warm in ways.values():
        await warm(judge, sets[0])
    for number, asked in enumerate(sets):
        for name in sorted(ways, reverse=bool(number % 2)):
            started = time.perf_counter()
            found, read = await ways[name](judge, asked)
            seconds[name] += time.perf_counter() - started
            tokens[name] += read
            scores[name] += found
    labels = len(relevant)
    for name in ways:
        print(
            f"{name:<6} {labels / seconds[name]:6.2f} labels/s  {tokens[name] / labels:5.0f} tokens a label  "
            f"AUC {auc(relevant, scores[name]):.3f}"
        )
    ratio = seconds["plain"] / seconds["ours"]
    print(f"ours is {ratio:.2f} times as fast over {labels} pairs of {len(sets)} queries")


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
    pairs = pairs_of(arguments.data, arguments.queries)
    try:
        judge = load_judge(JudgeSettings.model_validate(chosen), NoCache())
    except QrelayError as error:
        raise SystemExit(str(error)) from error
    try:
        print(f"{judge.identity.fingerprint} {judge.identity.strategy} {judge.identity.decoding}")
        relevant = np.array([(pair.grade or 0) >= 3 for pair in pairs])
        asyncio.run(run(judge, candidate_sets(pairs, {}), relevant))
    finally:
        judge.close()


if __name__ == "__main__":
    main()

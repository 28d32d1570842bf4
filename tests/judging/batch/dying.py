"""Judges by batches until it is killed, or done: `python -m tests.judging.batch.dying`.

Reads lines `CACHE URL OUT` from standard input. For each it forks a child that judges SETS at the endpoint, again and
again until every pair has its label, writes the labels to OUT, and prints how the child ended. It dies at an armed
point of `qrelay.runtime.faults`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import qrelay.judging.batches.store
import qrelay.llm.batch.backend  # noqa: F401 (once, before the forks)
from qrelay.judging.load import load_core
from qrelay.judging.settings import JudgeSettings
from qrelay.types import CandidateSet, Graded, JudgedSet, Judgment
from tests.judging.samples import COOKING, COPYTREE, LOCK, candidate_set

ROUNDS = 4000
QUERIES = 3


def sets() -> list[CandidateSet]:
    """9 pairs."""
    return [candidate_set(COPYTREE, LOCK, COOKING, query=f"question {n}", query_id=f"q{n}") for n in range(QUERIES)]


def settings(cache: str, url: str, **batch: Any) -> JudgeSettings:
    """A judge by batches that waits for nothing longer than it must."""
    own = {"poll_s": 0.01, "max_wait_s": 0.0, "look_again_s": 0.0, "transfer_timeout_s": 5.0, **batch}
    limits = {"request_timeout_s": 2.0, "total_timeout_s": 5.0, "retry_refused_s": 0.01, "retry_base_s": 0.001}
    endpoint = {"url": url, "breaker_failures": 10_000, "batch": own, **limits}
    return JudgeSettings.model_validate(
        {"backend": "openai-batch", "model": "m", "cache": cache, "endpoint": endpoint}
    )


async def labelled(settings: JudgeSettings, given: list[CandidateSet]) -> dict[str, dict[str, Any]]:
    """query -> passage -> its label, once all are there."""
    core = load_core(settings, batches="drive")
    try:
        for _ in range(ROUNDS):
            judged = [each for each in await core.judge(given) if isinstance(each, JudgedSet)]
            if all(isinstance(each.outcome, Graded) for one in judged for each in one.judgments):
                return {one.candidate_set.query.query_id: _shown(one.judgments) for one in judged}
            await asyncio.sleep(0.005)
    finally:
        core.close()
    raise TimeoutError("not every pair was labelled")


def _shown(judgments: tuple[Judgment, ...]) -> dict[str, Any]:
    return {each.passage_id: [each.judgment_key, each.outcome.grade] for each in judgments
            if isinstance(each.outcome, Graded)}  # fmt: skip


def fork(cache: str, url: str, out: Path) -> int:
    """The child's exit status as `os.waitpid` gives it."""
    child = os.fork()
    if child == 0:
        try:
            out.write_text(json.dumps(asyncio.run(labelled(settings(cache, url), sets()))))
        except BaseException as error:
            print(f"{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def main() -> None:
    for line in sys.stdin:
        cache, url, out = line.split()
        print(fork(cache, url, Path(out)), flush=True)


if __name__ == "__main__":
    main()

"""Small records for the judge's tests."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from qrelay.judging.cache import JudgmentCache, NoCache
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.judge import Judge
from qrelay.judging.strategies import make_strategy
from qrelay.llm.base import Backend
from qrelay.llm.exchange import TokenLogprobs
from qrelay.llm.fake import FakeBackend
from qrelay.types import Candidate, CandidateSet, Graded, JudgedSet, Missing, Passage, Query

NOW = datetime(2025, 3, 1, 12, 30, 15, 123456, tzinfo=UTC)
QUERY = "How do I copy a directory tree?"
COPYTREE = (
    "shutil.copytree(src, dst): Recursively copy an entire directory tree rooted at src to a directory "
    "named dst and return the destination directory. All intermediate directories are created."
)
LOCK = (
    "threading.Lock: A primitive lock is a synchronization primitive that is not owned by a particular "
    "thread when locked. It is the lowest level synchronization primitive available."
)
COOKING = "Simmer the tomatoes with basil and garlic for twenty minutes, then season with salt and pepper."


def passage(text: str, number: int = 0, title: str = "") -> Passage:
    return Passage(f"d#{number}", "d", title, text)


def candidate_set(*texts: str, query: str = QUERY, sampled: Sequence[int] = (), query_id: str = "q1") -> CandidateSet:
    """A set with these passages; `sampled` are positions."""
    candidates = tuple(Candidate(passage(text, n), (), n in sampled) for n, text in enumerate(texts))
    return CandidateSet(Query(query_id, query, "docs"), candidates, "v1")


def make_judge(
    backend: Backend | None = None,
    cache: JudgmentCache | Path | None = None,
    *,
    strategy: str = "graded",
    scale: str = "0-3",
    min_mass: float = 0.05,
    rubric: str = "",
) -> Judge:
    """A judge with a stopped clock; `cache` may be the path of a new or old one."""
    store = SqlCache(str(cache)) if isinstance(cache, Path) else cache or NoCache()
    made = make_strategy(strategy, scale, min_mass=min_mass, rubric=rubric)
    return Judge(backend or FakeBackend(), made, store, clock=lambda: NOW)


async def judge_one(judge: Judge, each: CandidateSet) -> JudgedSet:
    """The one set, judged."""
    (answer,) = await judge.judge([each])
    assert isinstance(answer, JudgedSet), answer
    return answer


def outcomes(judged: JudgedSet) -> list[Graded | Missing]:
    return [each.outcome for each in judged.judgments]


def reasons(judged: JudgedSet) -> list[str]:
    """The reason of each missing judgment, "graded" for the others."""
    return [each.reason if isinstance(each, Missing) else "graded" for each in outcomes(judged)]


def reply(probabilities: Mapping[str, float], text: str = "") -> TokenLogprobs:
    """A reply with these first-token probabilities."""
    tokens = tuple((token, math.log(p)) for token, p in probabilities.items())
    return TokenLogprobs(tokens, text, 10, "test")

"""The four services as they are simulated: their real cores and stages, with the shipped fakes for models."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any, Final

from qrelay.errors import BackendTimeout, QrelayError, RateLimited
from qrelay.index.collections import SyntheticIndex
from qrelay.index.settings import RetrieverSettings
from qrelay.judging.cache import NoCache
from qrelay.judging.judge import Judge
from qrelay.judging.panel import Panel
from qrelay.judging.strategies import make_strategy
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.qualification import read_report
from qrelay.labels.settings import SinkSettings
from qrelay.llm.exchange import Prompt, TokenLogprobs
from qrelay.llm.fake import FakeBackend
from qrelay.runtime.stage import Stage
from qrelay.services.judge.service import JudgeStage
from qrelay.services.reranker.reranker import Reranker
from qrelay.services.reranker.scorers import FakeScorer
from qrelay.services.reranker.service import RerankStage
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.services.retriever.retriever import Retriever
from qrelay.services.retriever.service import RetrieveStage
from qrelay.services.sink.service import DeadLetterStage, IngestStage
from qrelay.services.sink.sink import Sink
from qrelay.types import CandidateSet, JudgedSet, Query
from tests.simulation.checker import Labels
from tests.simulation.hostile import HUGE_USAGE, KILLS

COLLECTION: Final = "docs"
SERVICES: Final = ("retriever", "reranker", "judge", "sink")
_HUGE = 5_000_000_000
_RETRIEVER = RetrieverSettings(engine="synthetic", collections=(COLLECTION,), max_candidates=6, max_query_chars=2000)
_RERANKER = RerankerSettings(scorer="fake", keep=5, sample=3, sample_head=2)
SINK: Final = SinkSettings(data_dir=Path("nowhere"))


@dataclass
class Moods:
    """What the judge's engine does: probabilities (0 to 1) at each call."""

    fails: float = 0.0
    slow: float = 0.0


class MoodyBackend(FakeBackend):
    """The fake, which takes its time, fails now and then, and reports an enormous usage, or dies, where a query asks
    for it."""

    def __init__(self, moods: Moods, draw: random.Random, die: Callable[[], None]) -> None:
        super().__init__()
        self._moods, self._draw, self._die = moods, draw, die

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        draw, moods = self._draw, self._moods
        await asyncio.sleep(draw.uniform(0.0, 20.0 if draw.random() < moods.slow else 0.2))
        if draw.random() < moods.fails:
            raise draw.choice(
                (RateLimited("429", retry_after_s=draw.choice((0.5, 4.0))), BackendTimeout("no answer"))
            )
        if any(KILLS in prompt.query for prompt in prompts):
            self._die()
            await asyncio.sleep(0)  # for ever
        answers = await super().score(prompts)
        return [_enormous(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]


def _enormous(prompt: Prompt, answer: TokenLogprobs | QrelayError) -> TokenLogprobs | QrelayError:
    if isinstance(answer, QrelayError) or HUGE_USAGE not in prompt.query:
        return answer
    return replace(answer, prompt_tokens=_HUGE)


@cache
def _index() -> SyntheticIndex:
    return SyntheticIndex((COLLECTION,))


def retriever() -> Retriever:
    return Retriever(_RETRIEVER, _index())


def reranker() -> Reranker:
    return Reranker(FakeScorer(), _RERANKER)


def judge(backend: FakeBackend, now: Callable[[], datetime]) -> Panel:
    cache = NoCache()
    strategy = make_strategy("graded", "0-3", min_mass=0.05, shots=())
    return Panel({"graded": Judge(backend, strategy, cache, clock=now)}, cache)


def stages(
    service: str, *, ledger: Callable[[], Ledger], backend: Callable[[], FakeBackend], now: Callable[[], datetime]
) -> tuple[Any, Sequence[Stage]]:
    """A service's core as it is loaded by a new process, and its stages."""
    match service:
        case "retriever":
            core: Any = retriever()
            return core, [RetrieveStage(core)]
        case "reranker":
            core = reranker()
            return core, [RerankStage(core)]
        case "judge":
            core = judge(backend(), now)
            return core, [JudgeStage(core)]
        case _:
            core = Sink(ledger(), SINK, read_report(SINK.qualification))
            return core, [IngestStage(core), DeadLetterStage(core)]


@cache
def expected_labels(query_id: str, text: str) -> Labels:
    """The labels that a query gets where nothing goes wrong: the cores one after the other, without a queue."""

    async def label() -> JudgedSet | QrelayError:
        (found,) = retriever().retrieve([Query(query_id, text, COLLECTION)])
        assert isinstance(found, CandidateSet)
        (ranked,) = reranker().rerank([found])
        assert isinstance(ranked, CandidateSet)
        (judged,) = await judge(FakeBackend(), datetime.now).judge([ranked])
        return judged

    judged = asyncio.run(label())
    assert isinstance(judged, JudgedSet)
    return {
        each.passage_id: (each.judgment_key, each.outcome.grade, each.outcome.p_relevant)  # type: ignore[union-attr]
        for each in judged.judgments
    }

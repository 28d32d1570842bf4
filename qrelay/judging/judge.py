"""One judge: candidate sets in, one judgment a passage out. Knows neither gRPC nor NATS; `panel.py` joins several.

A pair goes cache -> pre-filter -> backend. Pairs that are equal (same judgment key) are measured once, in
one call or in several at the same time. What fails is `Missing` with its reason, and is never cached; each
set's grades are cached as soon as the set is measured, so that a killed process loses one set's work.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

from qrelay.errors import InternalError, InvalidQuery, QrelayError, TransientError
from qrelay.identity import digest, judge_digest, judgment_key
from qrelay.judging.cache import JudgmentCache, NoCache
from qrelay.judging.failures import missing_of
from qrelay.judging.prefilter import Prefilter
from qrelay.judging.strategies.base import Measured, Strategy, shown
from qrelay.llm.base import Backend
from qrelay.llm.exchange import SHARED_CONTEXT
from qrelay.runtime.stage import Info
from qrelay.types import (
    CandidateSet,
    Graded,
    JudgedSet,
    JudgeIdentity,
    Judgment,
    Missing,
    Passage,
    Query,
    with_reason,
)

log = logging.getLogger(__name__)

T = TypeVar("T")

_STUDENTS = ("retriever", "reranker")
"""Stages whose models find and order what is judged, as a set's trace names them."""
_RAW_REPLY_CHARS = 200
_REASON_CHARS = 500


def utc_now() -> datetime:
    """The clock that `judged_at` is read from."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class _Plan:
    """The pairs to judge of one set, in candidate order."""

    candidate_set: CandidateSet
    passages: tuple[Passage, ...]
    keys: tuple[str, ...]
    read_text: str
    """What the keys say of the query."""
    decoding: str
    """And of how the backend decodes."""


@dataclass(frozen=True, slots=True)
class _Work:
    """The pairs of a plan that this call has to measure, by key."""

    plan: _Plan
    pairs: dict[str, Passage]


class Judge:
    """See the module. Use from one event loop."""

    def __init__(
        self,
        backend: Backend,
        strategy: Strategy,
        cache: JudgmentCache,
        *,
        prefilter: Prefilter | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """`clock` gives UTC times."""
        self._backend = backend
        self._strategy = strategy
        self._cache = cache
        self._prefilter = replace(prefilter or Prefilter(), metadata=strategy.spec.metadata)
        self._clock = clock
        self._named: dict[str, tuple[JudgeIdentity, str]] = {}
        self._in_flight: dict[str, asyncio.Future[Judgment]] = {}

    @property
    def identity(self) -> JudgeIdentity:
        """Who judges. A label decoded by the backend's fallback carries its own identity instead."""
        return self._identity(self._decoding)[0]

    @property
    def _decodings(self) -> tuple[str, ...]:
        """The usual one first, then those that the backend may fall back to, which it may learn as it works. Where
        an endpoint was not reached yet, the usual one may be another before the first answer than after it."""
        spec = self._strategy.spec
        shared = self._backend.decodings(SHARED_CONTEXT) if spec.shares else ()
        return shared or self._backend.decodings(spec.asks)

    @property
    def _decoding(self) -> str:
        return self._decodings[0]

    def _identity(self, decoding: str) -> tuple[JudgeIdentity, str]:
        """Who judges with this decoding, and the hash of that."""
        if decoding not in self._named:
            identity = self._identity_of(decoding)
            self._named[decoding] = identity, judge_digest(identity)
        return self._named[decoding]

    def _identity_of(self, decoding: str) -> JudgeIdentity:
        weights, spec = self._backend.weights, self._strategy.spec
        return JudgeIdentity(
            model=weights.model,
            revision=weights.revision,
            quantisation=weights.quantisation,
            prompt_hash=spec.prompt_hash,
            strategy=spec.name,
            scale=spec.scale.name,
            decoding=decoding,
        )

    async def judge(self, sets: Sequence[CandidateSet]) -> list[JudgedSet | QrelayError]:
        """Each set with one judgment a sampled candidate (all, where none is sampled), in candidate order.

        A set's own trouble (a query without text) comes back as its error; trouble with a pair is a
        judgment that is missing. Raises BackendUnavailable when the cache cannot be read.
        """
        plans = [self._plan(each) for each in sets]
        usable = [plan for plan in plans if isinstance(plan, _Plan)]
        owned = [self._claim(plan) for plan in usable]
        waiting = [[self._in_flight[key] for key in plan.keys] for plan in usable]
        try:
            await self._measure([_Work(plan, mine) for plan, mine in zip(usable, owned, strict=True) if mine])
        finally:
            self._release([key for mine in owned for key in mine])
        done = iter(
            [
                _assemble(plan, mine, [await _result(future) for future in futures])
                for plan, mine, futures in zip(usable, owned, waiting, strict=True)
            ]
        )
        return [next(done) if isinstance(plan, _Plan) else plan for plan in plans]

    def _plan(self, each: CandidateSet) -> _Plan | JudgedSet | InvalidQuery:
        """What to measure; where there is nothing to, the answer."""
        if not each.query.text.strip():
            return InvalidQuery(f"query {each.query.query_id!r} has no text")
        sampled = tuple(c.passage for c in each.candidates if c.sampled)
        passages = sampled or tuple(c.passage for c in each.candidates)
        text = self._read_text(each.query, [p for p in passages if self._prefilter.check(p) is None])
        decoding = self._decoding
        keys = tuple(self._key(text, passage, decoding) for passage in passages)
        plan = _Plan(each, passages, keys, text, decoding)
        stage = self._own_stage(each)
        return self._refused(plan, stage) if stage else plan

    def _read_text(self, query: Query, passages: Sequence[Passage]) -> str:
        """What of the query its labels depend on: its text, and what else the strategy reads."""
        beside = self._strategy.reads(query, passages)
        return digest(query.text, beside) if beside else query.text

    def _claim(self, plan: _Plan) -> dict[str, Passage]:
        """The pairs that nobody measures yet: from here on this call does."""
        mine = {}
        loop = asyncio.get_running_loop()
        for key, passage in zip(plan.keys, plan.passages, strict=True):
            if key not in self._in_flight:
                self._in_flight[key] = loop.create_future()
                mine[key] = passage
        return mine

    def _release(self, keys: Sequence[str]) -> None:
        """Whatever ended the measuring, nobody waits for ever."""
        for key in keys:
            future = self._in_flight.pop(key)
            if not future.done():
                reason = Missing("unavailable", "the call that measured this pair was ended; try again")
                future.set_result(self._missing(None, key, reason))

    async def _measure(self, works: Sequence[_Work]) -> None:
        """Resolve every pair of `works`, from the cache or the backend; sets side by side, in order."""
        known = await self._cached(works)
        async with asyncio.TaskGroup() as group:
            for work in works:
                there = work.pairs.keys() & known.keys()
                if self._strategy.spec.listwise and len(there) < len(work.pairs):
                    there = set()
                for key in there:
                    self._in_flight[key].set_result(known[key])
                fresh = {key: passage for key, passage in work.pairs.items() if key not in there}
                if fresh:
                    group.create_task(self._measure_set(_Work(work.plan, fresh)))

    def _own_stage(self, candidates: CandidateSet) -> str:
        """The stage that found or ordered the candidates by this very model, on whichever engine, or "": its label
        would be the student's own score once more."""
        weights = self._backend.weights
        own = _model_of(f"{weights.model}@{weights.revision}")
        steps = (step for step in candidates.trace if step.stage in _STUDENTS)
        return next((step.stage for step in steps if _model_of(step.model) == own), "")

    def _refused(self, plan: _Plan, stage: str) -> JudgedSet:
        """Of this set alone: the same pairs, found by another model, may be measured at this moment."""
        why = f"{self._backend.weights.model} is the {stage}'s own model: its score is no judgment; judge by another"
        pairs = zip(plan.passages, plan.keys, strict=True)
        return JudgedSet(
            plan.candidate_set, tuple(self._missing(each, key, Missing("refused", why)) for each, key in pairs)
        )

    async def _cached(self, works: Sequence[_Work]) -> dict[str, Judgment]:
        """The judgments that the cache has, under any of the backend's decodings, by primary key."""
        keys = {key: key for work in works for key in work.pairs}
        for decoding in self._decodings[1:]:
            for work in works:
                read = work.plan.read_text
                keys |= {self._key(read, passage, decoding): key for key, passage in work.pairs.items()}
        if not keys:
            return {}
        found = await self._off_loop(self._cache.get_many, list(keys))
        known: dict[str, Judgment] = {}
        for key, primary in keys.items():
            if key in found:
                known.setdefault(primary, found[key])
        return known

    def _key(self, read_text: str, passage: Passage, decoding: str) -> str:
        judge_hash, metadata = self._identity(decoding)[1], shown(self._strategy.spec.metadata, passage.metadata)
        return judgment_key(read_text, passage.title, passage.text, judge_hash, metadata)

    async def _measure_set(self, work: _Work) -> None:
        """Filter, ask, grade, cache, resolve: one query's pairs, adjacent. A bug costs the set, not the batch."""
        try:
            judgments = await self._judgments(work)
            await self._remember([judgment for judgment in judgments.values() if is_graded(judgment)])
        except Exception as error:
            log.error("judging a set raised %s", type(error).__name__, exc_info=error)
            bug = missing_of(InternalError(f"judging raised {type(error).__name__}"))
            judgments = {key: self._missing(passage, key, bug) for key, passage in work.pairs.items()}
        for key, judgment in judgments.items():
            self._in_flight[key].set_result(judgment)

    async def _judgments(self, work: _Work) -> dict[str, Judgment]:
        judgments: dict[str, Judgment] = {}
        asked: list[tuple[str, Passage]] = []
        for key, passage in work.pairs.items():
            filtered = self._prefilter.check(passage)
            if filtered is None:
                asked.append((key, passage))
            else:
                judgments[key] = self._missing(passage, key, filtered)
        outcomes = await self._ask(work.plan.candidate_set.query, [passage for _, passage in asked])
        now = self._clock()
        for (key, passage), outcome in zip(asked, outcomes, strict=True):
            judgments[key] = self._judgment(work.plan, key, passage, outcome, now)
        return judgments

    async def _ask(self, query: Query, passages: Sequence[Passage]) -> Sequence[Measured | QrelayError]:
        if not passages:
            return []
        try:
            return await self._strategy.measure(self._backend, query, passages)
        except QrelayError as error:
            return [error] * len(passages)

    def _judgment(
        self, plan: _Plan, key: str, passage: Passage, measured: Measured | QrelayError, now: datetime
    ) -> Judgment:
        if isinstance(measured, QrelayError):
            return self._missing(passage, key, missing_of(measured))
        decoding = measured.decoding
        return Judgment(
            passage_id=passage.passage_id,
            judgment_key=key if decoding == plan.decoding else self._key(plan.read_text, passage, decoding),
            outcome=measured.outcome,
            judge=self._identity(decoding)[0],
            judged_at=now,
            raw_reply=_shown(measured),
            prompt_tokens=measured.prompt_tokens,
        )

    def _missing(self, passage: Passage | None, key: str, outcome: Missing) -> Judgment:
        return Judgment(passage.passage_id if passage else "", key, outcome, self.identity, self._clock())

    async def _remember(self, judgments: Sequence[Judgment]) -> None:
        if not judgments:
            return
        try:
            await self._off_loop(self._cache.put_many, judgments)
        except TransientError as error:
            log.warning("%d labels were not cached: %s", len(judgments), error)

    async def _off_loop(self, method: Callable[[Any], T], asked: Any) -> T:
        """A method of the cache, which blocks; where there is none, a thread would be the only work."""
        return method(asked) if isinstance(self._cache, NoCache) else await asyncio.to_thread(method, asked)

    def info(self) -> Info:
        """The judge's identity, field by field, and what is to be known of its engine now."""
        spec = self._strategy.spec
        details = {
            "strategy": spec.name,
            "scale": f"{spec.scale.name}, relevant from {spec.scale.relevant_grade}",
            "prompt_hash": spec.prompt_hash,
            "decoding": self.identity.decoding,
            "judge_hash": self.hashes[0],
            "calibration": "none: p_relevant is the model's own",
        }
        if spec.metadata:
            details["metadata"] = ", ".join(spec.metadata)
        if fallbacks := self._decodings[1:]:
            details["fallback decoding"] = " | ".join(fallbacks)
        details |= {f"engine: {word}": note for word, note in self._backend.notes.items()}
        return Info(models={"judge": self.identity.fingerprint}, details=details)

    @property
    def hashes(self) -> tuple[str, ...]:
        """The hashes of its identities: the usual one first, then those of fallback decodings."""
        return tuple(self._identity(decoding)[1] for decoding in self._decodings)

    @property
    def backend(self) -> Backend:
        """Its engine."""
        return self._backend

    @property
    def strategy(self) -> Strategy:
        """How it asks."""
        return self._strategy

    def close(self) -> None:
        """Free the engine. The cache is shared and stays open."""
        self._backend.close()


def _model_of(fingerprint: str) -> str:
    """Name and revision of a fingerprint, without what computes it and how much of its vectors is kept."""
    name, at, revision = fingerprint.partition("@")
    return name + at + revision.partition("+")[0]


def is_graded(judgment: Judgment) -> bool:
    """Whether it measured something."""
    return isinstance(judgment.outcome, Graded)


def _shown(measured: Measured) -> str:
    """What was said, bounded; the reason on one line, and without what a terminal would obey."""
    reason = " ".join(measured.reason.split())
    if not reason.isprintable():
        reason = "".join(each for each in reason if each.isprintable())
    return with_reason(measured.raw_reply[:_RAW_REPLY_CHARS], reason[:_REASON_CHARS].rstrip())


async def _result(future: asyncio.Future[Judgment]) -> Judgment:
    """Shielded: a caller that gives up must not cancel what others wait for."""
    return future.result() if future.done() else await asyncio.shield(future)


def _assemble(plan: _Plan, mine: dict[str, Passage], judgments: Sequence[Judgment]) -> JudgedSet:
    """The plan's judgments in order. One that another pair's measurement brought cost nothing here."""
    answered = []
    unpaid = set(mine)
    for key, passage, judgment in zip(plan.keys, plan.passages, judgments, strict=True):
        if key in unpaid:
            unpaid.remove(key)
            own = judgment
        else:
            own = replace(judgment, cached=is_graded(judgment), prompt_tokens=0)
        answered.append(own if own.passage_id == passage.passage_id else replace(own, passage_id=passage.passage_id))
    return JudgedSet(plan.candidate_set, tuple(answered))

"""The judge's two endpoints on one core: the queue's stage and the gRPC servicer."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from qrelay import wire
from qrelay.errors import BackendUnavailable, QrelayError
from qrelay.judging.core import JudgeCore
from qrelay.judging.engines import needed_models, prepare_models
from qrelay.judging.failures import hold_of, transient_missing
from qrelay.judging.load import check_core, load_serving
from qrelay.judging.settings import JudgeSettings
from qrelay.runtime import telemetry
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.gathering import Calls
from qrelay.runtime.servicer import Servicer, answer_items, streamed
from qrelay.runtime.stage import ServiceDef, Work
from qrelay.runtime.topology import Queue
from qrelay.types import CandidateSet, Graded, JudgedSet, Missing
from qrelay.v1 import judge_pb2 as pb
from qrelay.v1 import judge_pb2_grpc as pb_grpc

Context = ServiceContext[JudgeSettings, JudgeCore]
_CHARS_PER_TOKEN = 4
_MOST_COLLECTIONS: Final = 100
_COLLECTIONS: Final[set[str]] = set()
"""Those that this process counts by their names."""


def cost(record: CandidateSet) -> int:
    """Tokens to read, roughly."""
    return sum(len(candidate.passage.text) for candidate in record.candidates) // _CHARS_PER_TOKEN


class JudgeStage:
    """reranked -> judged.

    A set in which the backend failed some pairs is asked for again, as long as attempts are left: what
    succeeded is in the cache by then, so only the failures cost. On the last attempt it goes on with what
    there is, failures marked missing; a set without a single judgment becomes a dead letter instead, so
    that it can be replayed when the backend is back. A set that an endpoint's pause or refusal holds up is on hold:
    no attempt is counted.
    """

    name = "judge"
    source = Queue.RERANKED
    target = Queue.JUDGED
    read = staticmethod(wire.from_proto)

    def __init__(self, core: JudgeCore) -> None:
        self._core = core

    def cost(self, record: CandidateSet) -> int:
        """Tokens to read, roughly."""
        return cost(record)

    async def handle(self, works: Sequence[Work]) -> Sequence[JudgedSet | QrelayError]:
        """Judge one batch."""
        outcomes = await self._core.judge([work.record for work in works])
        for outcome in outcomes:
            if isinstance(outcome, JudgedSet):
                _count(outcome)
        return [_settled(outcome, work) for outcome, work in zip(outcomes, works, strict=True)]


def _settled(outcome: JudgedSet | QrelayError, work: Work) -> JudgedSet | QrelayError:
    if isinstance(outcome, QrelayError) or not transient_missing(outcome):
        return outcome
    if held := hold_of(outcome):
        return held
    graded = sum(isinstance(judgment.outcome, Graded) for judgment in outcome.judgments)
    if work.last_attempt and graded:
        return outcome
    missing = [judgment.outcome for judgment in outcome.judgments if isinstance(judgment.outcome, Missing)]
    reasons = Counter(each.reason for each in missing).most_common()
    return BackendUnavailable(
        f"{len(missing)} of {len(outcome.judgments)} judgments failed "
        f"({', '.join(f'{count} {reason}' for reason, count in reasons)}); first: {missing[0].detail[:300]}"
    )


def _count(judged: JudgedSet) -> None:
    """A set's judgments at once: a label of a metric is looked up for each kind, not for each judgment."""
    collection = _label(judged.candidate_set.query.collection)
    kinds, grades, tokens = Counter[str](), Counter[tuple[str, str]](), 0
    for judgment in judged.judgments:
        outcome, strategy = judgment.outcome, judgment.judge.strategy
        if isinstance(outcome, Graded):
            kinds["cached" if judgment.cached else "graded"] += 1
            grades[strategy, str(outcome.grade)] += 1
            telemetry.P_RELEVANT.labels(collection, strategy).observe(outcome.p_relevant)
        elif outcome.on_hold_s is not None:
            continue
        else:
            kinds["missing"] += 1
            grades[strategy, "missing"] += 1
        tokens += judgment.prompt_tokens
    for kind, number in kinds.items():
        telemetry.JUDGMENTS.labels(kind).inc(number)
    for (strategy, grade), number in grades.items():
        telemetry.GRADES.labels(collection, strategy, grade).inc(number)
    telemetry.PROMPT_TOKENS.inc(tokens)
    telemetry.COLLECTION_TOKENS.labels(collection).inc(tokens)


def _label(collection: str) -> str:
    """The collection's name in metrics: callers may name as many as they like, and each would stay for ever."""
    if len(_COLLECTIONS) < _MOST_COLLECTIONS:
        _COLLECTIONS.add(collection)
    return collection if collection in _COLLECTIONS else "others"


class JudgeServicer(Servicer, pb_grpc.JudgeServiceServicer):
    """The gRPC servicer."""

    _context: Context
    info_response = pb.JudgeServiceGetInfoResponse

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self._calls = Calls(context.service, context.settings.worker, self._judge, cost, queues=True)

    async def Judge(self, request: pb.JudgeRequest, context: Any) -> pb.JudgeResponse:
        """Each set judged, in order; failures are marked missing, with the reason."""
        results = await answer_items(
            self._context,
            request.candidate_sets,
            self._calls.answer,
            lambda judged: pb.JudgeResult(judged_set=wire.to_proto(judged)),
            lambda error: pb.JudgeResult(error=error),
        )
        return pb.JudgeResponse(results=results)

    async def _judge(self, sets: list[CandidateSet], _: object) -> Sequence[JudgedSet | QrelayError]:
        outcomes = await self._context.core.judge(sets)
        for outcome in outcomes:
            if isinstance(outcome, JudgedSet):
                _count(outcome)
        return outcomes

    def StreamJudge(
        self, requests: AsyncIterator[pb.StreamJudgeRequest], context: Any
    ) -> AsyncIterator[pb.StreamJudgeResponse]:
        """Judge, request after request."""
        return streamed(requests, self.Judge, pb.StreamJudgeResponse, context)


SERVICE: ServiceDef[JudgeSettings, JudgeCore] = ServiceDef(
    name="judge",
    grpc_name="qrelay.v1.JudgeService",
    settings=JudgeSettings,
    load=load_serving,
    check=check_core,
    stages=lambda context: [JudgeStage(context.core)],
    add_servicer=lambda server, context: pb_grpc.add_JudgeServiceServicer_to_server(JudgeServicer(context), server),
    info=lambda core: core.info(),
    close=lambda core: core.close(),
    models=needed_models,
    prepare=prepare_models,
)

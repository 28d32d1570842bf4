"""Faults put back, to see that the simulation finds them: those that the pipeline had, and some that it could have.

Each is a part of the pipeline with one thing changed. `odd`: the kind of odd message that shows it, where it takes
one; `says`: a part of the finding.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import sqlalchemy as sa

from qrelay import wire
from qrelay.errors import InternalError, MalformedInput, QrelayError
from qrelay.labels.ledger.ledger import CommitStatus
from qrelay.runtime.dead_letters import exhausted, query_of
from qrelay.runtime.stage import Work
from qrelay.runtime.topology import SUBJECT_ROOT, Queue
from qrelay.runtime.translate import Fate, fate
from qrelay.runtime.worker import StageWorker
from qrelay.types import JudgedSet, Judgment
from tests.simulation import cores
from tests.simulation.checker import envelope, key_of
from tests.simulation.installation import Parts
from tests.simulation.store import SimulatedLedger

SEEDS: Final = range(1, 61)
"""A fault has to be found within these."""


@dataclass(frozen=True)
class Mutation:
    """See the module."""

    parts: Callable[[], Parts]
    says: str
    odd: str = ""


class EndsOverAMessage(StageWorker):
    """A time out of range, or a record of another kind, ends the service, again and again."""

    def _accept(self, held: Any) -> None:
        try:
            held.record = wire.decode(held.message.payload, held.message.headers)
        except MalformedInput as error:
            if isinstance(error.__cause__, ValueError):
                raise error.__cause__ from None
            held.refusal = error
            self._batcher.add(held)
            return
        if held.message.attempt > self._settings.max_attempts:
            held.refusal = exhausted(held.message.attempt)
        self._batcher.add(held, cost=self._stage.cost(held.record), size=len(held.message.payload))


class PublishesToAnySubject(StageWorker):
    """Takes a collection's name for a token of a subject, and a subject that is none for an outage."""

    async def _publish(self, subject: str, record: Any, msg_id: str, replay: str) -> None:
        collection, queue = query_of(record).collection or "unreadable", subject.rsplit(".", 1)[-1]
        while True:
            try:
                return await super()._publish(f"{SUBJECT_ROOT}.{collection}.{queue}", record, msg_id, replay)
            except MalformedInput:
                await asyncio.sleep(2.0)

    def _accept(self, held: Any) -> None:
        held.record = wire.decode(held.message.payload, held.message.headers)
        self._batcher.add(held)


class LeavesUnsettled(StageWorker):
    """Leaves an answer that cannot be encoded to be delivered again, and goes on holding it by heartbeats."""

    async def _succeed(self, held: Any, outcome: Any, step: Any) -> None:
        try:
            if outcome is not None:
                wire.encode(outcome)
        except MalformedInput:
            return
        await super()._succeed(held, outcome, step)


class BuriesDeadLetters(StageWorker):
    """Dead-letters a dead letter that cannot be recorded, with the number that does not fit."""

    def _letter(self, held: Any, error: QrelayError) -> Any:
        key = key_of(envelope(held.message.payload, held.message.headers))
        letter = super()._letter(held, error)
        return replace(letter, round=key.round if key else 2**31 if self._stage.source is Queue.DLQ else 0)

    async def _fail(self, held: Any, error: QrelayError) -> None:
        if fate(error) is Fate.DEAD_LETTER:
            await self._bury(held, error)
        else:
            await super()._fail(held, error)


class BuriesUnread(StageWorker):
    """Dead-letters a message whose attempts are used up without reading whose it is; so it met a sound query while
    one that kills was handled together with others."""

    def _suspect(self, message: Any) -> bool:
        return False

    def _accept(self, held: Any) -> None:
        if held.message.attempt > self._settings.max_attempts:
            held.refusal = exhausted(held.message.attempt)
            self._batcher.add(held)
        else:
            super()._accept(held)


class AcksFirst(StageWorker):
    """Acks the input and publishes the output afterwards."""

    async def _succeed(self, held: Any, *rest: Any) -> None:
        await held.message.ack()
        await super()._succeed(held, *rest)


class Forgets(StageWorker):
    """Acks what it cannot process, without a dead letter."""

    async def _bury(self, held: Any, error: QrelayError) -> None:
        await self._finish(held, "forgotten")


class LosesOnDrain(StageWorker):
    """Acks what it holds when it is told to stop, instead of returning it."""

    async def _drain(self) -> None:
        for held in list(self._held):
            await self._release(held, held.message.ack(), "dropped")
        await super()._drain()


class LeaksPlaces(StageWorker):
    """Does not free the place of a batch of several messages."""

    def _batch_done(self, task: Any) -> None:
        if len(self._held) < 2:
            super()._batch_done(task)
        else:
            self._tasks = {*self._tasks - {task}, asyncio.get_running_loop().create_future()}  # type: ignore[arg-type]


class BlamesNeighbours(StageWorker):
    """Holds all messages of a batch that raises to be bad."""

    async def _outcomes(self, batch: Sequence[Any]) -> list[Any]:
        outcomes = await super()._outcomes(batch)
        failed = [each for each in outcomes if isinstance(each, QrelayError)]
        return [InternalError("a neighbour is bad")] * len(outcomes) if failed else outcomes


class HoldsForEver(StageWorker):
    """Keeps what it could not return: heartbeats hold it."""

    async def _release(self, held: Any, answer: Any, outcome: str) -> None:
        if outcome == "retried":
            answer.close()
        else:
            await super()._release(held, answer, outcome)


class MergesTwice(SimulatedLedger):
    """Takes a set that comes again for another round of its query."""

    def commit(self, sets: Sequence[Any], *, audited: bool = False) -> list[CommitStatus | QrelayError]:
        outcomes = super().commit(sets, audited=audited)
        for record, outcome in zip(sets, outcomes, strict=True):
            if outcome is CommitStatus.DUPLICATE:
                with self.writing("merge twice") as connection:
                    connection.execute(_AGAIN, {"id": query_of(record).query_id})
        return outcomes


_AGAIN: Final = sa.text(
    "INSERT INTO generations (query_no, generation, change_no, added_us, judgments, round, left_out) "
    "SELECT query_no, max(generation) + 1, change_no, added_us, judgments, round, left_out FROM generations "
    "WHERE query_no = (SELECT query_no FROM queries WHERE query_id = :id)"
)


class AnswersTooEarly(SimulatedLedger):
    """Says committed where the database did not answer."""

    def commit(self, sets: Sequence[Any], *, audited: bool = False) -> list[CommitStatus | QrelayError]:
        outcomes = super().commit(sets, audited=audited)
        away = [isinstance(each, QrelayError) and each.reason == "backend_unavailable" for each in outcomes]
        return [CommitStatus.DUPLICATE if gone else each for gone, each in zip(away, outcomes, strict=True)]


class _ShiftedLabels:
    """A judge that gives the labels of a batch's last query to its first."""

    def __init__(self, stage: Any) -> None:
        self._stage = stage
        self.name, self.source, self.target = stage.name, stage.source, stage.target
        self.read, self.cost = stage.read, stage.cost

    async def handle(self, works: Sequence[Work]) -> Sequence[Any]:
        outcomes = list(await self._stage.handle(works))
        if len(outcomes) > 1 and all(isinstance(each, JudgedSet) for each in outcomes):
            outcomes[0] = _relabelled(outcomes[0], outcomes[-1].judgments)
        return outcomes


def _relabelled(judged: JudgedSet, others: Sequence[Judgment]) -> JudgedSet:
    pairs = zip(judged.judgments, others, strict=False)
    return replace(judged, judgments=tuple(replace(other, passage_id=own.passage_id) for own, other in pairs))


def _shifted(service: str, **given: Any) -> tuple[Any, Sequence[Any]]:
    core, stages = cores.stages(service, **given)
    return core, [_ShiftedLabels(stage) if stage.name == "judge" else stage for stage in stages]


def _worker(changed: type[StageWorker]) -> Callable[[], Parts]:
    return lambda: Parts(worker=changed)


MUTATIONS: Final[dict[str, Mutation]] = {
    "time_ends_service": Mutation(_worker(EndsOverAMessage), "not settled", odd="time_out_of_range"),
    "kind_ends_service": Mutation(_worker(EndsOverAMessage), "ended by itself", odd="another_kind"),
    "any_subject": Mutation(_worker(PublishesToAnySubject), "not settled", odd="no_subject_token"),
    "left_unsettled": Mutation(_worker(LeavesUnsettled), "not settled", odd="usage_of_billions"),
    "buried_dead_letters": Mutation(_worker(BuriesDeadLetters), "without end", odd="huge_number"),
    "buried_unread": Mutation(_worker(BuriesUnread), "is nowhere", odd="killer"),
    "acks_first": Mutation(_worker(AcksFirst), "acked without"),
    "forgets": Mutation(_worker(Forgets), "acked without", odd="garbage"),
    "loses_on_drain": Mutation(_worker(LosesOnDrain), "acked without"),
    "leaks_places": Mutation(_worker(LeaksPlaces), "not settled"),
    "blames_neighbours": Mutation(_worker(BlamesNeighbours), "dead for itself", odd="odd_text"),
    "holds_for_ever": Mutation(_worker(HoldsForEver), "not settled"),
    "merges_twice": Mutation(lambda: Parts(ledger=MergesTwice), "generations of one round"),
    "answers_too_early": Mutation(lambda: Parts(ledger=AnswersTooEarly), "acked without"),
    "shifts_labels": Mutation(lambda: Parts(stages=_shifted), "instead of"),
}

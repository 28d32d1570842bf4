"""The four services as simulated processes: started, watched, killed, frozen, cut off."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from qrelay.config import WorkerSettings
from qrelay.errors import TransientError
from qrelay.labels.ledger.ledger import CommitStatus
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.memory import MemoryBroker
from qrelay.runtime.topology import Queue
from qrelay.runtime.worker import StageWorker
from qrelay.services.sink.service import SinkServicer
from qrelay.types import DeadLetter, JudgedSet
from qrelay.v1 import sink_pb2
from tests.simulation import cores, store
from tests.simulation.checker import Key
from tests.simulation.cores import MoodyBackend
from tests.simulation.loop import Process
from tests.simulation.network import Connection

if TYPE_CHECKING:
    from tests.simulation.world import World

WORKER: Final = WorkerSettings(
    max_items=4, max_delay_s=0.05, retry_delays_s=(0.5, 1.0, 3.0), heartbeat_s=2.0, max_attempts=5, drain_s=3.0
)
_RESTART_S: Final = (0.2, 3.0)
_WRITES: Final = {
    "retriever": Queue.RETRIEVED,
    "reranker": Queue.RERANKED,
    "judge": Queue.JUDGED,
    "sink": Queue.QUERIES,
}


@dataclass
class Living:
    """A service's present process, where there is one."""

    process: Process
    connection: Connection
    workers: list[StageWorker] = field(default_factory=list)
    core: Any = None
    killed: asyncio.Event = field(default_factory=asyncio.Event)
    told_to_stop: bool = False

    def die(self) -> None:
        """SIGKILL: nothing of it ever runs again."""
        self.process.running = False
        self.killed.set()


@dataclass(frozen=True)
class Parts:
    """What a world is made of; mutations replace it."""

    worker: type[StageWorker] = StageWorker
    broker: type[MemoryBroker] = MemoryBroker
    ledger: type[store.SimulatedLedger] = store.SimulatedLedger
    stages: Callable[..., Any] = cores.stages


class Installation:
    """See the module. `dead`: the processes that are gone."""

    def __init__(self, world: World, parts: Parts) -> None:
        self._world, self._parts = world, parts
        self.living: dict[str, Living] = {}
        self.dead: list[Process] = []
        self._store_draw = world.draw("store")

    async def supervise(self, service: str, name: str) -> None:
        """Starts a service, again whenever it has ended."""
        draw = self._world.draw(f"supervisor {name}")
        for life in range(10_000):
            process = Process(f"{name}/{life}")
            living = Living(
                process, Connection(self._world, process.name, self._world.draw(f"network {process.name}"))
            )
            self.living[name] = living
            self._world.log("start", process)
            main = self._world.loop.start(process, self._serve(service, name, living))
            killed = asyncio.ensure_future(living.killed.wait())
            await asyncio.wait({main, killed}, return_when=asyncio.FIRST_COMPLETED)
            killed.cancel()
            if main.done() and not living.told_to_stop:
                error = main.exception()
                self._world.log("exit", process, type(error).__name__)
                self._world.checker.exited(name, error)
            process.running = False
            self.dead.append(process)
            del self.living[name]
            await asyncio.sleep(draw.uniform(*_RESTART_S))

    async def _serve(self, service: str, name: str, living: Living) -> None:
        """What `qrelay.runtime.service` does once a core is loaded and NATS is there."""
        core, stages = self._parts.stages(
            service,
            ledger=self._ledger,
            backend=lambda: MoodyBackend(
                self._world.moods, self._world.draw(f"engine {living.process.name}"), living.die
            ),
            now=lambda: self._world.now(service),
        )
        living.core = core
        living.workers = [
            self._parts.worker(
                stage,
                living.connection,
                WORKER,
                replica=name,
                clock=self._world.loop.time,
                now=lambda: self._world.now(service),
            )
            for stage in stages
        ]
        running = [asyncio.create_task(worker.run()) for worker in living.workers]
        await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
        for worker in living.workers:
            worker.stop()
        await asyncio.gather(*running)

    def _ledger(self) -> store.SimulatedLedger:
        return self._parts.ledger(
            self._world.database,
            lambda: self._world.now("sink"),
            away=lambda: self._world.loop.time() < self._world.store_away_until,
            answer_lost=lambda: (
                not self._world.calm and self._store_draw.random() < self._world.plan.store_answer_lost
            ),
            committed=self._committed,
            recorded=self._recorded,
        )

    def _committed(self, record: JudgedSet, status: CommitStatus) -> None:
        query = record.candidate_set.query
        self._world.log(status.value, query.query_id, query.round)
        key = Key(query.collection, query.query_id, query.text, query.round)
        self._world.check(lambda checker: checker.committed(key, status))

    def _recorded(self, letter: DeadLetter) -> None:
        self._world.log("recorded", letter.dead_letter_id, letter.reason)
        self._world.check(lambda checker: checker.recorded(letter))

    def _replicas(self, service: str) -> Iterator[Living]:
        yield from (living for name, living in [*self.living.items()] if name.partition(".")[0] == service)

    def kill(self, service: str) -> None:
        """SIGKILL."""
        for living in self._replicas(service):
            living.die()

    def terminate(self, service: str) -> None:
        """SIGTERM."""
        for living in self._replicas(service):
            living.told_to_stop = True
            for worker in living.workers:
                worker.stop()

    async def freeze(self, service: str, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        frozen = [living for living in self._replicas(service) if living.process.running]
        for living in frozen:
            living.process.running = False
        await asyncio.sleep(seconds)
        for living in frozen:
            if not living.killed.is_set():
                self._world.loop.resume(living.process)

    def cut(self, service: str, seconds: float) -> None:
        """No connection to the broker for so long."""
        for living in self._replicas(service):
            living.connection.cut_until = self._world.loop.time() + seconds

    def streams_of(self, service: str) -> set[Queue]:
        """Where a service writes."""
        return {_WRITES[service], Queue.DLQ}

    async def replay(self) -> None:
        """An operator's `qrelay dlq replay` through the sink's servicer, which may die over it."""
        for living in self._replicas("sink"):
            if living.core is not None and living.process.running:
                self._world.loop.start(living.process, self._replay(living))
                return

    async def _replay(self, living: Living) -> None:
        context: ServiceContext[Any, Any] = ServiceContext("sink", cores.SINK, "sink")
        context.core, context.broker = living.core, living.connection
        try:
            request = sink_pb2.ReplayDeadLettersRequest(all=True)
            answer = await SinkServicer(context).ReplayDeadLetters(request, None)
            self._world.log("replayed", answer.replayed)
        except TransientError as error:
            self._world.log("replay failed", type(error).__name__)
        except Exception as error:
            self._world.checker.wrong(f"replaying dead letters raised {type(error).__name__}: {str(error)[:200]}")

"""One simulated installation: broker, ledger, the four services, a feed, and whoever breaks them."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from zlib import crc32

from qrelay import wire
from qrelay.config import WorkerSettings
from qrelay.errors import TransientError
from qrelay.identity import feed_message_id
from qrelay.labels.ledger.ledger import CommitStatus
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.memory import Faults, MemoryBroker
from qrelay.runtime.topology import Queue
from qrelay.runtime.worker import StageWorker
from qrelay.services.sink.service import SinkServicer
from qrelay.types import DeadLetter, JudgedSet, Query
from qrelay.v1 import sink_pb2
from tests.simulation import cores, store
from tests.simulation.checker import SETTLE_S, Checker, Key
from tests.simulation.cores import SERVICES, MoodyBackend
from tests.simulation.faults import FAULTS
from tests.simulation.hostile import Odd
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import Connection
from tests.simulation.plan import TROUBLE_S, Moment, Plan

WORKER: Final = WorkerSettings(
    max_items=4, max_delay_s=0.05, retry_delays_s=(0.5, 1.0, 3.0), heartbeat_s=2.0, max_attempts=5, drain_s=3.0
)
ACK_WAIT_S: Final = 6.0
_MAX_MESSAGE_BYTES: Final = 128 * 1024
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_RESTART_S: Final = (0.2, 3.0)
_PAUSE_S: Final = 0.5
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


class World:
    """See the module. `run` is one seed, from its start to its verdict."""

    def __init__(self, plan: Plan, parts: Parts | None = None, say: Callable[[str], None] | None = None) -> None:
        """`say` hears every event as a line of text."""
        self.plan, self._parts, self._say = plan, parts or Parts(), say
        self.checker = Checker()
        self.loop = SimulatedLoop(self._draw("threads"))
        self.weather, self.moods = plan.weather, plan.moods
        self.accidents = Faults(**plan.broker, seed=plan.seed)
        self.full: set[Queue] = set()
        self.clocks: dict[str, float] = {}
        self.living: dict[str, Living] = {}
        self.store_away_until = 0.0
        self.settled_s = 0.0
        self.steps = 0
        self.events = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self._calm = False
        self._outside = Process("outside")
        self._dead = [self._outside]
        self._odd_draw, self._store_draw = self._draw("again"), self._draw("store")
        self._database = store.empty_database(postgresql=plan.postgresql)
        for _, query in plan.queries:
            key = Key(query.collection, query.query_id, query.text, query.round)
            self.checker.expect(key, cores.expected_labels(query.query_id, query.text))

    def _draw(self, what: str) -> random.Random:
        return random.Random(f"{what} {self.plan.seed}")

    @property
    def digest(self) -> str:
        """Of every event of the run so far: the same seed gives the same."""
        return self._hash.hexdigest()

    def log(self, what: str, *details: Any) -> None:
        """One event."""
        shown = [f"{crc32(each):08x}" if isinstance(each, bytes) else str(each) for each in details]
        line = f"{self.loop.time():.6f} {what} {' '.join(shown)}"
        self.events += 1
        self._hash.update(line.encode(errors="replace"))
        if self._say:
            self._say(line)

    def check(self, step: Callable[[Checker], None]) -> None:
        """A step of the checker, within a service that would take its failure for its own."""
        try:
            step(self.checker)
        except Exception as error:
            self.checker.wrong(f"the checker failed: {type(error).__name__}: {error}")

    def now(self, service: str) -> datetime:
        """The wall clock of a service's machine."""
        return _EPOCH + timedelta(seconds=self.loop.time() + self.clocks.get(service, 0.0))

    def queue_of(self, subject: str) -> Queue | None:
        """The queue that a subject names."""
        last = subject.rsplit(".", 1)[-1]
        return Queue(last) if last in set(Queue) else None

    # -- one seed

    def run(self) -> Checker:
        """The whole seed. What is wrong is in the checker's findings."""
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self._history())
        except Exception as error:
            self.checker.wrong(f"{type(error).__name__}: {error}")
        finally:
            self._end()
        return self.checker

    async def _history(self) -> None:
        plan = self.plan
        self.broker = self._parts.broker(
            max_message_bytes=_MAX_MESSAGE_BYTES, ack_wait_s=ACK_WAIT_S, faults=self.accidents,
            now=lambda: self.now("broker"),
        )  # fmt: skip
        for service in SERVICES:
            for replica in range(plan.replicas[service]):
                self._task(self._supervise(service, f"{service}.{replica}" if replica else service))
        feeds = [self._task(self._feed(at, query)) for at, query in plan.queries]
        feeds += [self._task(self._send(at, odd)) for at, odd in plan.odd]
        troubles = [self._task(self._trouble(moment)) for moment in plan.moments]
        await asyncio.sleep(TROUBLE_S)
        self._stop_faults()
        await asyncio.gather(*feeds, *troubles)
        await self._settle()

    def _task(self, coroutine: Any) -> asyncio.Task[Any]:
        return self.loop.start(self._outside, coroutine)

    def _stop_faults(self) -> None:
        self._calm = True
        self.weather.calm()
        self.moods.fails = self.moods.slow = 0.0
        for name in self.plan.broker:
            setattr(self.accidents, name, 0.0)
        self.full.clear()
        self.store_away_until = 0.0
        for living in self.living.values():
            living.connection.cut_until = 0.0
        self.log("calm")

    async def _settle(self) -> None:
        began = self.loop.time()
        left = ["everything"]
        while left and self.loop.time() < began + SETTLE_S:
            if self.checker.findings:
                return
            await asyncio.sleep(1.0)
            left = await self._left()
        self.settled_s = self.loop.time() - began
        exits = [f"{text} ({times} times)" for text, times in self.checker.exits.items()]
        if left:
            why = "; ".join([*left, *exits])
            self.checker.wrong(f"not settled {SETTLE_S:.0f} s after the last fault: {why}")
        elif exits:
            self.checker.wrong("; ".join(exits))
        with self._database.connect() as connection:
            if not left:
                self.checker.conclude(connection)

    async def _left(self) -> list[str]:
        stats = await self.broker.stats()
        with self._database.connect() as connection:
            return self.checker.unsettled(connection, stats)

    def _end(self) -> None:
        """Closes what is left open, so that the next seed finds nothing of this one."""
        self._calm = True
        self.steps = self.loop.steps
        for living in self.living.values():
            self._dead.append(living.process)
        for process in self._dead:
            process.running = False
        self.weather.delay_s = 1e-6
        self._say = None
        self.loop.bury(self._dead)
        self.loop.close()
        asyncio.set_event_loop(None)

    # -- services

    async def _supervise(self, service: str, name: str) -> None:
        """Starts a service, again whenever it has ended."""
        draw = self._draw(f"supervisor {name}")
        for life in range(10_000):
            process = Process(f"{name}/{life}")
            living = Living(process, Connection(self, process.name, self._draw(f"network {process.name}")))
            self.living[name] = living
            self.log("start", process)
            main = self.loop.start(process, self._serve(service, name, living))
            killed = asyncio.ensure_future(living.killed.wait())
            await asyncio.wait({main, killed}, return_when=asyncio.FIRST_COMPLETED)
            killed.cancel()
            if main.done() and not living.told_to_stop:
                error = main.exception()
                self.log("exit", process, type(error).__name__)
                self.checker.exited(name, error)
            process.running = False
            self._dead.append(process)
            del self.living[name]
            await asyncio.sleep(draw.uniform(*_RESTART_S))

    async def _serve(self, service: str, name: str, living: Living) -> None:
        """What `qrelay.runtime.service` does once a core is loaded and NATS is there."""
        core, stages = self._parts.stages(
            service,
            ledger=self._ledger,
            backend=lambda: MoodyBackend(self.moods, self._draw(f"engine {living.process.name}"), living.die),
            now=lambda: self.now(service),
        )
        living.core = core
        living.workers = [
            self._parts.worker(
                stage, living.connection, WORKER, replica=name, clock=self.loop.time, now=lambda: self.now(service)
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
            self._database,
            lambda: self.now("sink"),
            away=lambda: self.loop.time() < self.store_away_until,
            answer_lost=lambda: not self._calm and self._store_draw.random() < self.plan.store_answer_lost,
            committed=self._committed,
            recorded=self._recorded,
        )

    def _committed(self, record: JudgedSet, status: CommitStatus) -> None:
        query = record.candidate_set.query
        self.log(status.value, query.query_id, query.round)
        key = Key(query.collection, query.query_id, query.text, query.round)
        self.check(lambda checker: checker.committed(key, status))

    def _recorded(self, letter: DeadLetter) -> None:
        self.log("recorded", letter.dead_letter_id, letter.reason)
        self.check(lambda checker: checker.recorded(letter))

    # -- producers

    async def _feed(self, at: float, query: Query) -> None:
        """As `qrelay feed`: publishes until the queue has confirmed."""
        await asyncio.sleep(at)
        payload, headers = wire.encode(query)
        await self._publish(Queue.QUERIES.subject(query.collection), payload, headers, feed_message_id(query))

    async def _send(self, at: float, odd: Odd) -> None:
        self.checker.odd(odd.subject, odd.payload, odd.headers, odd.kind)
        await asyncio.sleep(at)
        await self._publish(odd.subject, odd.payload, odd.headers, f"odd {odd.kind} {at}", foreign=True)

    async def _publish(
        self, subject: str, payload: bytes, headers: dict[str, str], msg_id: str, *, foreign: bool = False
    ) -> None:
        """`foreign`: by another client than qrelay's, which checks nothing."""
        connection = Connection(self, "foreign" if foreign else "feed", self._draw(f"feed {msg_id}"))
        send = connection.store if foreign else connection.publish
        while True:
            try:
                await send(subject, payload, headers, msg_id)
                return
            except TransientError:
                await asyncio.sleep(_PAUSE_S)

    # -- faults

    async def _trouble(self, moment: Moment) -> None:
        await asyncio.sleep(moment.at)
        if not self._calm:
            self.log("fault", moment)
            await FAULTS[moment.kind](self, moment.service, moment.seconds)

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
        """SIGSTOP, and SIGCONT after so many seconds, or when faults stop."""
        frozen = [living for living in self._replicas(service) if living.process.running]
        for living in frozen:
            living.process.running = False
        await asyncio.sleep(min(seconds, TROUBLE_S))
        for living in frozen:
            if not living.killed.is_set():
                self.loop.resume(living.process)

    def cut(self, service: str, seconds: float) -> None:
        """No connection to the broker for so long."""
        for living in self._replicas(service):
            living.connection.cut_until = self.loop.time() + seconds

    def streams_of(self, service: str) -> set[Queue]:
        """Where a service writes."""
        return {_WRITES[service], Queue.DLQ}

    async def deliver_again(self, count: int) -> None:
        """Recorded messages of any stage under new ids."""
        history = self.checker.history
        for _ in range(min(count, len(history))):
            subject, payload, headers = self._odd_draw.choice(history)
            await self._publish(subject, payload, dict(headers), f"again {self._odd_draw.random()}")

    async def replay(self) -> None:
        """An operator's `qrelay dlq replay` through the sink's servicer, which may die over it."""
        for living in self._replicas("sink"):
            if living.core is not None and living.process.running:
                self.loop.start(living.process, self._replay(living))
                return

    async def _replay(self, living: Living) -> None:
        context: ServiceContext[Any, Any] = ServiceContext("sink", cores.SINK, "sink")
        context.core, context.broker = living.core, living.connection
        try:
            request = sink_pb2.ReplayDeadLettersRequest(all=True)
            answer = await SinkServicer(context).ReplayDeadLetters(request, None)
            self.log("replayed", answer.replayed)
        except TransientError as error:
            self.log("replay failed", type(error).__name__)
        except Exception as error:
            self.checker.wrong(f"replaying dead letters raised {type(error).__name__}: {str(error)[:200]}")

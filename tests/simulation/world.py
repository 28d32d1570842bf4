"""One simulated installation: broker, ledger, the four services, a feed, and whoever breaks them."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from qrelay import wire
from qrelay.errors import TransientError
from qrelay.identity import feed_message_id
from qrelay.runtime.memory import Faults
from qrelay.runtime.topology import Queue
from qrelay.types import Query
from tests.simulation import cores, store
from tests.simulation.checker import SETTLE_S, Checker, Key
from tests.simulation.cores import SERVICES
from tests.simulation.faults import FAULTS
from tests.simulation.hostile import Odd
from tests.simulation.installation import Installation, Parts
from tests.simulation.loop import Process, SimulatedLoop
from tests.simulation.network import Connection
from tests.simulation.plan import TROUBLE_S, Moment, Plan

ACK_WAIT_S: Final = 6.0
_MAX_MESSAGE_BYTES: Final = 128 * 1024
_EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
_PAUSE_S: Final = 0.5


class World:
    """See the module. `run` is one seed, from its start to its verdict."""

    def __init__(self, plan: Plan, parts: Parts | None = None, say: Callable[[str], None] | None = None) -> None:
        """`say` hears every event as a line of text."""
        self.plan, self._parts, self._say = plan, parts or Parts(), say
        self.checker = Checker()
        self.loop = SimulatedLoop(self.draw("threads"))
        self.weather, self.moods = plan.weather, plan.moods
        self.accidents = Faults(**plan.broker, seed=plan.seed)
        self.full: set[Queue] = set()
        self.clocks: dict[str, float] = {}
        self.store_away_until = 0.0
        self.settled_s = 0.0
        self.steps = 0
        self.events = 0
        self._hash = hashlib.blake2b(digest_size=16)
        self.calm = False
        self.services = Installation(self, self._parts)
        self._outside = Process("outside")
        self._again = self.draw("again")
        self.database = store.empty_database(postgresql=plan.postgresql)
        for _, query in plan.queries:
            key = Key(query.collection, query.query_id, query.text, query.round)
            self.checker.expect(key, cores.expected_labels(query.query_id, query.text))

    def draw(self, what: str) -> random.Random:
        """A generator of its own for everything that draws."""
        return random.Random(f"{what} {self.plan.seed}")

    @property
    def digest(self) -> str:
        """Of every event of the run so far: the same seed gives the same."""
        return self._hash.hexdigest()

    def log(self, what: str, *details: Any) -> None:
        """One event."""
        line = f"{self.loop.time():.6f} {what} {' '.join(map(str, details))}"
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
                self._task(self.services.supervise(service, f"{service}.{replica}" if replica else service))
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
        self.calm = True
        self.weather.calm()
        self.moods.fails = self.moods.slow = 0.0
        for name in self.plan.broker:
            setattr(self.accidents, name, 0.0)
        self.full.clear()
        self.store_away_until = 0.0
        for living in self.services.living.values():
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
        with self.database.connect() as connection:
            if not left:
                self.checker.conclude(connection)

    async def _left(self) -> list[str]:
        stats = await self.broker.stats()
        with self.database.connect() as connection:
            return self.checker.unsettled(connection, stats)

    def _end(self) -> None:
        """Closes what is left open, so that the next seed finds nothing of this one."""
        self.calm = True
        self.steps = self.loop.steps
        processes = [
            self._outside,
            *self.services.dead,
            *(living.process for living in self.services.living.values()),
        ]
        for process in processes:
            process.running = False
        self.weather.delay_s = 1e-6
        self._say = None
        self.loop.bury(processes)
        self.loop.close()
        asyncio.set_event_loop(None)

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
        connection = Connection(self, "foreign" if foreign else "feed", self.draw(f"feed {msg_id}"))
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
        if not self.calm:
            self.log("fault", moment)
            await FAULTS[moment.kind](self, moment.service, moment.seconds)

    async def deliver_again(self, count: int) -> None:
        """Recorded messages of any stage under new ids."""
        history = self.checker.history
        for _ in range(min(count, len(history))):
            subject, payload, headers = self._again.choice(history)
            await self._publish(subject, payload, dict(headers), f"again {self._again.random()}")

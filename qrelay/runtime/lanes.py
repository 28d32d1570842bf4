"""Takes a queue's messages from its lanes in equal shares, by two kinds of JetStream's pull requests.

    reader = LaneReader(client, queue)
    messages = await reader.take(32, timeout_s=1.0)

A *draw* takes what is there, at most a share, and ends at once (`no_wait`). A *bell* takes nothing: it asks for a
message of at most one byte, so the server answers as soon as there is any message, and keeps it. So the reader waits
on every lane at once, and yet no more is delivered than was asked for: whatever ends the process, no delivery of a
message that nobody handles is counted.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg

from qrelay.runtime.natsaccounts import next_subject
from qrelay.runtime.topology import Queue

_BELL_S: Final = 5.0
"""So long a bell stands: as late is a message seen after the crash of the one server that knew of the bell."""
_PACE_S: Final = 1.0
"""Until a bell that was refused is tried again."""
_ANSWER_S: Final = 1.0
"""A draw that is not answered in this time is given up; what it brings later comes with the next."""
_RINGS: Final = "Message Size Exceeds MaxBytes"
_NOBODY: Final = "503"
_DELETED: Final = "Consumer Deleted"
_BELL: Final = "bell"


class Gone(Exception):
    """Nobody answers for one of the lanes' consumers."""


@dataclass(slots=True)
class _Lane:
    consumer: str
    asks: str
    """The subject of its pull requests."""
    more: bool = False
    """Whether there may be messages: its bell rang, or the last draw was filled."""
    left: int = 0
    """What the draw that is going on has not brought yet."""
    draw: int = 0
    """That draw's number."""
    bell_until: float = 0.0


class LaneReader:
    """One reader of one queue's lanes. See the module."""

    def __init__(self, client: Client, queue: Queue) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self._subscription: Any = None
        self._lanes = {lane.consumer: _Lane(lane.consumer, next_subject(lane)) for lane in queue.lanes}
        self._order = deque(self._lanes.values())
        """Who gets what is left over of equal shares, first in line first."""
        self._arrived: deque[Msg] = deque()
        """Delivered, and not returned yet: between two calls nothing but what a draw that was given up brings."""
        self._heard = asyncio.Event()
        self._connection = 0
        self._gone = False

    async def take(self, most: int, timeout_s: float) -> Sequence[Msg]:
        """At most `most` messages: what is there now, else the first to come within the timeout. One call at a time.

        Raises:
            Gone: a consumer is.
        """
        await self._connected()
        give_up = _now() + timeout_s
        while (room := most - len(self._arrived)) > 0:
            await self._hang_bells()
            if await self._draw(room):
                await self._answers(max(give_up, _now() + _ANSWER_S))
            elif self._arrived or _now() >= give_up:
                break
            else:  # until a bell rings, or one of them ends, or the time does
                await self._until(min(give_up, *(lane.bell_until for lane in self._order)))
            if self._gone and not self._arrived:
                raise Gone
        return [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]

    async def close(self) -> None:
        """Hears no more."""
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def _connected(self) -> None:
        """What was asked of a connection that is gone is not answered."""
        if self._subscription is None:
            self._subscription = await self._client.subscribe(
                f"{self._inbox}.*.*", cb=self._hear, pending_bytes_limit=0
            )
        if self._connection != self._client.stats["reconnects"]:
            self._connection = self._client.stats["reconnects"]
            for lane in self._order:
                lane.left, lane.bell_until = 0, 0.0

    async def _hang_bells(self) -> None:
        """Every lane that is not known to have messages gets a bell, also while others have more than is taken: who
        was quiet during a flood is heard with its first message."""
        for lane in self._order:
            if not lane.more and lane.bell_until <= _now():
                lane.bell_until = _now() + _BELL_S
                await self._ask(lane, _BELL, batch=1, max_bytes=1, expires=int(_BELL_S * 1e9))

    async def _draw(self, most: int) -> bool:
        """Ask the lanes that may have messages for equal shares. False: none may."""
        asked = [lane for lane in self._order if lane.more][:most]
        if not asked:
            return False
        share, over = divmod(most, len(asked))
        for number, lane in enumerate(asked):
            lane.left = share + (number < over)
            lane.draw += 1
            await self._ask(lane, f"{lane.draw}", batch=lane.left, no_wait=True)
        served = asked[over - 1]  # the last to get one more than the others; the last of all where none did
        self._order.rotate(-1 - self._order.index(served))
        return True

    async def _answers(self, give_up: float) -> None:
        """Until every draw has ended; a lane whose draw does not is left to its bell."""
        while going := [lane for lane in self._order if lane.left]:
            if not await self._until(give_up):
                for lane in going:
                    lane.left, lane.more = 0, False

    async def _until(self, give_up: float) -> bool:
        """Whether something was heard before the time is over."""
        try:
            async with asyncio.timeout_at(give_up):
                await self._heard.wait()
        except TimeoutError:
            return False
        self._heard.clear()
        return True

    async def _ask(self, lane: _Lane, name: str, **request: float) -> None:
        reply = f"{self._inbox}.{lane.consumer}.{name}"
        await self._client.publish(lane.asks, json.dumps(request).encode(), reply=reply)

    async def _hear(self, message: Msg) -> None:
        """A message, whose address for the ack names its consumer; or the server's word about a request."""
        if message.reply:
            self._arrived.append(message)
            lane = self._lanes[message.metadata.consumer]
            lane.left = max(lane.left - 1, 0)
        else:
            consumer, name = message.subject.split(".")[-2:]
            said = message.headers or {}
            self._told(self._lanes[consumer], name, said.get("Status", ""), said.get("Description", ""))
        self._heard.set()

    def _told(self, lane: _Lane, name: str, status: str, words: str) -> None:
        self._gone = self._gone or status == _NOBODY or words == _DELETED
        if name == str(lane.draw):
            lane.left, lane.more = 0, False
        elif name == _BELL and words == _RINGS:
            lane.more, lane.bell_until = True, 0.0
        elif name == _BELL:
            lane.bell_until = min(lane.bell_until, _now() + _PACE_S)


def _now() -> float:
    return asyncio.get_running_loop().time()

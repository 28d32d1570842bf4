"""What breaks: one function a kind. Each gets the world, the service that it is about, and how long it lasts."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from tests.simulation.world import World


async def kill(world: World, service: str, seconds: float) -> None:
    """SIGKILL; a new process starts after a while."""
    world.services.kill(service)


async def kill_all(world: World, service: str, seconds: float) -> None:
    """A power cut: every service at once."""
    for name in world.services.living:
        world.services.kill(name)


async def restart(world: World, service: str, seconds: float) -> None:
    """SIGTERM: it drains and ends; a new process starts."""
    world.services.terminate(service)


async def freeze(world: World, service: str, seconds: float) -> None:
    """SIGSTOP for a while, often longer than ack_wait."""
    await world.services.freeze(service, min(2 * seconds, 15.0))


async def cut(world: World, service: str, seconds: float) -> None:
    """No connection between the service and the broker."""
    world.services.cut(service, seconds)


async def cut_all(world: World, service: str, seconds: float) -> None:
    """The broker does not answer."""
    for name in world.services.living:
        world.services.cut(name, seconds)


async def store_away(world: World, service: str, seconds: float) -> None:
    """The ledger's database does not answer."""
    world.store_away_until = max(world.store_away_until, world.loop.time() + 2 * seconds)


async def stream_full(world: World, service: str, seconds: float) -> None:
    """The stream that the service writes to refuses; so does that of the dead letters."""
    full = world.services.streams_of(service)
    world.full.update(full)
    await asyncio.sleep(seconds)
    world.full.difference_update(full)


async def clock_jump(world: World, service: str, seconds: float) -> None:
    """The service's clock is wrong from now on, by up to a day, either way."""
    world.clocks[service] = (seconds - 4.0) * 20_000 if seconds > 1.0 else seconds - 0.5


async def deliver_again(world: World, service: str, seconds: float) -> None:
    """Messages of any stage once more, under new ids: the duplicate window has passed."""
    await world.deliver_again(int(seconds) + 1)


async def replay(world: World, service: str, seconds: float) -> None:
    """An operator replays the dead letters."""
    await world.services.replay()


FAULTS: Final[dict[str, Callable[[World, str, float], Awaitable[None]]]] = {
    each.__name__: each
    for each in (
        kill, kill_all, restart, freeze, cut, cut_all, store_away, stream_full, clock_jump, deliver_again, replay,
    )
}  # fmt: skip

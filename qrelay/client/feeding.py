"""Feeding from Python: as `qrelay feed`, through the same feeder and journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

from qrelay.client import inputs
from qrelay.config import NatsSettings, ServiceSettings
from qrelay.feed.fed import Fed
from qrelay.feed.feeder import FeedReport
from qrelay.feed.publish import publish
from qrelay.rundir import endpoints
from qrelay.runtime.natsaccounts import with_seeds
from qrelay.settings import load_settings

_WINDOW: Final = 128


def nats_settings(url: str | None, data_dir: Path, config: Path | None = None) -> NatsSettings:
    """Of the queues: at this URL, else where they run from the data folder, else where the settings say."""
    nats = load_settings(ServiceSettings, "all", file=config, data_dir=data_dir).nats
    running = endpoints(data_dir).get("nats")
    chosen = url or (running.grpc if running else None)
    if running:
        nats = with_seeds(nats, data_dir)
    return nats.model_copy(update={"url": chosen}) if chosen else nats


async def feed(nats_url: str | None, data_dir: Path, items: Any, collection: str, query_round: int) -> FeedReport:
    """Feed items as `inputs.fed` takes them. Raises QrelayError: not all; feeding them again adds the rest."""
    settings = await asyncio.to_thread(nats_settings, nats_url, data_dir)

    def read(item: tuple[Any]) -> Fed:
        return inputs.fed(item[0], collection)

    told: dict[str, Any] = {"query_round": query_round, "read": read, "window": _WINDOW}
    report = await publish(settings, data_dir, _told(items), collection=collection, **told)
    if report.failure:
        raise report.failure
    if (task := asyncio.current_task()) and task.cancelling():
        raise asyncio.CancelledError
    return report


async def _told(items: Any) -> AsyncIterator[Any]:
    """The items, each in a tuple, or an empty text would be passed over; None where there are no more for now."""
    async for batch in inputs.batches(items, _WINDOW):
        for item in batch:
            yield (item,)
        yield None

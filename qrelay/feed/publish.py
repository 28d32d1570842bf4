"""Feeding from here: a connection, the collection's journal in the data folder, and a feeder on both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from qrelay.config import NatsSettings
from qrelay.errors import QrelayError
from qrelay.feed.feeder import Feeder, FeedReport
from qrelay.feed.journal import Journal
from qrelay.formats.queries import Record
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.natsclient import ATTEMPTS


async def publish(
    settings: NatsSettings, data_dir: Path, lines: AsyncIterator[Record | None], *, collection: str, **told: Any
) -> FeedReport:
    """Feed until the input ends, or this is cancelled; `FeedReport.failure` says what else ended it. told: see
    `Feeder`.

    Raises:
        BackendUnavailable: no server answers, or the queues are not declared.
    """
    async with await JetStreamBroker.connect(settings, name="feed", attempts=ATTEMPTS) as broker:
        with Journal(data_dir / "feed" / f"{collection}.sqlite") as journal:
            feeder = Feeder(broker, journal, collection=collection, **told)
            try:
                return await feeder.feed(lines)
            except (KeyboardInterrupt, asyncio.CancelledError):
                return feeder.report  # what was acknowledged is remembered; the rest is fed next time
            except QrelayError as error:
                feeder.report.failure = error
                return feeder.report

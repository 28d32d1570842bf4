"""Publishes increments by itself, after so many labels or hours: background work of the sink, beside the dispatcher.

What is due is read from the ledger alone. Then one publication (`labels/exports/publishing.py`) asks the hub how far
its repository is, so that any number of sinks may do this at once, and a killed one lost and doubled nothing. What
fails, and what may not train, waits, later each time, and says why.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from qrelay.errors import QrelayError
from qrelay.holds import Hold, shown
from qrelay.labels.exports.publishing import Hub, Published, location_of, publish
from qrelay.labels.ledger import outbox
from qrelay.labels.ledger.export_records import Standing, standing
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.times import moment
from qrelay.labels.settings import SinkSettings
from qrelay.models import pushing
from qrelay.runtime import telemetry
from qrelay.settings.publish import DETAIL, PublishSettings

log = logging.getLogger(__name__)

_RETRY_S: Final = 5.0
_RETRY_MAX_S: Final = 600.0
_HOUR_US: Final = 3_600_000_000


@dataclass(slots=True)
class _Pause:
    """After a failure. tries: in a row; ends: by the publisher's clock."""

    hold: Hold
    tries: int
    ends: float


class Publisher:
    """Publishes the collections of one ledger. `clock`: seconds, for the pauses between attempts."""

    def __init__(
        self,
        ledger: Ledger,
        settings: SinkSettings,
        hub: Hub = pushing,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger = ledger
        self._settings = settings
        self._hub = hub
        self._clock = clock
        self._stand: dict[str, str] = {}
        self._pauses: dict[str, _Pause] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """A step every `poll_s` seconds until `stopping`. What fails is logged and tried again at a later step."""
        pushing.quietly()
        while not stopping.is_set():
            try:
                await asyncio.to_thread(self.step)
            except QrelayError as error:
                log.warning("cannot look at what is to be published", extra={"error": str(error)})
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._settings.publish.poll_s)

    def details(self) -> dict[str, str]:
        """How each collection stands, for GetInfo and `qrelay top`."""
        stand, pauses = dict(self._stand), dict(self._pauses)
        waits = {name: f"; waits {pause.hold}" for name, pause in pauses.items()}
        return {f"{DETAIL}{name}": text + waits.get(name, "") for name, text in sorted(stand.items())}

    def step(self) -> None:
        """Everything that is due now.

        Raises:
            BackendUnavailable: the ledger cannot be read now.
        """
        with self._ledger.snapshot() as snapshot:
            names = [*filter(self._settings.publish.covers, outbox.collection_names(snapshot.connection))]
        for collection in names:
            at = standing_of(self._ledger, collection, self._settings.publish)
            if at is None:
                continue
            if due(at, self._settings.publish, self._ledger.now_us()) and not self._waits(collection):
                at = self._publish(collection) or at
            self._tell(collection, at)

    def _waits(self, collection: str) -> bool:
        pause = self._pauses.get(collection)
        return pause is not None and self._clock() < pause.ends

    def _publish(self, collection: str) -> Standing | None:
        """Where it stands then; None where that has not changed."""
        try:
            found = publish(self._ledger, collection, self._settings, self._hub)
        except Exception as error:  # whatever it is, it must not end the sink, whose commits go on
            self._failed(collection, error)
            return None
        self._pauses.pop(collection, None)
        telemetry.PUBLISH_HELD.labels(collection).set(0.0)
        if found is not None:
            _log(found, self._settings.publish.repo_of(collection))
        return standing_of(self._ledger, collection, self._settings.publish)

    def _failed(self, collection: str, error: Exception) -> None:
        before = self._pauses.get(collection)
        tries = before.tries + 1 if before else 0
        pause_s = min(_RETRY_S * 2.0 ** min(tries, 30), _RETRY_MAX_S)
        why = str(error) if isinstance(error, QrelayError) else repr(error)
        hold = Hold.lasting(pause_s, why, type(error).__name__, moment(self._ledger.now_us()))
        self._pauses[collection] = _Pause(
            before.hold.going_on(hold) if before else hold, tries, self._clock() + pause_s
        )
        telemetry.PUBLISH_HELD.labels(collection).set(hold.until.timestamp())
        log.warning("cannot publish", extra={"collection": collection, "error": why, "pause_s": pause_s})

    def _tell(self, collection: str, at: Standing) -> None:
        telemetry.PUBLISHED_CHANGE.labels(collection).set(at.published)
        self._stand[collection] = described(at, self._settings.publish, collection, self._ledger.now_us())


def standing_of(ledger: Ledger, collection: str, settings: PublishSettings) -> Standing | None:
    """How far a collection is published; None: the ledger holds no query of it."""
    with ledger.snapshot() as snapshot:
        return standing(snapshot.connection, collection, location_of(settings.repo_of(collection)))


def due(at: Standing, settings: PublishSettings, now_us: int) -> bool:
    """Whether there are new labels, and enough of them or old ones."""
    if at.change_no <= at.published:
        return False
    enough = settings.every_labels is not None and at.labels >= settings.every_labels
    return enough or ((by_us := _due_us(at, settings)) is not None and now_us >= by_us)


def _due_us(at: Standing, settings: PublishSettings) -> int | None:
    """When new labels are published however few they are."""
    if settings.every_hours is None:
        return None
    return (at.last.exported_us if at.last else at.began_us) + int(settings.every_hours * _HOUR_US)


def described(at: Standing, settings: PublishSettings, collection: str, now_us: int) -> str:
    """Where a collection stands, in one line."""
    since = f"changes up to {at.published} since {shown(moment(at.last.exported_us))}" if at.last else "nothing yet"
    told = f"{settings.repo_of(collection)}: {since}"
    if at.change_no <= at.published:
        return f"{told}; nothing new"
    if due(at, settings, now_us):
        return f"{told}; {at.labels:,} new labels; due now"
    next_ = []
    if settings.every_labels is not None:
        next_.append(f"after {settings.every_labels - at.labels:,} more")
    if (by_us := _due_us(at, settings)) is not None:
        next_.append(f"at {shown(moment(by_us))}")
    return f"{told}; {at.labels:,} new labels; next {' or '.join(next_)}"


def _log(found: Published, repo: str) -> None:
    telemetry.PUBLISHED_ROWS.labels(found.increment.collection).inc(found.rows)
    about = {"collection": found.increment.collection, "repo": repo, "rows": found.rows, "commit": found.sent}
    log.info("published", extra={**about, "from": found.increment.first, "to": found.increment.last})

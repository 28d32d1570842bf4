"""Takes requests to the endpoint in batches and brings the answers back: see the package for states and promises.

`tick` takes every batch of the account one state further, or as many as need no waiting, and makes new batches of
what waits. In a service a thread of its own ticks every `poll_s` seconds, from the first request on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import tempfile
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, Final

from qrelay.errors import (
    BackendUnavailable,
    EndpointPaused,
    EndpointRefuses,
    InputError,
    OnHold,
    QrelayError,
    RateLimited,
)
from qrelay.holds import utc_now
from qrelay.http.refusals import ParameterRefused
from qrelay.llm.batch import progress
from qrelay.llm.batch.api import ENDED, BatchApi, Remote
from qrelay.llm.batch.collecting import blame, collect
from qrelay.llm.batch.limits import BatchLimits, Budget, Unlimited
from qrelay.llm.batch.lines import write_lines
from qrelay.llm.batch.planning import Planner
from qrelay.llm.batch.records import Batch, BatchState, BatchStore
from qrelay.runtime import faults

log = logging.getLogger(__name__)

_FULL: Final = ("token_limit_exceeded", "rate_limit", "billing", "quota", "too_many_batches")
"""In the code of a validation that failed for the account's sake: later it may not."""
_CLOSE_S: Final = 5.0
_TWICE: Final = "created again, as no list showed it"
"""The note of a batch that a list which lags may show twice after all."""


class BatchDriver:
    """See the module. `tick` from one event loop at a time."""

    def __init__(
        self,
        account: str,
        store: BatchStore,
        api: Callable[[], BatchApi],
        limits: BatchLimits,
        *,
        budget: Budget | None = None,
        threaded: bool = True,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        """account: whose batches; api: makes its endpoint, once, in the event loop that ticks. threaded: whether
        `start` does anything; else whoever made it ticks."""
        self.limits = limits
        self.shown = ""
        """How the batches stand, for people; "" where there is nothing to say."""
        self._account, self._store, self._make_api, self._clock = account, store, api, clock
        self._budget = budget or Unlimited()
        self._planner = Planner(account, store, limits, self._budget, clock)
        self._api: BatchApi | None = None
        self._threaded = threaded
        self._troubles: dict[str, str] = {}
        self._looks: Counter[str] = Counter()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None
        self._stopping = False

    @property
    def blocked(self) -> OnHold | None:
        """Why what waits is not sent: the budget."""
        return self._planner.blocked

    @property
    def api(self) -> BatchApi:
        """The endpoint."""
        if self._api is None:
            self._api = self._make_api()
        return self._api

    def start(self) -> None:
        """Tick in a thread from now on."""
        if self._threaded and self._thread is None:
            self._thread = threading.Thread(target=lambda: asyncio.run(self._ticking()), name="batches", daemon=True)
            self._thread.start()

    async def _ticking(self) -> None:
        self._loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        while not self._stopping:
            await self.tick()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.limits.poll_s):
                    await self._wake.wait()
        if self._api:
            self._api.close()

    def close(self) -> None:
        """End the thread; a transfer that is under way is left undone, and is done again."""
        self._stopping = True
        if self._loop and self._wake and self._loop.is_running():
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._wake.set)
        if self._thread and self._thread is not threading.current_thread():
            self._thread.join(_CLOSE_S)

    async def tick(self, *, hurry: bool = False) -> bool:
        """One round. hurry: send what waits, however little and however short a time. Raises nothing: what keeps a
        batch from going on is in `shown` and the log. Whether this process drives."""
        try:
            with self._store.driving(self._account) as mine:
                if mine:
                    await self._advance(self._store.open(self._account))
                    await self._advance(self._planner.cut(hurry=hurry))
                self._show()
                return mine
        except QrelayError as error:
            self._trouble("store", error)
        except Exception as error:
            log.error("a round of batches raised %s", type(error).__name__, exc_info=error)
        return False

    async def _advance(self, batches: list[Batch]) -> None:
        for batch in batches:
            try:
                following: Batch | None = batch
                while following is not None:
                    following = await self._next(following)
                self._troubles.pop(batch.name, None)
            except QrelayError as error:
                self._trouble(batch.name, error)

    def _trouble(self, name: str, error: QrelayError) -> None:
        if self._troubles.get(name) != str(error):
            log.warning("batch %s cannot go on for now: %s", name, error)
        self._troubles[name] = str(error)

    async def _next(self, batch: Batch) -> Batch | None:
        """The batch in its next state, None where it has to wait, or is at its end."""
        if batch.state is BatchState.RUNNING:
            return await self._poll(batch)
        if batch.state is BatchState.CREATING:
            return await self._look(batch)
        if batch.cancel:
            self._end(batch, "it was cancelled before it was sent", tries=None)
            return None
        if batch.state is BatchState.PLANNED:
            return await self._upload(batch)
        return await self._create(batch)

    def _moved(self, batch: Batch, **changes: Any) -> Batch:
        self._store.update(batch.name, **changes)
        return replace(batch, **changes)

    async def _upload(self, batch: Batch) -> Batch | None:
        """planned -> uploaded. The file of a batch that may have been uploaded before is looked for."""
        new = batch.name in self._planner.new
        self._planner.new.discard(batch.name)
        known = "" if new else await self.api.find_file(batch.file_name)
        try:
            file_id = known or await self._send(batch)
        except InputError as error:
            self._planner.shrink(batch)
            self._end(batch, f"the endpoint refuses its file: {error}")
            return None
        faults.point("batch.uploaded")
        return self._moved(batch, state=BatchState.UPLOADED, file_id=file_id)

    async def _send(self, batch: Batch) -> str:
        with tempfile.TemporaryFile() as file:
            await asyncio.to_thread(write_lines, file, batch.target.path, self._store.lines(batch.name))
            file.seek(0)
            return await self.api.upload(batch.file_name, file)

    async def _create(self, batch: Batch) -> Batch | None:
        """uploaded or creating -> running. The intent is durable before the request is sent; only where the endpoint
        says that there is no batch is it taken back."""
        batch = self._moved(batch, state=BatchState.CREATING, tried_at=self._clock())
        faults.point("batch.creating")
        try:
            remote = await self.api.create(batch.name, batch.file_id, batch.target.path, self.limits.window)
        except (InputError, ParameterRefused) as error:
            self._end(batch, f"the endpoint refuses it: {error}")
            return None
        except (RateLimited, EndpointPaused, EndpointRefuses):
            self._moved(batch, state=BatchState.UPLOADED)
            raise
        faults.point("batch.created")
        return self._running(batch, remote)

    def _running(self, batch: Batch, remote: Remote) -> Batch:
        moved = self._moved(batch, state=BatchState.RUNNING, batch_id=remote.batch_id, status=remote.status)
        log.info("batch %s is sent as %s: %s", batch.name, remote.batch_id, progress.size(batch, self._budget.price))
        faults.point("batch.running")
        return moved

    async def _look(self, batch: Batch) -> Batch | None:
        """creating -> running, where the endpoint lists it; else created again once a list must show it."""
        found = await self.api.find_batches(batch.name, batch.file_id)
        if found:
            await self._cancel_twins(found[1:])
            return self._running(batch, found[0])
        if batch.tried_at and (self._clock() - batch.tried_at).total_seconds() < self.limits.look_again_s:
            return None
        if batch.cancel:
            self._end(batch, "it was cancelled before it was sent", tries=None)
            return None
        return await self._create(self._moved(batch, note=_TWICE))

    async def _cancel_twins(self, twins: list[Remote]) -> None:
        """The endpoint made a batch of one file more than once: end all but the first."""
        for each in twins:
            if each.status not in ENDED:
                log.error("the endpoint holds %s as %s once more: cancelling that", each.name, each.batch_id)
                await self.api.cancel(each.batch_id)

    async def _poll(self, batch: Batch) -> Batch | None:
        if batch.cancel and batch.status not in (*ENDED, "cancelling"):
            await self.api.cancel(batch.batch_id)
        remote = await self.api.retrieve(batch.batch_id)
        if remote is None:
            others = await self.api.find_batches(batch.name, batch.file_id)
            remote = next((each for each in others if each.batch_id == batch.batch_id), None)
        if remote is None:
            self._end(batch, f"the endpoint has no batch {batch.batch_id} any more", tries=None)
            return None
        if batch.note == _TWICE:
            found = await self.api.find_batches(batch.name, batch.file_id)
            await self._cancel_twins([each for each in found if each.batch_id != batch.batch_id])
        told = {"status": remote.status, "done": remote.done, "failed": remote.failed}
        if any(getattr(batch, name) != value for name, value in told.items()):
            batch = self._moved(batch, **told)
        if remote.status in ENDED:
            await self._collect(batch, remote)
        return None

    async def _collect(self, batch: Batch, remote: Remote) -> None:
        """running -> ended: the answers first."""
        most = self.limits.max_line_bytes
        found = await collect(batch, remote, self.api, self._store, most, self._clock)
        if lacking := found.lacks(remote):
            self._be_patient(batch, lacking)
        batch = replace(batch, tokens=found.tokens)
        if remote.status == "failed":
            self._invalid(batch, remote)
        elif remote.status == "cancelled" or found.lost(remote):
            self._end(batch, lacking or found.reason(remote.status), tries=None)
        else:
            self._end(batch, found.reason(remote.status))
        faults.point("batch.closed")
        if not self.limits.keep_files and not found.lost(remote):
            for each in filter(None, (batch.file_id, remote.output_id, remote.error_id)):
                await self.api.delete(each)

    def _be_patient(self, batch: Batch, lacking: str) -> None:
        """What was paid for is not asked again before it was looked for so many times.

        Raises:
            BackendUnavailable: not so many yet.
        """
        self._looks[batch.name] += 1
        if self._looks[batch.name] <= self.limits.max_tries and not batch.cancel:
            raise BackendUnavailable(lacking)

    def _invalid(self, batch: Batch, remote: Remote) -> None:
        """The endpoint refused the file: lines that it names are refused; the rest is tried again, smaller and later
        where the endpoint's queue is full."""
        codes = ", ".join(sorted({code for code, _, _ in remote.problems})) or "no reason given"
        full = any(word in codes for word in _FULL)
        blamed = [] if full else blame(batch, remote, self._store)
        if blamed:
            self._store.answer(batch.name, blamed, self._clock())
        if full:
            self._planner.full(batch)
        self._end(batch, f"the endpoint refused its file ({codes})", spent=not (full or blamed))

    def _end(self, batch: Batch, reason: str, *, tries: int | None = -1, spent: bool = True) -> None:
        most = self.limits.max_tries if tries == -1 else tries
        again, failed = self._store.end(batch, reason, self._clock(), tries=most, spent=spent)
        self._troubles.pop(batch.name, None)
        level = logging.WARNING if again or failed else logging.INFO
        log.log(level, "batch %s has ended: %s; %d requests wait again, %d failed; %s", batch.name, reason, again,
                failed, progress.size(batch, self._budget.price))  # fmt: skip

    def _show(self) -> None:
        piles, batches = self._store.piles(self._account), self._store.open(self._account)
        self._troubles = {each.name: self._troubles[each.name] for each in batches if each.name in self._troubles}
        trouble = str(self.blocked or next(iter(self._troubles.values()), ""))
        self.shown = progress.shown(batches, piles, self._clock(), self._budget.price, trouble)

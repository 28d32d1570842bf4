"""Asking the store instead of the endpoint: see the package."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import IO, Any, Final, TypeVar

from qrelay.errors import AnswersPending, BackendUnavailable, Oversized, QrelayError
from qrelay.holds import utc_now
from qrelay.http.bodies import as_json
from qrelay.http.connection import Came, Connection
from qrelay.identity import digest
from qrelay.llm.batch.driver import BatchDriver
from qrelay.llm.batch.records import BatchStore, Found, Request, RequestState, Target
from qrelay.runtime import faults

Answer = TypeVar("Answer")

_PATIENCE: Final = 0.25
"""An answer is looked for again after this share of the time for which it has been awaited,"""
_MOST_POLLS: Final = 20
"""and at the latest after so many times `poll_s`."""


class BatchConnection(Connection):
    """See the module. Use from one event loop at a time."""

    def __init__(
        self,
        account: str,
        store: BatchStore,
        driver: BatchDriver | None,
        *,
        clock: Callable[[], datetime] = utc_now,
        **connection: Any,
    ) -> None:
        """account: whose batches. driver: takes requests to the endpoint; None: nobody here does, so that what is not
        written down yet is unavailable instead of being asked. connection: what `Connection` takes."""
        super().__init__(**connection)
        self._account, self._store, self._driver, self._clock = account, store, driver, clock
        self._wanted: dict[str, tuple[Request, asyncio.Future[Found | None]]] = {}

    async def ask(
        self,
        path: str,
        request: dict[str, Any],
        read: Callable[[Any], Answer],
        *,
        advice: Callable[[str], str],
        may_refuse: frozenset[str] = frozenset(),
        method: str = "POST",
        absent: bool = False,
        into: IO[bytes] | None = None,
    ) -> Answer:
        """As `Connection.ask`, of POST requests.

        Raises:
            AnswersPending: it is written down, and not answered yet.
            BudgetExhausted: it is written down, and may not be sent for now.
            BackendUnavailable: its batches failed; or nothing here may order it.
        """
        if method != "POST" or absent or into:
            return await super().ask(
                path, request, read, advice=advice, may_refuse=may_refuse, method=method, absent=absent, into=into
            )
        found = await self._found(self._written(path, request))
        if found is None or found.state in (RequestState.WAITING, RequestState.SENT):
            raise self._pending(found)
        if found.state is RequestState.FAILED:
            raise BackendUnavailable(f"the request failed with its batch: {found.reason}")
        faults.point("batch.read")
        came = Came(found.status, as_json(found.answer, None))
        return self.understood(came, request, read, advice, may_refuse)

    def _written(self, path: str, request: Mapping[str, Any]) -> Request:
        body = json.dumps(request, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")
        most = self._driver.limits.max_bytes if self._driver else len(body)
        if len(body) > most:
            raise Oversized(f"the request has {len(body)} bytes and fits no batch ({most}): shorten the passages")
        target = Target(self._account, path, str(request.get("model") or ""))
        return Request(digest(self._account, path, body), target, body)

    async def _found(self, request: Request) -> Found | None:
        """The request as it stands; what is not written down yet is, unless nobody here may. Requests of the same
        moment go to the store together."""
        if request.key not in self._wanted:
            loop = asyncio.get_running_loop()
            if not self._wanted:
                loop.call_soon(lambda: asyncio.ensure_future(self._look()))
            self._wanted[request.key] = request, loop.create_future()
        return await asyncio.shield(self._wanted[request.key][1])

    async def _look(self) -> None:
        wanted, self._wanted = self._wanted, {}
        if self._driver:
            self._driver.start()
        try:
            found = await asyncio.to_thread(self._find, [request for request, _ in wanted.values()])
        except Exception as error:
            for _, future in wanted.values():
                future.set_exception(error)
                future.exception()  # whoever waits gets it; nobody may be left
            return
        for key, (_, future) in wanted.items():
            future.set_result(found.get(key))

    def _find(self, requests: list[Request]) -> dict[str, Found]:
        keys, now = [each.key for each in requests], self._clock()
        wait_s = self._driver.limits.retry_failed_s if self._driver else 0.0
        found = self._store.find(keys, now - timedelta(seconds=wait_s) if self._driver else _LONG_AGO)
        new = [each for each in requests if each.key not in found]
        if new and self._driver:
            self._store.add(new, now)
            faults.point("batch.asked")
            found |= {each.key: Found(RequestState.WAITING, now) for each in new}
        return found

    def _pending(self, found: Found | None) -> QrelayError:
        if found is None:
            return BackendUnavailable(
                "backend openai-batch answers by batches, and this is not ordered: run `qrelay judge submit`, or let "
                "the judge's service ask"
            )
        if self._driver is None:
            return AnswersPending("waits for its batch: `qrelay judge collect`", retry_after_s=_ELSEWHERE_S)
        if found.state is RequestState.WAITING and (blocked := self._driver.blocked):
            return blocked
        awaited, poll_s = (self._clock() - found.since).total_seconds(), self._driver.limits.poll_s
        again_s = min(max(poll_s, _PATIENCE * awaited), _MOST_POLLS * poll_s)
        shown = self._driver.shown or "it will be sent with the next one"
        return AnswersPending(f"waits for its batch: {shown}", retry_after_s=again_s)

    @property
    def notes(self) -> dict[str, str]:
        """The endpoint's, and how the batches stand."""
        found = dict(super().notes)
        if self._driver and (shown := self._driver.shown):
            found["batches"] = shown
        return found

    def settled(self, error: QrelayError) -> QrelayError:
        """An answer without a reason is that request's own: where nothing was answered, none was stored."""
        return error

    def close(self) -> None:
        """End the driver, the connections and the store."""
        if self._driver:
            self._driver.close()
        self._store.close()
        super().close()


_ELSEWHERE_S: Final = 60.0
_LONG_AGO: Final = datetime(1970, 1, 1, tzinfo=UTC)

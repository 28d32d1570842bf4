"""How often a call is tried, and how long an answer is waited for.

Every call of the client may be repeated: what it asks for or stores has an identity. So it is tried again where a
service does not answer or has no room, after a pause that grows and varies. Attempts count only while nothing
advances: an answer begins them anew, and a service that prepares itself (loading a model, say) is waited for while
its preparation advances.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import grpc.aio

from qrelay.client.places import Places
from qrelay.errors import BackendTimeout, BackendUnavailable, QrelayError, TransientError
from qrelay.runtime.client import from_rpc_error, told_s
from qrelay.runtime.telemetry import trace_context

T = TypeVar("T")
TIMEOUT_S: Final = 120.0
ATTEMPTS: Final = 8
_FIRST_S: Final = 0.2
_LONGEST_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Patience:
    """timeout_s: seconds without any answer to what was asked. attempts: tries in a row without an answer."""

    places: Places
    timeout_s: float = TIMEOUT_S
    attempts: int = ATTEMPTS

    async def ask(self, service: str, method: str, request: Any) -> Any:
        """The answer of a unary call, asked once; again only where the service says when it may be, within
        `timeout_s` in all. Raises QrelayError."""
        left_s = self.timeout_s
        while True:
            address, stub = self.places.stub(service)
            try:
                return await getattr(stub, method)(request, timeout=self.timeout_s, metadata=trace_context())
            except grpc.aio.AioRpcError as error:
                found = self.error(service, address, error)
                rest_s = told_s(found)
                if rest_s is None or rest_s > left_s:
                    raise found from error
            left_s -= rest_s
            await _rest(rest_s)

    async def tried(self, service: str, work: Callable[[], Awaitable[T]]) -> T:
        """What `work` answers, tried again where that may help. Raises QrelayError."""
        failures = 0
        while True:
            try:
                return await work()
            except BackendTimeout:
                raise  # asking again would only double the deadline
            except TransientError as error:
                failures = await self.pause(service, error, failures)

    async def pause(self, service: str, error: TransientError, failures: int) -> int:
        """After an attempt failed, `failures` having done so before it: wait until the next one; how many have failed
        now. Raises the error where no attempt is left, or the service never ran here."""
        if not self.places.met(service):
            raise error
        if doing := await self.places.preparing(service):
            what, idle_s = doing
            if idle_s > self.timeout_s:
                raise BackendUnavailable(f"{what}: nothing advances for {idle_s:.0f} s: look at its log") from error
            failures = -1
        elif failures + 1 >= self.attempts:
            raise error
        pause_s, rest_s = _pause_s(max(failures, 0), error.retry_after_s), told_s(error) or 0.0
        if rest_s > self.timeout_s:
            raise error
        await _rest(max(pause_s, rest_s))
        return failures + 1

    def late(self, service: str, address: str) -> BackendTimeout:
        """The error of a service that does not answer within `timeout_s`."""
        return BackendTimeout(
            f"the {service} at {address} answered nothing within {self.timeout_s:g} s: give a higher timeout_s where"
            " it is slow, or less at once; `qrelay top` shows whether it works"
        )

    def error(self, service: str, address: str, error: grpc.aio.AioRpcError) -> QrelayError:
        """A failed call's error."""
        found = from_rpc_error(address, error)
        return self.late(service, address) if type(found) is BackendTimeout else found


async def _rest(seconds: float) -> None:
    await asyncio.sleep(seconds)


def _pause_s(failures: int, asked_s: float | None) -> float:
    """Seconds until the next attempt: doubled each time, half of it by chance, so that many clients do not come back
    together; at least what the service asked for, within reason."""
    longest = min(_FIRST_S * 2**failures, _LONGEST_S)
    return max(random.uniform(longest / 2, longest), min(asked_s or 0.0, _LONGEST_S))

"""Whether a process that makes itself ready makes progress, for its callers.

No number of seconds decides that: the caller waits while there are signs of life. These are a step that advances
(the service's GetInfo says which), processor time and memory, of the process and of its children.
"""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from http.client import HTTPException
from typing import Final

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from qrelay.config import PLAIN, Transport
from qrelay.errors import BackendTimeout, ConfigError, QrelayError
from qrelay.progress import Progress, tell
from qrelay.rundir import Endpoint
from qrelay.runtime.client import get_info
from qrelay.security import tls
from qrelay.v1 import service_info_pb2

LOOK_S: Final = 0.5
"""Seconds between two looks."""
STILL_LOOKS: Final = 1200
"""Looks in a row without a sign of life after which waiting ends."""
_ASK_S: Final = 1.0
_BUSY_CPU_S: Final = 0.2
_BUSY_SHARE: Final = 0.05
"""Processor time since the last sign of life that is one: so many seconds and such a share of the time. Being looked
at costs a process a little, too."""
_GROWN_BYTES: Final = 4 * 1024**2


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process and its children use: processor seconds so far, resident bytes now."""

    cpu_s: float = 0.0
    resident_bytes: int = 0


def usage(pid: int) -> Usage:
    """Of the process and its children; none of what is gone."""
    cpu_s, resident = 0.0, 0
    try:
        process = psutil.Process(pid)
        family = [process, *process.children(recursive=True)]
    except psutil.Error:
        return Usage()
    for each in family:
        try:
            times = each.cpu_times()
            cpu_s, resident = cpu_s + times.user + times.system, resident + each.memory_info().rss
        except psutil.Error:
            continue  # it ended meanwhile
    return Usage(cpu_s, resident)


class Pulse:
    """Signs of life of one process."""

    def __init__(self, used: Callable[[int], Usage] = usage, clock: Callable[[], float] = time.monotonic) -> None:
        self._used, self._clock = used, clock
        self._since = clock()
        self._last: Usage | None = None
        self._said: object = None
        self.still = 0
        """Looks in a row that saw no sign."""

    @property
    def still_s(self) -> float:
        """Seconds since the last sign."""
        return self._clock() - self._since

    def look(self, pid: int, said: object = None) -> None:
        """Look once. said: what the process says of itself; when it differs from last time, that is a sign."""
        used = self._used(pid)
        if self._last is not None and said == self._said and not self._moved(self._last, used):
            self.still += 1
            return
        self.still, self._since, self._last, self._said = 0, self._clock(), used, said

    def _moved(self, before: Usage, now: Usage) -> bool:
        cpu_s = now.cpu_s - before.cpu_s
        busy = cpu_s >= _BUSY_CPU_S and cpu_s >= _BUSY_SHARE * self.still_s
        return busy or abs(now.resident_bytes - before.resident_bytes) >= _GROWN_BYTES


class Watch:
    """One service's process on its way to being ready. What it does is told to this context's listener."""

    def __init__(self, service: str, transport: Transport = PLAIN) -> None:
        self.service, self._transport = service, transport
        self.ready = False
        self.doing = Progress(f"{service}: starting")
        self.pulse = Pulse()

    def look(self, pid: int, endpoint: Endpoint | None) -> None:
        """Look once, unless it is ready. endpoint: what was announced for the service, by whatever process."""
        if self.ready:
            return
        ours = endpoint if endpoint and endpoint.pid == pid else None
        if ours and is_ready(ours, self._transport):
            self.ready = True
            self.end()
            return
        self._does(_asked(self.service, ours.grpc, self._transport) if ours and not ours.http else None)
        self.pulse.look(pid, self.doing)

    def end(self) -> None:
        """Nobody looks any more: its step is over for the listener."""
        tell(replace(self.doing, finished=True))

    def __str__(self) -> str:
        """What it does and since when nothing moved: "judge: loading (no sign of life for 40 s)"."""
        return f"{self.doing} (no sign of life for {self.pulse.still_s:,.0f} s)"

    def _does(self, doing: Progress | None) -> None:
        if doing and doing.name != self.doing.name:
            self.end()
        self.doing = doing or self.doing
        tell(self.doing)


def refuse_stillness(watches: Iterable[Watch], *, hint: str, looks: int = STILL_LOOKS) -> None:
    """End a wait that leads nowhere. One of several may wait for another, so all have to be still.

    Raises:
        BackendTimeout: `looks` looks in a row saw no sign of life of any that is not ready; `hint` says what to do.
    """
    waiting = [watch for watch in watches if not watch.ready]
    if waiting and all(watch.pulse.still >= looks for watch in waiting):
        stuck = "\n  ".join(str(watch) for watch in waiting)
        raise BackendTimeout(f"nothing moves, at {looks} looks in a row:\n  {stuck}\n{hint}")


def is_ready(endpoint: Endpoint, transport: Transport = PLAIN) -> bool:
    """Whether the service's gRPC health says SERVING, or the console answers over HTTP."""
    if endpoint.http:
        try:
            return answers(endpoint.grpc, _ASK_S, transport)
        except ConfigError:  # it wants certificates that these settings do not name
            return False
    with tls.channel(endpoint.grpc, transport) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=_ASK_S)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def answers(url: str, timeout_s: float, transport: Transport = PLAIN) -> bool:
    """Whether the console at http://host:port, or https://, answers. Raises ConfigError: without a certificate."""
    try:
        fetched(f"{url}/health", timeout_s, transport)
    except (OSError, HTTPException):
        return False
    return True


def fetched(url: str, timeout_s: float, transport: Transport = PLAIN) -> bytes:
    """What answers at a URL of an installation. Raises OSError, HTTPException: nothing does."""
    context = tls.http_context(url, transport)
    with urllib.request.urlopen(url, timeout=timeout_s, context=context) as answer:  # noqa: S310  its own address
        body: bytes = answer.read()
    return body


def metrics_of(address: str, timeout_s: float, transport: Transport = PLAIN) -> str:
    """The metrics of a service at host:port, in Prometheus' text format. Raises as `fetched`."""
    scheme = "https" if transport.tls.enabled else "http"
    return fetched(f"{scheme}://{address}/metrics", timeout_s, transport).decode()


def _asked(service: str, address: str, transport: Transport) -> Progress | None:
    """What the service says that it does; None: nothing, or it is too busy to answer."""
    try:
        info = get_info(service, address, _ASK_S, transport)
    except QrelayError:
        return None
    return preparing(info)


def preparing(info: service_info_pb2.ServiceInfo) -> Progress | None:
    """The long step that a service is at; None where there is none."""
    if not info.HasField("preparation"):
        return None
    at = info.preparation
    return Progress(f"{info.service}: {at.step}", at.done, at.total, at.unit)

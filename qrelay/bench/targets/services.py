"""The four services, called over gRPC, as targets.

A request carries `items` items. Several connections are used in turn: one HTTP/2 connection is one flow-control
window and one thread of the server's transport, and would be measured instead of the service. There are no retries:
a benchmark that tries again hides what it should count.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from qrelay.bench.data import Source
from qrelay.bench.load import Answer
from qrelay.config import PLAIN, Transport
from qrelay.errors import BackendUnavailable, InputError, Overloaded
from qrelay.runtime.client import OPTIONS, from_rpc_error, signed
from qrelay.security.tls import aio_channel
from qrelay.v1 import (
    judge_pb2,
    judge_pb2_grpc,
    reranker_pb2,
    reranker_pb2_grpc,
    retriever_pb2,
    retriever_pb2_grpc,
    sink_pb2,
    sink_pb2_grpc,
)
from qrelay.v1.service_info_pb2 import SERVICE_STATE_PREPARING

CHANNELS: Final = 2
DEADLINE_S: Final = 120.0
_NO_RETRIES: Final = '{"loadBalancingConfig": [{"round_robin": {}}]}'
_REFUSED: Final = Overloaded.reason


@dataclass(frozen=True, slots=True)
class Endpoint:
    """How one service is asked. `count` says of one result what it counts as: "" answered, else the reason."""

    kind: str
    """Of its items, as data.Generated and recorded.KINDS name them."""
    stub: Callable[[Any], Any]
    """From a channel, blocking or asynchronous."""
    method: str
    request: Callable[[Sequence[Any]], Any]
    info: Any
    count: Callable[[Any, Counter[str]], str]


def _plain(result: Any, _tally: Counter[str]) -> str:
    return result.error.reason if result.WhichOneof("result") == "error" else ""


def _judged(result: Any, tally: Counter[str]) -> str:
    """A set of which nothing could be judged was not answered."""
    if result.WhichOneof("result") == "error":
        return str(result.error.reason)
    missing = Counter(each.missing.reason for each in result.judged_set.judgments if each.HasField("missing"))
    judgments = len(result.judged_set.judgments)
    tally.update(judgments=judgments, cached=sum(each.cached for each in result.judged_set.judgments),
                 missing=missing.total())  # fmt: skip
    return f"missing_{missing.most_common(1)[0][0]}" if judgments and missing.total() == judgments else ""


def _committed(result: Any, _tally: Counter[str]) -> str:
    """A duplicate cost less than a commit: it is not one."""
    if result.WhichOneof("result") == "error":
        return str(result.error.reason)
    return "" if result.status == sink_pb2.INGEST_STATUS_COMMITTED else "duplicate"


ENDPOINTS: Final[Mapping[str, Endpoint]] = {
    "retriever": Endpoint(
        "query", retriever_pb2_grpc.RetrieverServiceStub, "Retrieve",
        lambda items: retriever_pb2.RetrieveRequest(queries=items),
        retriever_pb2.RetrieverServiceGetInfoRequest(), _plain,
    ),
    "reranker": Endpoint(
        "retrieved", reranker_pb2_grpc.RerankerServiceStub, "Rerank",
        lambda items: reranker_pb2.RerankRequest(candidate_sets=items),
        reranker_pb2.RerankerServiceGetInfoRequest(), _plain,
    ),
    "judge": Endpoint(
        "reranked", judge_pb2_grpc.JudgeServiceStub, "Judge",
        lambda items: judge_pb2.JudgeRequest(candidate_sets=items),
        judge_pb2.JudgeServiceGetInfoRequest(), _judged,
    ),
    "sink": Endpoint(
        "judged", sink_pb2_grpc.SinkServiceStub, "Ingest",
        lambda items: sink_pb2.IngestRequest(judged_sets=items),
        sink_pb2.SinkServiceGetInfoRequest(), _committed,
    ),
}  # fmt: skip


@dataclass
class ServiceTarget:
    """One service at an address: load.Target. An async context manager, to be entered in the loop that sends."""

    name: str
    """retriever, reranker, judge or sink."""
    address: str
    source: Source
    items: int = 1
    """Items in one request."""
    channels: int = CHANNELS
    deadline_s: float = DEADLINE_S
    transport: Transport = PLAIN
    tally: Counter[str] = field(default_factory=Counter)
    """What the answers said beside: judgments, cached, missing."""
    errors: dict[str, str] = field(default_factory=dict)
    """The first text of each reason, for people."""
    building: list[float] = field(default_factory=lambda: [0.0, 0.0])
    """Seconds that this process took to make requests, and how many: latencies contain them."""

    async def __aenter__(self) -> Self:
        endpoint = ENDPOINTS[self.name]
        self._endpoint = endpoint
        self._open = [_channel(self.address, self.transport) for _ in range(self.channels)]
        self._stubs = itertools.cycle([signed(endpoint.stub(channel)) for channel in self._open])
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for channel in self._open:
            await channel.close()

    async def info(self) -> dict[str, Any]:
        """What the service says of itself: models and details.

        Raises:
            BackendUnavailable: nothing answers at the address.
            InputError: something else than this service does.
        """
        try:
            answer = (await next(self._stubs).GetInfo(self._endpoint.info, timeout=10.0, wait_for_ready=False)).info
        except grpc.aio.AioRpcError as error:
            raise _unusable(self.name, self.address, error) from error
        if answer.service != self.name:
            raise InputError(f"{self.address} is a {answer.service}, not a {self.name}: give the address of one")
        if answer.state == SERVICE_STATE_PREPARING:
            raise BackendUnavailable(f"the {self.name} at {self.address} is not ready: wait until it has loaded")
        return {"models": dict(answer.models), "details": dict(answer.details), "version": answer.version}

    async def send(self, number: int) -> Answer:
        """See load.Target. Request `number` holds items number * items and following."""
        call = getattr(next(self._stubs), self._endpoint.method)
        try:
            answer = await call(self._request(number), timeout=self.deadline_s)
        except grpc.aio.AioRpcError as error:
            return self._failure(error)
        return self._counted(answer.results)

    def _request(self, number: int) -> Any:
        began = time.perf_counter()
        first = number * self.items
        request = self._endpoint.request([self.source.item(first + i) for i in range(self.items)])
        self.building[0] += time.perf_counter() - began
        self.building[1] += 1
        return request

    def _counted(self, results: Sequence[Any]) -> Answer:
        ok, failed = 0, Counter[str]()
        for result in results:
            if reason := self._endpoint.count(result, self.tally):
                failed[reason] += 1
                self.errors.setdefault(reason, result.error.message or reason)
            else:
                ok += 1
        failed["unanswered"] += max(0, self.items - len(results))
        refused = failed.pop(_REFUSED, 0)
        return Answer(ok, {reason: count for reason, count in failed.items() if count}, refused)

    def _failure(self, error: grpc.aio.AioRpcError) -> Answer:
        ours = from_rpc_error(self.address, error)
        reason = ours.reason
        self.errors.setdefault(reason, str(ours))
        if reason == _REFUSED:
            return Answer(0, {}, self.items)
        return Answer(0, {reason: self.items})


def _unusable(name: str, address: str, error: grpc.aio.AioRpcError) -> Exception:
    if error.code() is grpc.StatusCode.UNIMPLEMENTED:
        return InputError(f"{address} is a gRPC server but no {name}: give the address of one")
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return BackendUnavailable(
            f"no {name} answers at {address} ({error.details()}): start it with `qrelay serve {name}`, give its "
            "gRPC address, or leave --address out to have one started here"
        )
    return from_rpc_error(address, error)


def _channel(address: str, transport: Transport) -> grpc.aio.Channel:
    """A connection of its own: channels of equal options would share one."""
    options = [pair for pair in OPTIONS if pair[0] != "grpc.service_config"]
    return aio_channel(
        address,
        transport,
        [*options, ("grpc.service_config", _NO_RETRIES), ("grpc.use_local_subchannel_pool", 1),
                 ("grpc.enable_retries", 0)],
    )  # fmt: skip

"""`feed --wait` ends, or says what it waits for."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from qrelay.cli.waiting import ATTEMPTS, QueuesStatus, SinkClient, Waiting, queues_status

from qrelay import wire
from qrelay.cli.serve import load_definition
from qrelay.config import NatsSettings
from qrelay.errors import BackendUnavailable, InputError
from qrelay.progress import Progress
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.server import GrpcServer
from qrelay.runtime.topology import Queue
from tests import samples

SILENT = BackendUnavailable("127.0.0.1:9 does not answer: connection refused")
FLOWING = QueuesStatus(12, "in flight: 12 for the judge (not running)")
Answer = Sequence[str] | BackendUnavailable


class Sink:
    """Answers in turn; the last answer for ever."""

    def __init__(self, *answers: Answer, prepares: int = 0) -> None:
        self._answers = list(answers)
        self._prepares = prepares
        self.asked = 0

    def states(self, _: Sequence[str]) -> Sequence[str]:
        self.asked += 1
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BackendUnavailable):
            raise answer
        return answer

    def preparing(self) -> Progress | None:
        self._prepares -= 1
        return Progress("sink: loading") if self._prepares >= 0 else None


def waiting(sink: Sink, look: Callable[[], QueuesStatus] = lambda: FLOWING) -> tuple[Waiting, list[str]]:
    said: list[str] = []
    return Waiting(sink.states, sink.preparing, look, said.append, sleep=lambda _: None), said


def test_a_wrong_sink_ends_by_attempts_and_says_what_is_safe_and_what_to_do() -> None:
    sink = Sink(SILENT)
    wait, said = waiting(sink)
    with pytest.raises(BackendUnavailable, match=r"(?s)127\.0\.0\.1:9.*is safe.*--sink.*same command again"):
        wait.until_ended(["a"])
    assert sink.asked == ATTEMPTS
    assert [line.split("(")[1].split(")")[0] for line in said] == [
        f"attempt {n} of {ATTEMPTS}" for n in range(1, ATTEMPTS)
    ]


def test_a_sink_that_restarts_within_the_attempts_is_no_error() -> None:
    silence: list[Answer] = [SILENT] * (ATTEMPTS - 1)
    wait, _ = waiting(Sink(*silence, ["pending"], *silence, ["committed"]))
    assert wait.until_ended(["a"]) == {"committed": 1, "dead": 0}


def test_a_sink_that_prepares_itself_is_waited_for_however_long() -> None:
    looks = ATTEMPTS * 5
    wait, said = waiting(Sink(*[SILENT] * looks, ["dead"], prepares=looks))
    assert wait.until_ended(["a"]) == {"committed": 0, "dead": 1}
    assert said == []


def test_while_nothing_ends_it_is_said_what_waits_where() -> None:
    pending: list[Answer] = [["pending"]] * 45
    wait, said = waiting(Sink(*pending, ["committed"]))
    wait.until_ended(["a", "a"])
    assert said == ["queries that have not ended: 1; in flight: 12 for the judge (not running)"] * 2


def test_when_nothing_is_on_its_way_nobody_waits_for_it() -> None:
    wait, said = waiting(Sink(["pending"]), lambda: QueuesStatus(0, "in flight: none"))
    with pytest.raises(BackendUnavailable, match=r"does not know how 1 of the queries ended.*reconcile"):
        wait.until_ended(["a"])
    assert len(said) == 3


def test_a_broker_that_does_not_answer_is_not_an_empty_one() -> None:
    looks = iter(
        [
            QueuesStatus(0, ""),
            QueuesStatus(0, ""),
            QueuesStatus(None, "not known"),
            QueuesStatus(0, ""),
            QueuesStatus(0, ""),
        ]
    )
    pending: list[Answer] = [["pending"]] * 105
    wait, said = waiting(Sink(*pending, ["committed"]), lambda: next(looks))
    assert wait.until_ended(["a"])["committed"] == 1
    assert len(said) == 5


@pytest.fixture
async def reranker() -> Any:
    """The address of a service that is no sink."""
    definition = load_definition("reranker")
    settings = definition.settings.model_validate({"grpc": {"bind": "127.0.0.1:0"}})
    server = GrpcServer(settings.grpc, definition.grpc_name)
    definition.add_servicer(server.raw, ServiceContext("reranker", settings, "r1"))
    yield await server.start()
    await server.drain(0)


async def test_another_service_than_the_sink_is_refused_before_feeding(reranker: str, tmp_path: Path) -> None:
    import asyncio

    with pytest.raises(InputError, match=r"is not a sink.*give --sink"):
        await asyncio.to_thread(SinkClient(reranker, tmp_path).info)


def test_no_sink_at_all_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="no sink runs from"):
        SinkClient(None, tmp_path).states("docs", ["a"], 0)
    with pytest.raises(BackendUnavailable, match="does not answer"):
        SinkClient("127.0.0.1:9", tmp_path).states("docs", ["a"], 0)
    assert SinkClient("127.0.0.1:9", tmp_path).preparing() is None


@pytest.fixture
def announced(tmp_path: Path) -> Iterator[Path]:
    """A data folder from which a judge runs that is not ready, and nothing else."""
    (tmp_path / "run").mkdir()
    judge = {"service": "judge", "pid": os.getpid(), "grpc": "127.0.0.1:9", "metrics": ""}
    (tmp_path / "run" / "judge.json").write_text(json.dumps(judge))
    yield tmp_path


def test_what_waits_is_counted_on_a_real_broker(nats_settings: NatsSettings, announced: Path) -> None:
    import asyncio

    async def publish() -> None:
        async with await JetStreamBroker.connect(nats_settings, name="test", timeout_s=10, owner=True) as broker:
            payload, headers = wire.encode(samples.query())
            await broker.publish(Queue.QUERIES.subject("docs"), payload, headers, "1")
            await broker.publish(Queue.RERANKED.subject("docs"), payload, headers, "2")

    asyncio.run(publish())
    assert queues_status(nats_settings, announced) == QueuesStatus(
        2, "in flight: 1 for the retriever (not running), 1 for the judge (not ready)"
    )

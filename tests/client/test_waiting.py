"""`feed --wait` ends, or says what it waits for."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from qrelay import wire
from qrelay.cli.feed import feed
from qrelay.cli.serve import load_definition
from qrelay.client.patience import Patience
from qrelay.client.places import Places
from qrelay.client.waiting import ATTEMPTS, Ended, QueuesStatus, Waiting, queues_status, states
from qrelay.config import NatsSettings
from qrelay.errors import BackendUnavailable, InputError
from qrelay.progress import Progress
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.jetstream import JetStreamBroker
from qrelay.runtime.server import GrpcServer
from qrelay.runtime.topology import Queue
from tests import samples

SILENT = BackendUnavailable("127.0.0.1:9 does not answer: connection refused")
AGAIN = "or give --sink the right address, and run the same command again"
FLOWING = QueuesStatus(12, "in flight: 12 for the judge (not running)")
Answer = Sequence[str] | BackendUnavailable


class Sink:
    """Answers in turn, after `seconds`; the last answer for ever."""

    def __init__(self, *answers: Answer, prepares: int = 0, seconds: float = 0.5) -> None:
        self._answers = list(answers)
        self._seconds = seconds
        self.now = 0.0
        self._prepares = prepares
        self.asked = 0

    async def states(self, _: Sequence[str]) -> Sequence[str]:
        self.asked += 1
        self.now += self._seconds
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, BackendUnavailable):
            raise answer
        return answer

    async def preparing(self) -> Progress | None:
        self._prepares -= 1
        return Progress("sink: loading") if self._prepares >= 0 else None


def waiting(sink: Sink, look: Callable[[], QueuesStatus] = lambda: FLOWING) -> tuple[Waiting, list[str]]:
    said: list[str] = []

    async def looked() -> QueuesStatus:
        return look()

    async def sleep(_: float) -> None:
        pass

    return Waiting(sink.states, sink.preparing, looked, said.append, AGAIN, sleep, lambda: sink.now), said


async def test_a_query_that_is_forgotten_meanwhile_has_ended() -> None:
    wait, _ = waiting(Sink(["forgotten", "pending"], ["committed"]))
    assert await wait.until_ended(["q1", "q2"]) == Ended(1, ())


async def test_a_wrong_sink_ends_by_attempts_and_says_what_is_safe_and_what_to_do() -> None:
    sink = Sink(SILENT)
    wait, said = waiting(sink)
    with pytest.raises(BackendUnavailable, match=r"(?s)127\.0\.0\.1:9.*is safe.*--sink.*same command again"):
        await wait.until_ended(["a"])
    assert sink.asked == ATTEMPTS
    assert [line.split("(")[1].split(")")[0] for line in said] == [
        f"attempt {n} of {ATTEMPTS}" for n in range(1, ATTEMPTS)
    ]


async def test_a_sink_that_restarts_within_the_attempts_is_no_error() -> None:
    silence: list[Answer] = [SILENT] * (ATTEMPTS - 1)
    wait, _ = waiting(Sink(*silence, ["pending"], *silence, ["committed"]))
    assert await wait.until_ended(["a"]) == Ended(1, ())


async def test_a_sink_that_prepares_itself_is_waited_for_however_long() -> None:
    looks = ATTEMPTS * 5
    wait, said = waiting(Sink(*[SILENT] * looks, ["dead"], prepares=looks))
    assert await wait.until_ended(["a"]) == Ended(0, ("a",))
    assert said == []


async def test_while_nothing_ends_it_is_said_what_waits_where() -> None:
    pending: list[Answer] = [["pending"]] * 45
    wait, said = waiting(Sink(*pending, ["committed"]))
    await wait.until_ended(["a", "a"])
    assert said == ["queries that have not ended: 1; in flight: 12 for the judge (not running)"] * 2


async def test_a_sink_that_commits_much_for_others_does_not_make_the_wait_impatient() -> None:
    pending: list[Answer] = [["pending"]] * 1_900
    wait, said = waiting(Sink(*pending, ["committed"], seconds=0.01), lambda: QueuesStatus(0, "in flight: none"))
    assert (await wait.until_ended(["a"])).committed == 1
    assert len(said) == 1


async def test_when_nothing_is_on_its_way_nobody_waits_for_it() -> None:
    wait, said = waiting(Sink(["pending"]), lambda: QueuesStatus(0, "in flight: none"))
    with pytest.raises(BackendUnavailable, match=r"does not know how 1 of the queries ended.*reconcile"):
        await wait.until_ended(["a"])
    assert len(said) == 3


async def test_a_broker_that_does_not_answer_is_not_an_empty_one() -> None:
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
    assert (await wait.until_ended(["a"])).committed == 1
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
    arguments = ["-", "--collection", "docs", "--wait", "--sink", reranker, "--nats", "nats://127.0.0.1:9"]
    command = partial(feed.main, [*arguments, "--data-dir", str(tmp_path)], standalone_mode=False)
    with pytest.raises(InputError, match=r"is not a sink.*give --sink"):
        await asyncio.to_thread(command)


async def test_no_sink_at_all_does_not_answer(tmp_path: Path) -> None:
    with pytest.raises(BackendUnavailable, match="no sink runs from"):
        await states(Patience(Places(tmp_path, {})), "docs", ["a"], 0)
    elsewhere = Places(tmp_path, {"sink": "127.0.0.1:9"})
    with pytest.raises(BackendUnavailable, match="does not answer"):
        await states(Patience(elsewhere), "docs", ["a"], 0)
    assert await elsewhere.preparing("sink") is None


@pytest.fixture
def announced(tmp_path: Path) -> Iterator[Path]:
    """A data folder from which a judge runs that is not ready, and nothing else."""
    (tmp_path / "run").mkdir()
    judge = {"service": "judge", "pid": os.getpid(), "grpc": "127.0.0.1:9", "metrics": ""}
    (tmp_path / "run" / "judge.json").write_text(json.dumps(judge))
    yield tmp_path


async def test_what_waits_is_counted_on_a_real_broker(nats_settings: NatsSettings, announced: Path) -> None:
    async with await JetStreamBroker.connect(nats_settings, name="test", owner=True) as broker:
        payload, headers = wire.encode(samples.query())
        await broker.publish(Queue.QUERIES.subject("docs"), payload, headers, "1")
        await broker.publish(Queue.RERANKED.subject("docs"), payload, headers, "2")
    assert await queues_status(nats_settings, announced) == QueuesStatus(
        2, "in flight: 1 for the retriever (not running), 1 for the judge (not ready)"
    )

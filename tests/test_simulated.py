"""Simulated service times: one server, first come, first served, of exactly the capacity that was asked for."""

from __future__ import annotations

import asyncio

import pytest

from qrelay.index.settings import RetrieverSettings
from qrelay.index.synthetic import SyntheticEngine
from qrelay.judging.engine_settings import FakeSettings
from qrelay.judging.engines import make_backend
from qrelay.judging.settings import JudgeSettings
from qrelay.llm.exchange import Prompt
from qrelay.llm.fake import FakeBackend
from qrelay.services.reranker.scorers import FakeScorer
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.simulated import ServiceTime
from tests import samples


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_items_take_their_time_one_after_another_whoever_brings_them() -> None:
    clock = Clock()
    server = ServiceTime(0.5, clock)
    assert [server.book(), server.book(2), server.book()] == [0.5, 1.5, 2.0]
    clock.now += 1.0
    assert server.book() == 1.5


def test_a_late_look_does_not_shorten_the_capacity() -> None:
    """A timer that fires 0.1 s late each time would cost a fifth of it, if each item began when it was noticed."""
    clock = Clock()
    server = ServiceTime(0.5, clock)
    first, _second = server.book(), server.book()
    clock.now += first + 0.1
    assert round(server.book(), 9) == round(1.5 - 0.6, 9)


def test_a_server_that_was_idle_begins_now_and_not_in_the_past() -> None:
    clock = Clock()
    server = ServiceTime(0.5, clock)
    server.book()
    clock.now += 60
    assert server.book() == 0.5


def test_without_a_service_time_nobody_waits() -> None:
    assert ServiceTime().book(1000) == 0.0


async def test_waiting_leaves_the_event_loop_free() -> None:
    server, order = ServiceTime(0.05), []

    async def customer(name: str) -> None:
        await server.pass_by()
        order.append(name)

    async def bystander() -> None:
        order.append("bystander")

    await asyncio.gather(customer("first"), customer("second"), bystander())
    assert order == ["bystander", "first", "second"]


async def test_every_double_takes_its_service_time_for_each_query() -> None:
    engine, scorer = SyntheticEngine(0.001), FakeScorer(0.001)
    judge = make_backend(JudgeSettings(backend="fake", fake=FakeSettings(service_time_s=0.001)), needs=frozenset())
    assert isinstance(judge, FakeBackend)
    engine.search(["one", "two", "three"], None, 5)
    scorer.score([samples.candidate_set(number) for number in range(2)])
    await judge.score([Prompt("rules", "query", "passage", ("0", "1"), query="q", passage="p")] * 5)
    busy = (engine.service_time.busy_s, scorer.service_time.busy_s, judge.service_time.busy_s)
    assert busy == pytest.approx((0.003, 0.002, 0.001)), "five passages of one query are one call of the judge"


def test_every_double_has_the_setting_and_it_is_off() -> None:
    assert FakeSettings().service_time_s == 0
    assert RerankerSettings().fake.service_time_s == 0
    assert RetrieverSettings().synthetic.service_time_s == 0

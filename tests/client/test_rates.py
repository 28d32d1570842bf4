"""A client that a service limits waits as it is told, and gets every answer."""

from __future__ import annotations

import pytest

from qrelay import AsyncClient
from qrelay.client import patience
from qrelay.config import AccessSettings
from qrelay.errors import RateExceeded
from qrelay.security import rates
from tests.client.judging import Judging, judge
from tests.samples import candidate_set


class World:
    """A server's clock, which goes on while the client rests. rested: seconds, each time."""

    def __init__(self) -> None:
        self.seconds = 1_000_000.0
        self.rested: list[float] = []

    async def rest(self, seconds: float) -> None:
        """Takes no time here."""
        self.rested.append(seconds)
        self.seconds += seconds


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World()
    monkeypatch.setattr(rates, "now", lambda: found.seconds)
    monkeypatch.setattr(patience, "_rest", found.rest)
    return found


@pytest.mark.parametrize("rate", ["3/minute", "1/second", "5/minute; 1000/hour"])
async def test_a_client_that_may_ask_so_often_gets_all_of_its_answers_in_order(world: World, rate: str) -> None:
    with judge(Judging(), AccessSettings(rates={"*": rate})) as address:
        async with AsyncClient(judge=address, attempts=2) as client:
            found = await client.judge([candidate_set(number) for number in range(60)]).list()
    assert [each.candidate_set.query.query_id for each in found] == [f"q{n}" for n in range(60)]
    assert world.rested or rate == "1/second", "messages of a stream wait for their turn at the server"


async def test_a_client_that_would_wait_for_longer_than_its_timeout_says_when_it_may_ask(world: World) -> None:
    with judge(Judging(), AccessSettings(rates={"*": "1/hour"})) as address:
        async with AsyncClient(judge=address, timeout_s=100) as client:
            await client.judge(candidate_set(0))
            with pytest.raises(RateExceeded, match="ask again in 3600 s"):
                await client.judge(candidate_set(1))
    assert not world.rested

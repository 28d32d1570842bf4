"""Commands that ask an engine: every answer is paid for once, whatever ends the command."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import (
    BackendUnavailable,
    BudgetExhausted,
    ConfigError,
    EndpointRefuses,
    MalformedInput,
    QrelayError,
    TransientError,
)
from qrelay.judging.asking import ATTEMPTS, GIVE_UP, Asker, side_by_side
from qrelay.judging.budget import Budget
from qrelay.judging.budget_settings import BudgetSettings
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.judge import utc_now
from qrelay.llm.base import Weights
from qrelay.llm.exchange import Chat, Prompt, Reply, TokenLogprobs
from qrelay.llm.fake import FakeBackend
from qrelay.types import Missing


async def no_wait(seconds: float) -> None:
    pass


def prompts(count: int) -> list[Prompt]:
    return [Prompt("judge", "", f"text {n}", ("NO", "YES"), "sorted list", f"a list {n}") for n in range(count)]


CHAT = Chat((("user", "Lists can be sorted. How?"),), 20)


class Away(FakeBackend):
    """Answers the first `good` questions, then nothing."""

    def __init__(self, good: int, error: QrelayError | None = None) -> None:
        super().__init__()
        self.good, self.error = good, error or BackendUnavailable("the engine is away")

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        answers = await super().score(prompts)
        left = max(0, self.good - (self.asked - len(prompts)))
        return [*answers[:left], *[self.error] * len(answers[left:])]


async def test_what_was_answered_is_not_asked_again(tmp_path: Path) -> None:
    journal = tmp_path / "out.journal.jsonl"
    with Asker(FakeBackend(), journal) as asker:
        first = await asker.score(prompts(20)), await asker.generate([CHAT])
        assert asker.asked == 21
    backend = FakeBackend()
    with Asker(backend, journal) as asker:
        assert (await asker.score(prompts(20)), await asker.generate([CHAT])) == first
        await asker.score(prompts(21))
    assert backend.asked == 1


async def test_equal_questions_are_asked_once(tmp_path: Path) -> None:
    backend = FakeBackend()
    with Asker(backend, tmp_path / "j") as asker:
        one, other = await asker.score(prompts(1) * 2)
    assert one == other and backend.asked == 1


@pytest.mark.parametrize("ask", ["score", "generate"])
async def test_questions_count_in_the_budget_which_ends_them_and_answers_are_kept(tmp_path: Path, ask: str) -> None:
    chats = [Chat((("user", f"Lists can be sorted: {n}. How?"),), 20) for n in range(64)]
    questions: Any = prompts(64) if ask == "score" else chats
    store, backend = SqlCache(str(tmp_path / "cache.sqlite")), FakeBackend()
    day = utc_now().date().isoformat()
    with Asker(backend, tmp_path / "j", budget=Budget(BudgetSettings(tokens_per_day=1), store)) as asker:
        with pytest.raises(BudgetExhausted, match="the same command continues"):
            await getattr(asker, ask)(questions)
    assert 0 < backend.asked < 64, "what was begun is finished, and nothing after it is asked"
    assert store.spent(day) > 0
    with Asker(backend, tmp_path / "j", budget=Budget(BudgetSettings(tokens_per_day=10**9), store)) as asker:
        answers = await getattr(asker, ask)(questions)
    assert backend.asked == 64
    assert store.spent(day) == sum(each.prompt_tokens for each in answers)
    store.close()


@pytest.mark.parametrize(
    "changed", [replace(prompts(1)[0], evidence="text 0."), replace(prompts(1)[0], labels=("A", "B"))]
)
async def test_another_question_is_not_answered_from_the_journal(tmp_path: Path, changed: Prompt) -> None:
    backend = FakeBackend()
    with Asker(backend, tmp_path / "j") as asker:
        await asker.score(prompts(1))
        await asker.score([changed])
    assert backend.asked == 2


async def test_another_model_is_not_answered_from_the_journal(tmp_path: Path) -> None:
    with Asker(FakeBackend(), tmp_path / "j") as asker:
        await asker.score(prompts(1))
    other = FakeBackend()
    other.weights = Weights("fake-judge", "2", "none")
    with Asker(other, tmp_path / "j") as asker:
        await asker.score(prompts(1))
    assert other.asked == 1


async def test_a_failure_that_may_pass_is_tried_again_and_not_remembered(tmp_path: Path) -> None:
    backend = FakeBackend(failure_rate=1.0)
    with Asker(backend, tmp_path / "j", wait=no_wait) as asker:
        answers = await asker.score(prompts(3))
    assert all(isinstance(each, TokenLogprobs) for each in answers) and backend.asked == 6


async def test_a_failure_for_good_is_missing_with_its_reason(tmp_path: Path) -> None:
    with Asker(Away(1), tmp_path / "j", wait=no_wait) as asker:
        good, bad = await asker.score(prompts(2))
    assert isinstance(good, TokenLogprobs) and isinstance(bad, Missing) and bad.reason == "unavailable"
    with Asker(FakeBackend(), tmp_path / "j") as asker:
        assert (await asker.score(prompts(2)))[0] == good and asker.asked == 1


async def test_an_engine_that_is_away_ends_the_command_and_costs_nothing_twice(tmp_path: Path) -> None:
    backend = Away(5)
    with Asker(backend, tmp_path / "j", wait=no_wait) as asker:
        with pytest.raises(TransientError, match="run the same command again"):
            await asker.score(prompts(100))
    assert backend.asked <= 16 + 2 * 16 and GIVE_UP <= 11 and ATTEMPTS == 3
    good = FakeBackend()
    with Asker(good, tmp_path / "j") as asker:
        await asker.score(prompts(100))
    assert good.asked == 95


async def test_an_endpoint_that_refuses_the_key_ends_the_command_at_once(tmp_path: Path) -> None:
    backend = Away(0, EndpointRefuses("401", retry_after_s=60))
    with Asker(backend, tmp_path / "j", wait=no_wait) as asker:
        with pytest.raises(TransientError, match="401"):
            await asker.score(prompts(1))
    assert backend.asked == 1


async def test_a_torn_last_line_is_asked_again(tmp_path: Path) -> None:
    journal = tmp_path / "j"
    with Asker(FakeBackend(), journal) as asker:
        first = await asker.score(prompts(2))
    journal.write_bytes(journal.read_bytes()[:-9])
    with Asker(FakeBackend(), journal) as asker:
        assert await asker.score(prompts(2)) == first and asker.asked == 1
    assert len(journal.read_text().splitlines()) == 2


@pytest.mark.parametrize("line", ["nonsense", "[]", json.dumps({"key": "k", "answer": {"tokens": 3}}), "\xff"])
def test_another_file_is_no_journal(tmp_path: Path, line: str) -> None:
    (tmp_path / "j").write_text(line + "\n", "latin1")
    with pytest.raises(MalformedInput, match="j:1 is no line"):
        Asker(FakeBackend(), tmp_path / "j")


def test_two_commands_do_not_write_one_journal(tmp_path: Path) -> None:
    with Asker(FakeBackend(), tmp_path / "j"):
        with pytest.raises(ConfigError, match="another command writes"):
            Asker(FakeBackend(), tmp_path / "j")


async def test_work_side_by_side_keeps_its_order_and_raises_its_first_error() -> None:
    done: list[float] = []

    async def work(item: int) -> int:
        if item < 0:
            raise BackendUnavailable("away")
        return item * 2

    assert await side_by_side(range(20), work, done.append) == list(range(0, 40, 2)) and len(done) == 20
    with pytest.raises(BackendUnavailable):
        await side_by_side([1, -1, 2], work, done.append)


async def test_replies_come_back_as_they_were(tmp_path: Path) -> None:
    with Asker(FakeBackend(), tmp_path / "j") as asker:
        (said,) = await asker.generate([CHAT])
    with Asker(FakeBackend(), tmp_path / "j") as asker:
        (again,) = await asker.generate([CHAT])
    assert isinstance(said, Reply) and said == again

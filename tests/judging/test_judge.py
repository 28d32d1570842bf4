"""The core: one judgment a sampled passage, equal pairs once, failures missing and never cached."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from qrelay.errors import BackendUnavailable, InvalidQuery, Oversized, QrelayError, SetupError
from qrelay.judging.cache import NoCache
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.failures import transient_missing
from qrelay.llm.exchange import Prompt, TokenLogprobs
from qrelay.llm.fake import FakeBackend
from qrelay.types import Graded, JudgedSet, Judgment, Missing
from tests.judging.samples import (
    COOKING,
    COPYTREE,
    LOCK,
    NOW,
    candidate_set,
    judge_one,
    make_judge,
    outcomes,
    reasons,
)


class ScriptedBackend(FakeBackend):
    """The double, but the first calls fail as told, and calls can be held back."""

    def __init__(self, *failures: Exception) -> None:
        super().__init__()
        self._failures = list(failures)
        self.gate = asyncio.Event()
        self.gate.set()

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        await self.gate.wait()
        if self._failures:
            raise self._failures.pop(0)
        return await super().score(prompts)


async def test_sampled_passages_are_judged_in_candidate_order() -> None:
    judged = await judge_one(make_judge(), candidate_set(COOKING, COPYTREE, LOCK, sampled=[0, 2]))
    assert [each.passage_id for each in judged.judgments] == ["d#0", "d#2"]
    assert all(isinstance(each, Graded) for each in outcomes(judged))
    assert {each.judged_at for each in judged.judgments} == {NOW}


async def test_a_set_without_a_sample_is_judged_whole() -> None:
    judged = await judge_one(make_judge(), candidate_set(COOKING, COPYTREE, LOCK))
    assert len(judged.judgments) == 3


async def test_a_judgment_carries_its_judges_full_identity_and_key() -> None:
    judge = make_judge(scale="1-4")
    judged = await judge_one(judge, candidate_set(COPYTREE))
    (judgment,) = judged.judgments
    assert judgment.judge == judge.identity
    assert (judgment.judge.strategy, judgment.judge.scale) == ("graded", "1-4")
    assert judgment.judge.model == "fake-judge"
    assert len(judgment.judgment_key) == len(judgment.judge.prompt_hash) == 64
    assert judgment.raw_reply
    assert judgment.prompt_tokens > 0
    assert not judgment.cached


async def test_two_judges_never_share_a_label(tmp_path: Path) -> None:
    backend = FakeBackend()
    for number, options in enumerate([{"strategy": "binary"}, {"scale": "0-3"}, {"scale": "1-4"}], 1):
        await judge_one(make_judge(backend, tmp_path / "c.sqlite", **options), candidate_set(COPYTREE))  # type: ignore[arg-type]
        assert backend.asked == number


async def test_a_second_run_asks_nothing_and_says_the_same(tmp_path: Path) -> None:
    backend, path = FakeBackend(), tmp_path / "c.sqlite"
    first = await judge_one(make_judge(backend, path), candidate_set(COPYTREE, LOCK))
    again = await judge_one(make_judge(backend, path), candidate_set(COPYTREE, LOCK))
    assert backend.asked == 2
    assert [each.prompt_tokens for each in again.judgments] == [0, 0]
    expected = [replace(each, cached=True, prompt_tokens=0) for each in first.judgments]
    assert list(again.judgments) == expected


async def test_another_text_title_or_query_is_judged_anew(tmp_path: Path) -> None:
    backend = FakeBackend()
    judge = make_judge(backend, tmp_path / "c.sqlite")
    base = candidate_set(COPYTREE)
    passage = base.candidates[0].passage
    titled = replace(base, candidates=(replace(base.candidates[0], passage=replace(passage, title="shutil")),))
    for each in (base, titled, candidate_set(COPYTREE + "!"), candidate_set(COPYTREE, query="another?")):
        await judge_one(judge, each)
    assert backend.asked == 4


async def test_equal_pairs_in_one_call_are_measured_once_and_paid_once() -> None:
    backend = FakeBackend()
    judge = make_judge(backend)
    one, two = await judge.judge([candidate_set(COPYTREE, LOCK, COPYTREE), candidate_set(LOCK, COPYTREE)])
    assert isinstance(one, JudgedSet)
    assert isinstance(two, JudgedSet)
    assert backend.asked == 2
    assert one.judgments[0].outcome == one.judgments[2].outcome == two.judgments[1].outcome
    assert [each.cached for each in (*one.judgments, *two.judgments)] == [False, False, True, True, True]
    assert [each.prompt_tokens > 0 for each in one.judgments] == [True, True, False]
    assert [each.passage_id for each in one.judgments] == ["d#0", "d#1", "d#2"]


async def test_equal_pairs_of_calls_at_the_same_time_are_measured_once() -> None:
    backend = ScriptedBackend()
    backend.gate.clear()
    judge = make_judge(backend)
    calls = [asyncio.create_task(judge_one(judge, candidate_set(COPYTREE, LOCK))) for _ in range(5)]
    await asyncio.sleep(0.01)
    backend.gate.set()
    answers = await asyncio.gather(*calls)
    assert backend.asked == 2
    assert len({tuple(outcomes(answer)) for answer in answers}) == 1


async def test_a_call_that_is_cancelled_leaves_no_one_waiting_and_no_trace() -> None:
    backend = ScriptedBackend()
    backend.gate.clear()
    judge = make_judge(backend)
    owner = asyncio.create_task(judge_one(judge, candidate_set(COPYTREE)))
    await asyncio.sleep(0.01)
    waiter = asyncio.create_task(judge_one(judge, candidate_set(COPYTREE)))
    impatient = asyncio.create_task(judge_one(judge, candidate_set(COPYTREE)))
    await asyncio.sleep(0.01)
    impatient.cancel()
    await asyncio.sleep(0.01)
    owner.cancel()
    answer = await waiter
    assert reasons(answer) == ["unavailable"]
    assert transient_missing(answer)
    backend.gate.set()
    assert reasons(await judge_one(judge, candidate_set(COPYTREE))) == ["graded"]


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (BackendUnavailable("down"), "unavailable"),
        (Oversized("long"), "too_long"),
        (SetupError("key"), "error"),
        (RuntimeError("a bug"), "error"),
    ],
)
async def test_a_failure_is_missing_is_not_cached_and_heals(tmp_path: Path, failure: Exception, reason: str) -> None:
    judge = make_judge(ScriptedBackend(failure), tmp_path / "c.sqlite")
    judged = await judge_one(judge, candidate_set(COPYTREE, LOCK))
    assert reasons(judged) == [reason, reason]
    assert transient_missing(judged) == (reason != "too_long")
    assert SqlCache(str(tmp_path / "c.sqlite")).stats().labels == 0
    assert reasons(await judge_one(judge, candidate_set(COPYTREE, LOCK))) == ["graded", "graded"]


async def test_a_retry_pays_only_for_what_failed(tmp_path: Path) -> None:
    backend = FakeBackend(failure_rate=0.5)
    judge = make_judge(backend, tmp_path / "c.sqlite")
    texts = [f"{COPYTREE} {n}" for n in range(40)]
    first = reasons(await judge_one(judge, candidate_set(*texts)))
    failed = first.count("unavailable")
    assert 0 < failed < 40
    backend.asked = 0
    assert reasons(await judge_one(judge, candidate_set(*texts))) == ["graded"] * 40
    assert backend.asked == failed


async def test_passages_without_substance_are_filtered_and_never_a_grade() -> None:
    judged = await judge_one(make_judge(), candidate_set("", " \n ", "ab", LOCK))
    assert reasons(judged) == ["filtered", "filtered", "filtered", "graded"]
    assert not transient_missing(judged)
    assert isinstance(judged.judgments[0].outcome, Missing)


async def test_a_query_without_text_is_an_error_and_its_neighbours_are_judged() -> None:
    bad, good = await make_judge().judge([candidate_set(LOCK, query="  "), candidate_set(LOCK)])
    assert isinstance(bad, InvalidQuery)
    assert isinstance(good, JudgedSet)


async def test_no_sets_and_a_set_without_candidates() -> None:
    judge = make_judge()
    assert await judge.judge([]) == []
    assert (await judge_one(judge, candidate_set())).judgments == ()


class ReadOnlyCache(NoCache):
    """A cache on a full disk."""

    def put_many(self, judgments: Sequence[Judgment]) -> None:
        raise BackendUnavailable("disk full")


async def test_labels_survive_a_cache_that_cannot_be_written() -> None:
    judged = await judge_one(make_judge(cache=ReadOnlyCache()), candidate_set(LOCK))
    assert reasons(judged) == ["graded"]


async def test_batches_and_singles_give_the_same_labels() -> None:
    sets = [candidate_set(COPYTREE, LOCK, f"{COOKING} {n}", query=f"how to copy {n}") for n in range(8)]
    together = await make_judge().judge(sets)
    alone = [await judge_one(make_judge(), each) for each in sets]
    assert together == alone


async def test_the_log_holds_no_passage(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    await judge_one(make_judge(ScriptedBackend(RuntimeError("a bug"))), candidate_set(COPYTREE))
    await judge_one(make_judge(cache=ReadOnlyCache()), candidate_set(COPYTREE))
    assert len(caplog.records) >= 2
    assert "copytree" not in caplog.text


async def test_info_names_the_judge() -> None:
    info = make_judge().info()
    assert info.models == {"judge": "fake-judge@1:none"}
    assert {"strategy", "scale", "prompt_hash", "decoding"} <= info.details.keys()

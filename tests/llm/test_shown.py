"""A label never claims more than the endpoint showed: short lists, no lists, numbers that are no probabilities."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from qrelay.http.connection import Limits
from qrelay.http.pacing import Policy
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.judge import Judge
from qrelay.llm.base import Weights
from qrelay.llm.openai import OpenAIBackend
from qrelay.types import Graded
from tests.conftest import LONG_S
from tests.judging.samples import COOKING, COPYTREE, LOCK, candidate_set, judge_one, make_judge, outcomes, reasons
from tests.llm.endpoint import (
    GOOD,
    Answer,
    ScriptedEndpoint,
    answer,
    chosen_only,
    completion,
    finished,
    text_only,
    where,
)

FAST = Policy(concurrency=2, max_retries=1, retry_base_s=0.001, total_timeout_s=LONG_S, breaker_failures=99)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def judge_at(
    endpoint: ScriptedEndpoint, cache: Path | None = None, *, strategy: str = "graded", **options: object
) -> Judge:
    made = OpenAIBackend(
        endpoint.url, Weights("m", "r", "q"), policy=FAST, limits=Limits(LONG_S), **options  # type: ignore[arg-type]
    )  # fmt: skip
    return make_judge(made, cache, strategy=strategy)


def impossible(*logprobs: object) -> Answer:
    """A completion that lists the grades with these numbers."""
    top = [{"token": str(grade), "logprob": value} for grade, value in enumerate(logprobs)]
    choice = {"message": {"content": "0"}, "logprobs": {"content": [{"token": "0", "top_logprobs": top}]}}
    return answer(200, json.dumps({"choices": [choice]}).encode())


@pytest.mark.parametrize(
    "logprobs",
    [(0.0, 0.0, 0.0, 0.0), (-0.3, -0.3), (0.5, -3.0), (math.nan, -0.1), (None, -0.1), (math.inf, -1.0),
     ("-0.1", -3.0), (True, -3.0), (-0.1, -2.0, math.nan)],
)  # fmt: skip
async def test_what_is_no_distribution_is_missing_never_cached_and_heals(
    endpoint: ScriptedEndpoint, tmp_path: Path, logprobs: tuple[object, ...]
) -> None:
    endpoint.default = impossible(*logprobs)
    judge = judge_at(endpoint, tmp_path / "c.sqlite")
    judged = await judge_one(judge, candidate_set(COPYTREE))
    assert reasons(judged) == ["unavailable"], outcomes(judged)
    assert SqlCache(str(tmp_path / "c.sqlite")).stats().labels == 0
    endpoint.default = GOOD
    assert reasons(await judge_one(judge, candidate_set(COPYTREE))) == ["graded"]


@pytest.mark.parametrize("logprobs", [(-0.02, -4.0, -math.inf), (math.log(0.7), math.log(0.306)), (0.0005, -9999.0)])
async def test_rounding_and_tokens_that_cannot_come_are_no_fault(
    endpoint: ScriptedEndpoint, logprobs: tuple[float, ...]
) -> None:
    endpoint.default = impossible(*logprobs)
    assert reasons(await judge_one(judge_at(endpoint), candidate_set(COPYTREE))) == ["graded"]


async def label(judge: Judge) -> tuple[Graded, str]:
    """The outcome and the decoding of one label."""
    (judgment,) = (await judge_one(judge, candidate_set(COPYTREE))).judgments
    assert isinstance(judgment.outcome, Graded), judgment.outcome
    return judgment.outcome, judgment.judge.decoding


@pytest.mark.parametrize("listed", [[], None])
async def test_a_reply_without_a_list_counts_as_text_with_the_probability_that_its_token_shows(
    endpoint: ScriptedEndpoint, listed: object
) -> None:
    endpoint.default = chosen_only("2", 0.7, listed)
    outcome, decoding = await label(judge_at(endpoint))
    assert "no-logprobs" in decoding
    assert outcome.probabilities[2] == outcome.p_relevant == pytest.approx(0.7)
    assert outcome.entropy > 0.5


@pytest.mark.parametrize("listed", [[], None])
async def test_without_text_a_reply_without_a_list_is_missing(endpoint: ScriptedEndpoint, listed: object) -> None:
    endpoint.default = chosen_only("2", 0.7, listed)
    judged = await judge_one(judge_at(endpoint, accept_text=False), candidate_set(COPYTREE))
    assert reasons(judged) == ["unparseable"]
    assert "no log-probabilities" in str(asdict(judged))


async def test_a_reply_whose_logprobs_key_lacks_the_list_is_text(endpoint: ScriptedEndpoint) -> None:
    entry = {"token": "2", "logprob": math.log(0.7)}
    endpoint.default = answer(200, {"choices": [{"message": {"content": "2"}, "logprobs": {"content": [entry]}}]})
    outcome, decoding = await label(judge_at(endpoint))
    assert "no-logprobs" in decoding
    assert outcome.p_relevant == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("strategy", "shown", "p_relevant"),
    [
        ("graded", {"2": 0.7}, 0.7),
        ("graded", {"0": 0.6}, 0.4),
        ("graded", {"2": 0.5, "1": 0.3}, 0.5),
        ("graded", {"2": 0.5, "3": 0.3}, 0.8),
        ("graded", {"0": 0.5, "1": 0.25, "2": 0.05}, 0.1 / 0.85),
        ("graded", {"3": 0.7, "2": 0.2, "1": 0.05, "0": 0.01}, 0.9 / 0.96),
        ("binary", {"YES": 0.7}, 0.7),
        ("binary", {" no": 0.9}, 0.1),
    ],
)
async def test_what_a_short_list_leaves_out_is_not_given_to_what_it_lists(
    endpoint: ScriptedEndpoint, strategy: str, shown: dict[str, float], p_relevant: float
) -> None:
    endpoint.default = completion(shown)
    outcome, decoding = await label(judge_at(endpoint, strategy=strategy))
    assert "top_logprobs=20" in decoding
    assert math.fsum(outcome.probabilities) == pytest.approx(1.0)
    assert outcome.p_relevant == pytest.approx(p_relevant)


async def test_a_long_list_is_read_as_it_always_was(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = completion({"2": 0.7, **{f"word{n}": 0.01 for n in range(19)}})
    outcome, _ = await label(judge_at(endpoint))
    assert outcome.probabilities == (0.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    "entry", [{"token": "\u01602", "bytes": [32, 50]}, {"token": "token_id:17", "bytes": [50]}, {"token": "\u2581 2"}]
)
async def test_a_token_is_read_in_whatever_spelling_it_comes(
    endpoint: ScriptedEndpoint, entry: dict[str, object]
) -> None:
    top = [{**entry, "logprob": math.log(0.9)}, {"token": "1", "bytes": None, "logprob": math.log(0.1)}]
    choice = {"message": {"content": "2"}, "logprobs": {"content": [{**top[0], "top_logprobs": top}]}}
    endpoint.default = answer(200, {"choices": [choice]})
    outcome, _ = await label(judge_at(endpoint))
    assert outcome.grade == 2


async def test_the_tokens_of_a_thought_beside_the_answer_are_no_grade(endpoint: ScriptedEndpoint) -> None:
    entry = {"token": "3", "logprob": -0.01, "top_logprobs": [{"token": "3", "logprob": -0.01}]}
    message = {"content": "1", "reasoning_content": "3 or so, I think"}
    endpoint.default = answer(200, {"choices": [{"message": message, "logprobs": {"content": [entry]}}]})
    outcome, decoding = await label(judge_at(endpoint))
    assert (outcome.grade, "no-logprobs" in decoding) == (1, True)


async def test_a_filtered_reply_is_missing_alone_and_takes_no_log_probabilities_from_the_others(
    endpoint: ScriptedEndpoint,
) -> None:
    endpoint.default = where("threading", finished("content_filter"), GOOD)
    judge = judge_at(endpoint)
    for _ in range(12):
        judged = await judge_one(judge, candidate_set(COPYTREE, LOCK, COOKING))
        assert reasons(judged) == ["graded", "filtered", "graded"]
        assert "content_filter" in str(judged.judgments[1].outcome)
        assert all("top_logprobs=20" in each.judge.decoding for each in judged.judgments)
    assert judge.info().details.keys().isdisjoint({"engine: text only"})


@pytest.mark.parametrize("empty", [finished("stop"), finished(None, ""), finished("length")])
async def test_a_reply_without_an_answer_is_missing_alone(endpoint: ScriptedEndpoint, empty: Answer) -> None:
    endpoint.default = where("threading", empty, GOOD)
    judge = judge_at(endpoint)
    for _ in range(12):
        assert reasons(await judge_one(judge, candidate_set(COPYTREE, LOCK))) == ["graded", "unparseable"]
    assert "engine: text only" not in judge.info().details


async def test_log_probabilities_are_given_up_after_many_answers_without_said_and_tried_again_later(
    endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    endpoint.default = text_only("2")
    judge = judge_at(endpoint, clock=clock)
    assert reasons(await judge_one(judge, candidate_set(COPYTREE))) == ["graded"]
    assert "engine: text only" not in judge.info().details
    await judge_one(judge, candidate_set(*(f"{LOCK} {n}" for n in range(20))))
    assert "answers in a row came without log-probabilities" in judge.info().details["engine: text only"]
    assert caplog.text.count("labels are read from text, since ") == 1
    asked = len(endpoint.requests)
    await judge_one(judge, candidate_set(COOKING))
    assert [each.get("logprobs") for each in endpoint.requests[asked:]] == [None]
    clock.now += 3600.0
    endpoint.default = GOOD
    (judgment,) = (await judge_one(judge, candidate_set(COOKING))).judgments
    assert "top_logprobs=20" in judgment.judge.decoding
    assert "engine: text only" not in judge.info().details

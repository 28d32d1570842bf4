"""The backend `openai` against a real HTTP endpoint that misbehaves: missing with its reason, never a zero."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest

from services.judge.backends.base import Weights
from services.judge.backends.openai import OpenAIBackend
from services.judge.backends.pacing import Policy
from services.judge.cache import SqliteCache
from services.judge.judge import Judge, transient_missing
from tests.judge.endpoint import GOOD, Answer, ScriptedEndpoint, answer, completion, hang_up, text_only
from tests.judge.samples import COPYTREE, LOCK, candidate_set, judge_one, make_judge, outcomes, reasons

KEY = "sk-very-secret"
FAST = Policy(concurrency=2, max_retries=2, retry_base_s=0.01, total_timeout_s=5.0, breaker_failures=99)


def backend(url: str, policy: Policy = FAST, **options: object) -> OpenAIBackend:
    weights = Weights("judge-model", "rev", "q")
    return OpenAIBackend(url, weights, api_key=KEY, policy=policy, request_timeout_s=0.3, **options)  # type: ignore[arg-type]


def judge_at(url: str, cache: Path | None = None, **options: object) -> Judge:
    return make_judge(backend(url, **options), cache)  # type: ignore[arg-type]


POISON: dict[str, tuple[Answer | str, str]] = {
    "429": (answer(429, {"error": {"message": "slow down"}}), "rate_limited"),
    "500": (answer(500, {"error": "oops"}), "unavailable"),
    "503 page": (answer(503, b"<html>Service Unavailable</html>"), "unavailable"),
    "garbage": (answer(200, b"\x00\xffnot json"), "unavailable"),
    "another json": (answer(200, {"choices": []}), "unavailable"),
    "impossible": (completion({"3": 2.0}), "unavailable"),
    "hang up": (hang_up, "unavailable"),
    "silence": ("silence", "timeout"),
    "401": (answer(401, {"error": {"message": f"bad key {KEY}"}}), "error"),
    "404": (answer(404, {"error": {"message": "no such model"}}), "error"),
    "422": (answer(422, {"detail": "what?"}), "error"),
    "too long": (
        answer(400, {"error": {"code": "context_length_exceeded", "message": "maximum context length is 9"}}),
        "too_long",
    ),
    "no grade": (completion({"The": 0.9, "A": 0.05}), "unparseable"),
}


@pytest.mark.parametrize(("poison", "reason"), POISON.values(), ids=POISON.keys())
async def test_a_poisoned_endpoint_gives_missing_with_the_reason_and_heals(
    endpoint: ScriptedEndpoint, tmp_path: Path, poison: Answer | str, reason: str
) -> None:
    endpoint.default = endpoint.silence if isinstance(poison, str) else poison
    judge = judge_at(endpoint.url, tmp_path / "c.sqlite")
    judged = await judge_one(judge, candidate_set(COPYTREE, LOCK))
    assert reasons(judged) == [reason, reason], outcomes(judged)
    assert transient_missing(judged) == (reason in {"timeout", "unavailable", "rate_limited", "error"})
    assert SqliteCache(tmp_path / "c.sqlite").stats().labels == 0, "a failure must not be cached"
    assert KEY not in str(judged)
    endpoint.default = GOOD
    assert reasons(await judge_one(judge, candidate_set(COPYTREE, LOCK))) == ["graded", "graded"]
    judge.close()


@pytest.mark.parametrize(
    ("first", "requests"),
    [(answer(500, {}), 2), (hang_up, 2), (answer(200, b"{"), 2), (answer(401, {}), 1), (answer(400, {}), 1)],
    ids=["500", "hang up", "garbage", "401", "400"],
)
async def test_only_what_may_heal_is_retried(endpoint: ScriptedEndpoint, first: Answer, requests: int) -> None:
    endpoint.script(first)
    judged = await judge_one(judge_at(endpoint.url), candidate_set(COPYTREE))
    assert len(endpoint.requests) == requests
    assert reasons(judged) == ["graded" if requests == 2 else "error"]


async def test_retry_after_is_honoured(endpoint: ScriptedEndpoint) -> None:
    endpoint.script(answer(429, {}, {"Retry-After": "0.4"}))
    began = time.monotonic()
    judged = await judge_one(judge_at(endpoint.url), candidate_set(COPYTREE))
    assert reasons(judged) == ["graded"]
    assert time.monotonic() - began >= 0.4


async def test_a_used_up_window_holds_back_the_next_request(endpoint: ScriptedEndpoint) -> None:
    used_up = {"x-ratelimit-remaining-requests": "0", "x-ratelimit-reset-requests": "400ms"}
    endpoint.script(completion({"3": 0.9}, used_up))
    judge = judge_at(endpoint.url)
    await judge_one(judge, candidate_set(COPYTREE))
    began = time.monotonic()
    await judge_one(judge, candidate_set(LOCK))
    assert time.monotonic() - began >= 0.35


async def test_no_endpoint_at_all_is_unavailable() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    judged = await judge_one(judge_at(url), candidate_set(COPYTREE))
    assert reasons(judged) == ["unavailable"]
    assert "judge.endpoint.url" in str(judged)


async def test_a_silent_endpoint_costs_a_few_prompts_not_all(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = endpoint.silence
    policy = Policy(concurrency=2, max_retries=0, breaker_failures=2, breaker_s=30.0, total_timeout_s=5.0)
    judged = await judge_one(
        judge_at(endpoint.url, policy=policy), candidate_set(*(f"{LOCK} {n}" for n in range(30)))
    )
    assert reasons(judged) == ["timeout"] * 30
    assert len(endpoint.requests) <= 4


async def test_an_endpoint_without_logprobs_is_read_strictly_under_another_identity(
    endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    endpoint.default = text_only(" 2\n")
    judge = judge_at(endpoint.url, tmp_path / "c.sqlite")
    judged = await judge_one(judge, candidate_set(COPYTREE))
    (judgment,) = judged.judgments
    assert reasons(judged) == ["graded"]
    assert "no-logprobs" in judgment.judge.decoding
    assert judgment.judge != judge.identity
    asked = len(endpoint.requests)
    assert endpoint.requests[-1].keys().isdisjoint({"logprobs", "top_logprobs"})
    (again,) = (await judge_one(judge, candidate_set(COPYTREE))).judgments
    assert again.cached
    assert again.judgment_key == judgment.judgment_key
    assert len(endpoint.requests) == asked


@pytest.mark.parametrize("text", ["On a scale of 0 to 3, final score: 1", "<think>", "<think>3", "", "3 or 2"])
async def test_a_text_that_is_not_exactly_a_grade_is_missing(endpoint: ScriptedEndpoint, text: str) -> None:
    endpoint.default = text_only(text)
    assert reasons(await judge_one(judge_at(endpoint.url), candidate_set(COPYTREE))) == ["unparseable"]


async def test_an_endpoint_that_refuses_the_logprobs_parameter_is_asked_without(endpoint: ScriptedEndpoint) -> None:
    endpoint.script(answer(400, {"error": {"message": "logprobs is not supported"}}), text_only("3"))
    endpoint.default = text_only("3")
    assert reasons(await judge_one(judge_at(endpoint.url), candidate_set(COPYTREE))) == ["graded"]


async def test_text_replies_can_be_refused(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = text_only("3")
    judged = await judge_one(judge_at(endpoint.url, accept_text=False), candidate_set(COPYTREE))
    assert reasons(judged) == ["error"]
    assert "accept_text" in str(judged)


async def test_the_request_is_one_greedy_token_with_logprobs_and_the_key(endpoint: ScriptedEndpoint) -> None:
    extra = {"chat_template_kwargs": {"enable_thinking": False}}
    judge = judge_at(endpoint.url, extra_body=extra)
    await judge_one(judge, candidate_set(COPYTREE))
    (body,) = endpoint.requests
    assert (body["model"], body["max_tokens"], body["temperature"], body["logprobs"]) == ("judge-model", 1, 0, True)
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "enable_thinking" in judge.identity.decoding
    assert endpoint.headers[0]["Authorization"] == f"Bearer {KEY}"


async def test_neither_key_nor_passage_reaches_the_log(
    endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    endpoint.default = answer(400, {"error": {"message": f"cannot read {COPYTREE}", "type": "bad"}})
    judged = await judge_one(judge_at(endpoint.url), candidate_set(COPYTREE))
    assert KEY not in caplog.text
    assert "copytree" not in caplog.text
    assert "copytree" not in str(judged.judgments)

"""The backend `openai` against a real HTTP endpoint that misbehaves: missing with its reason, never a zero."""

from __future__ import annotations

import socket
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from qrelay.errors import BackendUnavailable, EndpointRefuses, MalformedInput
from qrelay.http.connection import Limits
from qrelay.http.pacing import Policy
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.failures import transient_missing
from qrelay.judging.judge import Judge
from qrelay.llm.base import Weights
from qrelay.llm.exchange import GENERATION, PROMPT_LOGPROBS, Chat, Continuation, Reply, TargetLogprobs
from qrelay.llm.openai import OpenAIBackend
from tests.conftest import LONG_S
from tests.judging.samples import COPYTREE, LOCK, candidate_set, judge_one, make_judge, outcomes, reasons
from tests.llm.endpoint import (
    GOOD,
    Answer,
    ScriptedEndpoint,
    answer,
    completion,
    echo,
    hang_up,
    named,
    padded,
    text_only,
)

KEY = "sk-very-secret"
FAST = Policy(concurrency=2, max_retries=2, retry_base_s=0.01, total_timeout_s=LONG_S, breaker_failures=99)
IMPATIENT_S = 0.3
"""For an endpoint that never answers; one that does may take its time."""


def backend(url: str, policy: Policy = FAST, request_timeout_s: float = LONG_S, **options: object) -> OpenAIBackend:
    weights = Weights("judge-model", "rev", "q")
    return OpenAIBackend(
        url,
        weights,
        api_key=KEY,
        policy=policy,
        limits=Limits(request_timeout_s, retry_refused_s=1e-9),
        **options,  # type: ignore[arg-type]
    )


def judge_at(url: str, cache: Path | None = None, **options: object) -> Judge:
    return make_judge(backend(url, **options), cache)  # type: ignore[arg-type]


POISON: dict[str, tuple[Answer | str, str]] = {
    "429": (answer(429, {"error": {"message": "slow down"}}), "rate_limited"),
    "500": (answer(500, {"error": "oops"}), "unavailable"),
    "503 page": (answer(503, b"<html>Service Unavailable</html>"), "unavailable"),
    "garbage": (answer(200, b"\x00\xffnot json"), "unavailable"),
    "another json": (answer(200, {"choices": []}), "unavailable"),
    "impossible": (completion({"3": 2.0}), "unavailable"),
    "too large": (padded(Limits().max_reply_bytes + 1), "unavailable"),
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
    silent = isinstance(poison, str)
    endpoint.default = endpoint.silence if isinstance(poison, str) else poison
    judge = judge_at(endpoint.url, tmp_path / "c.sqlite", request_timeout_s=IMPATIENT_S if silent else LONG_S)
    judged = await judge_one(judge, candidate_set(COPYTREE, LOCK))
    assert reasons(judged) == [reason, reason], outcomes(judged)
    assert transient_missing(judged) == (reason in {"timeout", "unavailable", "rate_limited", "error"})
    assert SqlCache(str(tmp_path / "c.sqlite")).stats().labels == 0, "a failure must not be cached"
    assert KEY not in str(asdict(judged))
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
    assert "judge.endpoint.url" in str(asdict(judged))


async def test_a_silent_endpoint_costs_a_few_prompts_not_all(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = endpoint.silence
    policy = Policy(concurrency=2, max_retries=0, breaker_failures=2, breaker_s=30.0, total_timeout_s=5.0)
    judged = await judge_one(
        judge_at(endpoint.url, policy=policy, request_timeout_s=IMPATIENT_S),
        candidate_set(*(f"{LOCK} {n}" for n in range(30))),
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
    assert reasons(judged) == ["unparseable"]
    assert "accept_text" in str(asdict(judged))


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
    assert "copytree" not in str(asdict(judged)["judgments"])


@pytest.mark.parametrize(
    "thinks",
    [
        completion({"<think>": 0.6, "3": 0.3, "2": 0.1}),
        answer(200, {"choices": [{"message": {"content": None, "reasoning_content": "3"}, "logprobs": {
            "content": [{"token": "3", "top_logprobs": [{"token": "3", "logprob": -0.01}]}]}}]}),
        text_only("<think>Is it a 3?"),
    ],
    ids=["first token", "reasoning parser", "unclosed text"],
)  # fmt: skip
async def test_a_thought_is_never_a_grade(endpoint: ScriptedEndpoint, thinks: Answer) -> None:
    endpoint.default = thinks
    assert reasons(await judge_one(judge_at(endpoint.url), candidate_set(COPYTREE))) == ["unparseable"]


@pytest.mark.parametrize(
    ("text", "reason"), [("<think>\n\n</think>\n\n2", "graded"), ("<think>hm</think> 2 or 3", "unparseable")]
)
async def test_in_text_a_closed_thought_counts_only_before_exactly_a_grade(
    endpoint: ScriptedEndpoint, text: str, reason: str
) -> None:
    endpoint.default = text_only(text)
    assert reasons(await judge_one(judge_at(endpoint.url), candidate_set(COPYTREE))) == [reason]


async def test_another_model_behind_the_endpoint_is_unavailable_and_not_cached(
    endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    judge = judge_at(endpoint.url, tmp_path / "c.sqlite")
    endpoint.default = named("first", {"3": 0.9})
    assert reasons(await judge_one(judge, candidate_set(COPYTREE))) == ["graded"]
    endpoint.default = named("second", {"0": 0.9})
    judged = await judge_one(judge, candidate_set(LOCK))
    assert reasons(judged) == ["unavailable"]
    assert "now answers as 'second', before as 'first'" in str(asdict(judged))
    assert SqlCache(str(tmp_path / "c.sqlite")).stats().labels == 1
    endpoint.default = named("first", {"0": 0.9})
    assert reasons(await judge_one(judge, candidate_set(LOCK))) == ["graded"]


async def test_another_build_of_the_same_model_is_logged_and_judged(
    endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.script(
        named("m", {"3": 0.9}, system_fingerprint="one"), named("m", {"3": 0.9}, system_fingerprint="two")
    )
    judge = judge_at(endpoint.url)
    for text in (COPYTREE, LOCK):
        assert reasons(await judge_one(judge, candidate_set(text))) == ["graded"]
    assert "another system_fingerprint: two" in caplog.text


async def test_without_chat_the_messages_are_completed_as_plain_text(endpoint: ScriptedEndpoint) -> None:
    top = {"choices": [{"text": "3", "logprobs": {"top_logprobs": [{" 3": -0.2, " 2": -2.0}]}}]}
    endpoint.default = answer(200, top)
    judge = judge_at(endpoint.url, chat=False)
    judged = await judge_one(judge, candidate_set(COPYTREE))
    assert reasons(judged) == ["graded"]
    (body,) = endpoint.requests
    assert endpoint.paths == ["/v1/completions"]
    assert COPYTREE in body["prompt"]
    assert "messages" not in body
    assert "chat=off" in judge.identity.decoding


async def test_a_reply_in_words_comes_without_its_thought(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = text_only("<think>The user asks.</think>\n\nParis.")
    (reply,) = await backend(endpoint.url).generate([Chat((("user", "Capital?"),), 32)])
    assert isinstance(reply, Reply)
    assert reply.text == "Paris."
    (body,) = endpoint.requests
    assert (body["max_tokens"], body["temperature"]) == (32, 0)
    assert body["messages"] == [{"role": "user", "content": "Capital?"}]
    assert "logprobs" not in body


async def test_a_targets_log_probabilities_are_the_last_of_the_echo(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = echo(["caf", "\ufffd", " is", "\n"], ["How", " so", "?"], [-0.5, -0.25, -2.0])
    asked = Continuation("caf\ufffd is\n", "How so?")
    reader = backend(endpoint.url, prompt_logprobs="echo")
    (found,) = await reader.loglikelihood([asked])
    assert isinstance(found, TargetLogprobs), found
    assert found.logprobs == (-0.5, -0.25, -2.0)
    assert found.prompt_tokens == 7
    assert (found.decoding,) == reader.decodings(PROMPT_LOGPROBS)
    (body,) = endpoint.requests
    assert endpoint.paths == ["/v1/completions"]
    assert (body["prompt"], body["echo"], body["logprobs"]) == ("caf\ufffd is\nHow so?", True, 1)


async def test_a_token_across_the_targets_begin_is_refused(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = echo(["a", "b c"], ["d"], [-0.5])
    (found,) = await backend(endpoint.url, prompt_logprobs="echo").loglikelihood([Continuation("ab", " cd")])
    assert isinstance(found, MalformedInput)


@pytest.mark.parametrize(
    "silent",
    [
        answer(200, {"choices": [{"text": "3", "logprobs": {"tokens": ["3"], "token_logprobs": [-0.1]}}]}),
        answer(200, {"choices": [{"text": "context 3 more", "logprobs": None}]}),
        answer(400, {"error": {"message": "echo with logprobs is not supported"}}),
    ],
    ids=["no echo", "no logprobs", "refused"],
)
async def test_an_endpoint_that_echoes_nothing_is_a_settings_error_never_a_number(
    endpoint: ScriptedEndpoint, silent: Answer
) -> None:
    endpoint.default = silent
    (found,) = await backend(endpoint.url, prompt_logprobs="echo").loglikelihood([Continuation("context", " 3")])
    assert isinstance(found, EndpointRefuses)
    assert "judge.endpoint.prompt_logprobs" in str(found)


async def test_log_probabilities_of_prompts_are_offered_only_where_they_are_declared(
    endpoint: ScriptedEndpoint,
) -> None:
    assert PROMPT_LOGPROBS not in backend(endpoint.url).capabilities
    assert backend(endpoint.url, prompt_logprobs="echo").capabilities >= {PROMPT_LOGPROBS, GENERATION}


async def test_every_kind_of_question_goes_through_the_same_retries(endpoint: ScriptedEndpoint) -> None:
    endpoint.default = answer(503, {})
    asked = backend(endpoint.url, prompt_logprobs="echo")
    failures = [
        *await asked.generate([Chat((("user", "?"),), 4)]),
        *await asked.loglikelihood([Continuation("a", "b")]),
    ]
    assert all(isinstance(each, BackendUnavailable) for each in failures)
    assert len(endpoint.requests) == 2 * (1 + FAST.max_retries)

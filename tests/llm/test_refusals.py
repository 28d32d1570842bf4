"""A refusal is classified in one place: one passage's, a parameter's, the account's, or one that time heals."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from qrelay.errors import BackendUnavailable, ContentFiltered, EndpointRefuses, Oversized, RateLimited
from qrelay.http.connection import Limits
from qrelay.http.pacing import Policy
from qrelay.http.refusals import ParameterRefused, Unexplained, classified, failure_of
from qrelay.judging.engine_settings import EndpointSettings
from qrelay.judging.failures import hold_of, transient_missing
from qrelay.judging.judge import Judge
from qrelay.judging.settings import JudgeSettings
from qrelay.llm.base import Weights
from qrelay.llm.exchange import GENERATION, TOKEN_LOGPROBS
from qrelay.llm.openai import NAMES, OpenAIBackend
from qrelay.types import Graded, JudgedSet, Missing
from tests.conftest import LONG_S
from tests.judging.samples import COPYTREE, LOCK, candidate_set, judge_one, make_judge, reasons
from tests.llm.endpoint import GOOD, Answer, ScriptedEndpoint, answer, text_only, where

REQUEST = {
    "model": "m",
    "messages": [],
    "temperature": 0,
    "max_tokens": 1,
    "logprobs": True,
    "top_logprobs": 20,
    "stop": ["x"],
    "seed": 7,
    "response_format": {"type": "text"},
}
FAST = Policy(concurrency=2, max_retries=1, retry_base_s=0.001, total_timeout_s=LONG_S, breaker_failures=99)


def kind(status: int, body: object) -> type[BaseException]:
    found = failure_of(status, body)
    assert found is not None
    return type(classified(*found, REQUEST, None, names=NAMES, secret="", retry_s=60.0))


def error(**fields: object) -> dict[str, object]:
    return {"error": fields}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, error(code="content_filter", message="filtered", param="prompt"), ContentFiltered),
        (400, error(code="BadRequest", innererror={"code": "ResponsibleAIPolicyViolation"}), ContentFiltered),
        (400, error(code="content_policy_violation"), ContentFiltered),
        (403, error(code=403, metadata={"reasons": ["violence"], "flagged_input": "…"}), ContentFiltered),
        (200, error(code="content_filter"), ContentFiltered),
        (200, {"choices": [{"error": {"code": "moderation_blocked"}}]}, ContentFiltered),
        (413, None, Oversized),
        (400, error(code="context_length_exceeded"), Oversized),
        (500, error(message="maximum context length is 9"), Oversized),
        (401, error(message="bad key"), EndpointRefuses),
        (402, None, EndpointRefuses),
        (403, "<html>", EndpointRefuses),
        (404, error(code="model_not_found"), EndpointRefuses),
        (400, error(code="model_not_found", param="model"), EndpointRefuses),
        (400, error(type="invalid_api_key"), EndpointRefuses),
        (429, error(code="insufficient_quota"), EndpointRefuses),
        (429, error(type="insufficient_quota", code=None), EndpointRefuses),
        (
            400,
            error(message="Your credit balance is too low to access the API.", type="bad_request"),
            EndpointRefuses,
        ),
        (
            400,
            error(message="API key not valid. Please pass a valid one.", status="INVALID_ARGUMENT"),
            EndpointRefuses,
        ),
        (400, error(code="Arrearage", message="Your account must be in good standing."), EndpointRefuses),
        (400, error(message=f"invalid input: {'passage ' * 40} your credit balance is low"), Unexplained),
        (422, {"detail": [{"input": "API key not valid"}]}, Unexplained),
        (301, None, EndpointRefuses),
        (200, error(code=401, message="no"), EndpointRefuses),
        (429, error(message="slow down"), RateLimited),
        (429, [{"error": {"code": 429, "status": "RESOURCE_EXHAUSTED"}}], RateLimited),
        (200, error(code=429), RateLimited),
        *[(status, None, BackendUnavailable) for status in (408, 409, 425, 500, 502, 503, 504, 529)],
        (200, error(message="overloaded"), BackendUnavailable),
        (200, {"error": "overloaded"}, BackendUnavailable),
        (200, {"choices": [{"error": {"code": 502}}]}, BackendUnavailable),
        (400, error(type="invalid_request_error"), Unexplained),
        (422, {"detail": "what?"}, Unexplained),
        (418, None, Unexplained),
        (400, error(message="cannot read: stop the temperature seed at most here", type="bad"), Unexplained),
    ],
)
def test_each_refusal_has_one_class(status: int, body: object, expected: type[BaseException]) -> None:
    assert kind(status, body) is expected


@pytest.mark.parametrize(
    "body", [{"choices": []}, {"choices": [{"message": {}}]}, {"error": None, "choices": []}, None]
)
def test_an_answer_is_no_refusal(body: object) -> None:
    assert failure_of(200, body) is None


PYDANTIC = [{"type": "less_than_equal", "loc": ["body", "top_logprobs"], "msg": "…", "ctx": {"le": 8}}]


@pytest.mark.parametrize(
    ("status", "body", "parameter", "limit"),
    [
        (400, error(param="max_tokens", code="unsupported_parameter"), "max_tokens", None),
        (400, error(param="temperature", message="only the default (1) is supported"), "temperature", 1),
        (400, error(param="top_logprobs", message="top_logprobs must be at most 5"), "top_logprobs", 5),
        (400, error(message="Invalid value for 'top_logprobs': must be between 0 and 5, not 20"), "top_logprobs", 5),
        (400, error(message="logprobs is not supported with this model"), "logprobs", None),
        (422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "logprobs"]}]}, "logprobs", None),
        (422, {"object": "error", "message": {"detail": PYDANTIC}}, "top_logprobs", 8),
        (400, error(message="Unsupported parameter: 'stop' is not supported with this model."), "stop", None),
        (400, error(message="Unrecognized request argument supplied: seed:"), "seed", None),
        (400, error(param="response_format.type", code="invalid_value"), "response_format", None),
        (200, error(type="invalid_request_error", param="max_tokens"), "max_tokens", None),
        (400, error(message="max_tokens is unsupported: use max_completion_tokens"), "max_tokens", None),
    ],
)
def test_a_refused_parameter_is_named_with_the_limit_that_the_refusal_states(
    status: int, body: object, parameter: str, limit: int | None
) -> None:
    found = failure_of(status, body)
    assert found is not None
    refused = classified(*found, REQUEST, None, names=NAMES, secret="", retry_s=60.0)
    assert isinstance(refused, ParameterRefused), refused
    assert refused.parameter == parameter
    assert parameter == "temperature" or refused.limit == limit


def judge_at(endpoint: ScriptedEndpoint, **options: Any) -> Judge:
    made = OpenAIBackend(
        endpoint.url, Weights("m", "r", "q"), policy=FAST, limits=Limits(LONG_S, retry_refused_s=1e-9), **options
    )
    return make_judge(made)


@pytest.mark.parametrize(
    ("refusal", "reason", "said"),
    [
        (answer(400, error(code="content_filter", param="prompt")), "filtered", "400 (content_filter, param prompt)"),
        (answer(413, {}), "too_long", "413"),
        (answer(400, error(type="invalid_request_error", code="odd")), "refused", "400 (odd, invalid_request_error)"),
        (answer(200, {"choices": [], "prompt_filter_results": [{}]}), "filtered", "no choice"),
        (answer(200, {"choices": []}), "refused", "no choice"),
        (answer(200, {"choices": [{"message": {"content": None, "refusal": "I cannot"}}]}), "filtered", "refused"),
    ],
)
async def test_a_passage_that_is_refused_for_good_is_asked_once_and_its_set_goes_on(
    endpoint: ScriptedEndpoint, refusal: Answer, reason: str, said: str
) -> None:
    endpoint.default = where("threading", refusal, GOOD)
    judged = await judge_one(judge_at(endpoint), candidate_set(LOCK, COPYTREE))
    assert reasons(judged) == [reason, "graded"]
    assert said in str(judged.judgments[0].outcome)
    assert not transient_missing(judged)
    assert hold_of(judged) is None
    assert sum("threading" in str(each) for each in endpoint.requests) == 1


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (answer(401, error(message="expired")), "api_key_env"),
        (answer(402, {}), "quota"),
        (answer(404, error(message="no such model")), "judge.model"),
        (answer(429, error(code="insufficient_quota")), "quota"),
        (answer(400, error(param="max_tokens", code="unsupported_parameter")), "max_completion_tokens"),
        (answer(400, error(param="temperature", code="unsupported_value")), "judge.endpoint.parameter_names"),
        (answer(400, error(type="invalid_request_error")), "refuses every request"),
    ],
)
async def test_a_refusal_of_the_account_or_the_settings_holds_the_set_and_says_why(
    endpoint: ScriptedEndpoint, refusal: Answer, said: str
) -> None:
    endpoint.default = refusal
    judged = await judge_one(judge_at(endpoint), candidate_set(LOCK, COPYTREE))
    held = hold_of(judged)
    assert isinstance(held, EndpointRefuses)
    assert said in str(held)


async def test_after_many_refusals_in_a_row_without_a_reason_it_is_no_passages_fault(
    endpoint: ScriptedEndpoint,
) -> None:
    judge = judge_at(endpoint)
    assert reasons(await judge_one(judge, candidate_set(COPYTREE))) == ["graded"]
    endpoint.default = answer(400, error(type="invalid_request_error"))
    judged = await judge_one(judge, candidate_set(*(f"{LOCK} {n}" for n in range(20))))
    assert isinstance(hold_of(judged), EndpointRefuses)


def renaming(endpoint: ScriptedEndpoint) -> Answer:
    """An endpoint of reasoning models: neither max_tokens nor a temperature of 0."""

    def send(handler: Any) -> None:
        asked = endpoint.requests[-1]
        for name in ("max_tokens", "temperature", "stop"):
            if name in asked:
                answer(400, error(param=name, code="unsupported_parameter"))(handler)
                return
        (GOOD if "logprobs" in asked else text_only("2"))(handler)

    return send


async def test_settings_rename_and_leave_out_parameters_under_an_identity_of_their_own(
    endpoint: ScriptedEndpoint,
) -> None:
    endpoint.default = renaming(endpoint)
    names: Mapping[str, str] = {"max_tokens": "max_completion_tokens", "temperature": ""}
    judge = judge_at(endpoint, parameter_names=names)
    judged = await judge_one(judge, candidate_set(COPYTREE))
    assert reasons(judged) == ["graded"]
    (body,) = endpoint.requests
    assert body["max_completion_tokens"] == 1
    assert body.keys().isdisjoint({"max_tokens", "temperature"})
    assert "temperature=not-sent;max_completion_tokens=1;" in judge.identity.decoding
    assert judge.identity != judge_at(endpoint).identity


async def test_a_parameter_that_is_left_out_may_have_another_value_in_extra_body(endpoint: ScriptedEndpoint) -> None:
    own = EndpointSettings(url=endpoint.url, parameter_names={"temperature": ""}, extra_body={"temperature": 1})
    JudgeSettings(backend="openai", model="m", endpoint=own)
    with pytest.raises(ValueError, match="extra_body may not set temperature"):
        JudgeSettings(backend="openai", model="m", endpoint=own.model_copy(update={"parameter_names": {}}))
    with pytest.raises(ValueError, match="parameter_names may not name seed"):
        JudgeSettings(backend="openai", model="m", endpoint=own.model_copy(update={"parameter_names": {"seed": ""}}))
    judge = judge_at(endpoint, parameter_names=own.parameter_names, extra_body=own.extra_body)
    await judge_one(judge, candidate_set(COPYTREE))
    assert endpoint.requests[0]["temperature"] == 1
    assert judge.identity.decoding.endswith("temperature=not-sent;max_tokens=1;top_logprobs=20;temperature=1")


def allowing(most: int, endpoint: ScriptedEndpoint) -> Answer:
    """An endpoint that lists so many alternatives at most."""

    def send(handler: Any) -> None:
        asked = endpoint.requests[-1].get("top_logprobs", 0)
        message = f"top_logprobs must be at most {most}"
        (answer(400, error(param="top_logprobs", message=message)) if asked > most else GOOD)(handler)

    return send


async def test_the_limit_that_a_refusal_names_is_taken_said_and_part_of_the_identity(
    endpoint: ScriptedEndpoint, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.default = allowing(5, endpoint)
    judge = judge_at(endpoint)
    judged = await judge_one(judge, candidate_set(COPYTREE))
    (judgment,) = judged.judgments
    assert isinstance(judgment.outcome, Graded)
    assert "top_logprobs=5" in judgment.judge.decoding
    assert "judge.endpoint.top_logprobs to 5" in caplog.text
    assert "5, the endpoint's limit" in judge.info().details["engine: top_logprobs"]
    configured = judge_at(endpoint, top_logprobs=5)
    (same,) = (await judge_one(configured, candidate_set(COPYTREE))).judgments
    assert same.judgment_key == judgment.judgment_key
    assert configured.identity == judgment.judge


async def test_labels_under_a_learned_limit_are_found_in_the_cache_again(
    endpoint: ScriptedEndpoint, tmp_path: Any
) -> None:
    endpoint.default = allowing(5, endpoint)
    made = OpenAIBackend(endpoint.url, Weights("m", "r", "q"), policy=FAST, limits=Limits(LONG_S))
    judge = make_judge(made, tmp_path / "c.sqlite")
    await judge_one(judge, candidate_set(COPYTREE))
    asked = len(endpoint.requests)
    (again,) = (await judge_one(judge, candidate_set(COPYTREE))).judgments
    assert again.cached
    assert len(endpoint.requests) == asked


@pytest.mark.parametrize(
    "refusal",
    [answer(422, {"detail": [{"type": "extra_forbidden", "loc": ["body", "logprobs"]}]}),
     answer(400, error(param="logprobs", code="unsupported_parameter"))],
)  # fmt: skip
async def test_where_the_parameter_logprobs_is_refused_text_is_read_and_that_is_said(
    endpoint: ScriptedEndpoint, refusal: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint.default = where('"logprobs"', refusal, text_only("2"))
    judge = judge_at(endpoint)
    judged = await judge_one(judge, candidate_set(COPYTREE, LOCK))
    assert reasons(judged) == ["graded", "graded"]
    assert all("no-logprobs" in each.judge.decoding for each in judged.judgments)
    assert caplog.text.count("labels are read from text, since ") == 1
    assert "refuses logprobs" in judge.info().details["engine: text only"]
    strict = await judge_one(judge_at(endpoint, accept_text=False), candidate_set(COPYTREE))
    assert isinstance(hold_of(strict), EndpointRefuses)


async def test_neither_a_passage_nor_the_key_is_shown_of_a_refusal(endpoint: ScriptedEndpoint) -> None:
    said = error(message=f"no: {COPYTREE}", code=COPYTREE, param=f"messages[0] {COPYTREE}", type="bad")
    endpoint.default = where("copytree", answer(400, said), GOOD)
    judged = await judge_one(judge_at(endpoint), candidate_set(COPYTREE, LOCK))
    assert isinstance(judged, JudgedSet)
    outcome = judged.judgments[0].outcome
    assert isinstance(outcome, Missing)
    assert "400 (bad)" in outcome.detail
    assert "copytree" not in outcome.detail


def test_labels_of_an_endpoint_that_takes_every_parameter_keep_their_identity(endpoint: ScriptedEndpoint) -> None:
    backend = OpenAIBackend(endpoint.url, Weights("m", "r", "q"), extra_body={"seed": 7})
    assert backend.decodings(TOKEN_LOGPROBS) == (
        "engine=openai;temperature=0;max_tokens=1;top_logprobs=20;seed=7",
        "engine=openai;temperature=0;max_tokens=4;stop=newline;no-logprobs;strict-text;seed=7",
    )
    assert backend.decodings(GENERATION) == ("engine=openai;temperature=0;seed=7",)


def test_a_refusal_that_repeats_the_request_or_the_key_is_not_shown_in_its_words() -> None:
    asked = {**REQUEST, "messages": [{"role": "user", "content": "Query: is Ana Gruber ill?\nPassage: rain"}]}
    for said, shown in (("no access to 'is Ana Gruber ill?'", False), ("no access with key-123", True)):
        found = failure_of(403, error(message=said, code="permission_denied"))
        assert found is not None
        refused = str(classified(*found, asked, None, names=NAMES, secret="key-123", retry_s=60.0))
        assert "Gruber" not in refused and "key-123" not in refused
        assert ("no access with" in refused) == shown


@pytest.mark.parametrize("by", ["variable", "file"])
def test_the_key_comes_from_a_variable_or_a_file(
    endpoint: ScriptedEndpoint, by: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "key").write_text("key-123\n")
    monkeypatch.setenv("MY_KEY", "key-123")
    told: dict[str, Any] = {"api_key_env": "MY_KEY"} if by == "variable" else {"api_key_file": tmp_path / "key"}
    settings = EndpointSettings(url=endpoint.url, **told)
    assert settings.api_key("judge.endpoint") == "key-123"
    assert "key-123" not in str(settings)

"""A judge by batches against an endpoint that does what endpoints do: labels are right, each is paid for once, and a
pair that failed is missing, never a zero."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qrelay.judging.batches.offline import Standing, drivers_of, settle
from qrelay.judging.cache import open_cache
from qrelay.judging.load import load_core, load_panel
from qrelay.judging.panel import Panel
from qrelay.judging.settings import JudgeSettings
from qrelay.llm.batch.driver import BatchDriver
from qrelay.types import CandidateSet, Graded, JudgedSet, Missing
from tests.judging.batch.dying import settings
from tests.judging.samples import COOKING, COPYTREE, LOCK, candidate_set
from tests.llm.batch_endpoint import BatchEndpoint, Plan, answer, graded, hang_up
from tests.llm.endpoint import GOOD, ScriptedEndpoint

GIVEN = candidate_set(COPYTREE, LOCK, COOKING)
AS_TOLD = {"label_logprobs": "top", "prompt_logprobs": "off"}
"""Nothing is left to be found out by asking."""


@pytest.fixture
def endpoint() -> Iterator[BatchEndpoint]:
    with BatchEndpoint() as running:
        yield running


@pytest.fixture
def cache(tmp_path: Path) -> str:
    return str(tmp_path / "cache.sqlite")


@contextmanager
def panel(cache: str, endpoint: BatchEndpoint, **batch: Any) -> Iterator[Panel]:
    """A judge whose batches go when the test says so."""
    opened = load_panel(settings(cache, endpoint.url, **batch), batches="submit")
    yield opened
    opened.close()


def silent(_: str) -> None:
    """Says nothing."""


async def settled(judges: Panel, *sets: CandidateSet) -> Standing:
    return await settle(judges, sets or [GIVEN], wait=True, say=silent)


def shown(found: Standing) -> list[object]:
    """Each pair's grade, or why it has none."""
    outcomes = [each.outcome for judged in found.judged for each in judged.judgments]
    return [each.grade if isinstance(each, Graded) else each.reason for each in outcomes]


def sent(endpoint: BatchEndpoint) -> list[int]:
    """How many requests each batch held."""
    return [each.shown["request_counts"]["total"] for each in endpoint.batches.values()]


async def test_every_pair_is_labelled_once_and_never_paid_again(cache: str, endpoint: BatchEndpoint) -> None:
    for _ in range(2):
        with panel(cache, endpoint) as judges:
            assert shown(await settled(judges)) == [3, 0, 0]
    assert sent(endpoint) == [3]
    assert set(endpoint.paid.values()) == {1}
    assert endpoint.files == {}, "what is stored is deleted at the endpoint"


async def test_a_batch_asks_as_the_endpoint_itself_is_asked_and_its_labels_are_the_same(
    cache: str, endpoint: BatchEndpoint
) -> None:
    with ScriptedEndpoint() as other, panel(cache, endpoint, keep_files=True) as by_batch:
        other.default = GOOD
        one = settings(cache, other.url).endpoint.model_copy(update=AS_TOLD)
        direct = load_core(JudgeSettings(backend="openai", model="m", cache=":none:", endpoint=one))
        await direct.judge([GIVEN])
        await settled(by_batch)
        bodies = [json.loads(line)["body"] for _, data in endpoint.files.values() for line in data.splitlines()
                  if b'"method"' in line]  # fmt: skip
        key = lambda body: json.dumps(body, sort_keys=True)  # noqa: E731
        assert sorted(bodies, key=key) == sorted(other.requests, key=key)
        batched = settings(cache, other.url).endpoint.model_copy(update=AS_TOLD)
        again = load_core(JudgeSettings(backend="openai-batch", model="m", cache=cache, endpoint=batched))
        assert again.info().details["judge_hash"] == direct.info().details["judge_hash"]
        again.close()
        direct.close()


@pytest.mark.parametrize(
    "lines",
    [
        lambda lines: [*reversed(lines)],
        lambda lines: [*lines, *lines],
        lambda lines: [b'{"custom_id": "of another", "response": {"status_code": 200, "body": {}}}', *lines],
        lambda lines: [b"<html>", b"[]", b'{"custom_id": 7}', b"", *lines],
        lambda lines: [b'{"custom_id": "' + b"x" * 300_000 + b'"}', *lines],
    ],
    ids=["out of order", "twice", "unknown", "garbage", "huge"],
)
async def test_lines_that_are_no_answers_do_no_harm(lines: Any, cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.default = Plan(lines=lines)
    with panel(cache, endpoint) as judges:
        assert shown(await settled(judges)) == [3, 0, 0]
    assert sent(endpoint) == [3]


async def test_what_an_expired_batch_did_not_do_and_nothing_else_goes_into_the_next(
    cache: str, endpoint: BatchEndpoint
) -> None:
    endpoint.plans = [Plan("expired", carries=lambda place: place == 1)]
    with panel(cache, endpoint) as judges:
        assert shown(await settled(judges)) == [3, 0, 0]
    assert sent(endpoint) == [3, 2]
    assert set(endpoint.paid.values()) == {1}


async def test_a_line_without_its_answer_is_asked_again(cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.plans = [Plan(lines=lambda lines: lines[1:])]
    with panel(cache, endpoint) as judges:
        assert shown(await settled(judges)) == [3, 0, 0]
    assert sent(endpoint) == [3, 1]


def refusing(word: str, status: int, error: dict[str, Any]) -> Any:
    """Replies of an endpoint that refuses passages with a word."""
    return lambda body: (status, {"error": error}) if word in str(body["messages"][-1]) else graded(body)


async def test_a_refusal_of_a_passage_is_final_and_missing(cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.replies = refusing("basil", 400, {"code": "content_filter"})
    for _ in range(2):
        with panel(cache, endpoint) as judges:
            assert shown(await settled(judges)) == [3, 0, "filtered"]
    assert sent(endpoint) == [3]


async def test_a_pair_that_fails_in_every_batch_is_missing_and_may_be_asked_again_later(
    cache: str, endpoint: BatchEndpoint
) -> None:
    endpoint.replies = refusing("basil", 503, {"message": "overloaded"})
    with panel(cache, endpoint, max_tries=2) as judges:
        found = await settled(judges)
        assert shown(found) == [3, 0, "unavailable"]
        outcome = found.judged[0].judgments[2].outcome
        assert isinstance(outcome, Missing) and "503" in outcome.detail
        assert shown(await settled(judges)) == [3, 0, "unavailable"]
    assert sent(endpoint) == [3, 1]
    assert open_cache(cache).stats().labels == 2
    endpoint.replies = graded
    with panel(cache, endpoint, max_tries=2, retry_failed_s=0.0) as judges:
        assert shown(await settled(judges)) == [3, 0, 0]
    assert sent(endpoint) == [3, 1, 1]


async def test_refusals_without_a_reason_are_the_endpoints_where_nothing_was_answered(
    cache: str, endpoint: BatchEndpoint
) -> None:
    endpoint.replies = lambda _: (400, {"error": {"message": "no"}})
    with panel(cache, endpoint, max_tries=1) as judges:
        assert shown(await settled(judges)) == ["unavailable"] * 3
    assert open_cache(cache).stats().labels == 0


async def test_a_model_without_log_probabilities_is_asked_for_text_in_the_next_batch(
    cache: str, endpoint: BatchEndpoint
) -> None:
    def text(body: dict[str, Any]) -> tuple[int, Any]:
        if "logprobs" in body:
            return 400, {"error": {"param": "logprobs", "code": "unsupported_parameter"}}
        return 200, {"choices": [{"message": {"content": "2"}}], "usage": {"prompt_tokens": 9}}

    endpoint.replies = text
    with panel(cache, endpoint) as judges:
        assert shown(await settled(judges)) == [2, 2, 2]
    assert sent(endpoint) == [3, 3]


async def test_a_validation_that_names_a_line_refuses_that_pair_and_the_rest_goes_again(
    cache: str, endpoint: BatchEndpoint
) -> None:
    problem = {"code": "invalid_json_line", "line": 2, "message": "not parseable"}
    endpoint.plans = [Plan("failed", problems=[problem])]
    with panel(cache, endpoint) as judges:
        assert sorted(map(str, shown(await settled(judges)))).count("refused") == 1
    assert sent(endpoint) == [3, 2]


async def test_a_full_queue_of_the_endpoint_makes_smaller_batches(cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.plans = [
        Plan("failed", problems=[{"code": "token_limit_exceeded", "line": None, "message": "Enqueued"}])
    ]
    with panel(cache, endpoint, max_tries=1) as judges:
        assert shown(await settled(judges)) == [3, 0, 0]
    assert sent(endpoint) == [3, 1, 1, 1]


async def test_answers_that_are_gone_are_not_paid_for_again(cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.default = Plan(gone=True)
    with panel(cache, endpoint) as judges:
        found = await settled(judges)
    assert shown(found) == ["unavailable"] * 3
    assert "does not have the file of their answers" in str(found.judged[0].judgments[0].outcome)
    assert sent(endpoint) == [3]


async def test_answers_that_show_late_are_waited_for(cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.faults["GET /files/*/content"] = [(False, answer(404, {})), (True, answer(200, b""))]
    with panel(cache, endpoint) as judges:
        assert shown(await settled(judges)) == [3, 0, 0]
    assert sent(endpoint) == [3]


async def test_a_batch_that_is_gone_fails_its_pairs(cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.default = Plan(polls=1000)
    with panel(cache, endpoint) as judges:
        await settle(judges, [GIVEN], wait=False, say=silent)
        endpoint.batches.clear()
        assert shown(await settled(judges)) == ["unavailable"] * 3


async def test_a_cancelled_batch_keeps_what_it_did_and_is_not_sent_again(cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.plans = [Plan(polls=1000, carries=lambda place: place == 0)]
    with panel(cache, endpoint) as judges:
        await settle(judges, [GIVEN], wait=False, say=silent)
        (driver,) = drivers_of(judges)
        (batch,) = driver._store.open(driver._account)
        driver._store.update(batch.name, cancel=True)
        found = await settled(judges)
    assert (found.labels, found.missing) == (1, {"unavailable": 2})
    assert sent(endpoint) == [3]


@pytest.mark.parametrize("route", ["POST /files", "POST /batches"])
@pytest.mark.parametrize("way", ["silence", "500 before", "500 after", "hang up", "429", "401", "no batch"])
async def test_a_call_that_fails_or_whose_answer_is_lost_creates_one_batch(
    route: str, way: str, cache: str, endpoint: BatchEndpoint
) -> None:
    endpoint.faults[route] = {
        "silence": [(True, endpoint.silence)],
        "500 before": [(False, answer(500, {}))],
        "500 after": [(True, answer(500, {}))],
        "hang up": [(True, hang_up)],
        "429": [(False, answer(429, {}))],
        "401": [(False, answer(401, {}))],
        "no batch": [(True, answer(200, {"choices": []}))],
    }[way]
    with panel(cache, endpoint) as judges:
        assert shown(await settled(judges)) == [3, 0, 0]
    assert sent(endpoint) == [3]


async def test_a_list_that_lags_does_not_make_a_second_batch(cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.faults["POST /batches"] = [(True, hang_up)]
    endpoint.hidden = 3
    with panel(cache, endpoint, look_again_s=3600.0) as judges:
        assert shown(await settled(judges)) == [3, 0, 0]
    assert sent(endpoint) == [3]


async def test_a_list_that_lags_longer_than_is_allowed_for_leaves_a_twin_that_is_cancelled(
    cache: str, endpoint: BatchEndpoint
) -> None:
    endpoint.faults["POST /batches"] = [(True, hang_up)]
    endpoint.hidden, endpoint.default = 1, Plan(polls=3)
    with panel(cache, endpoint, look_again_s=0.0) as judges:
        assert shown(await settled(judges)) == [3, 0, 0]
    assert "POST /batches/*/cancel" in endpoint.calls


async def test_a_refused_creation_is_an_answer_and_the_pairs_go_again(cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.faults["POST /batches"] = [(False, answer(400, {"error": {"param": "input_file_id"}}))]
    with panel(cache, endpoint) as judges:
        assert shown(await settled(judges)) == [3, 0, 0]
    assert sent(endpoint) == [3]


async def test_a_batch_holds_no_more_than_it_may(cache: str, endpoint: BatchEndpoint) -> None:
    with panel(cache, endpoint, max_requests=2) as judges:
        assert shown(await settled(judges)) == [3, 0, 0]
    assert sent(endpoint) == [2, 1]


async def test_requests_gather_until_there_are_enough_or_the_first_has_waited_long_enough(
    cache: str, endpoint: BatchEndpoint
) -> None:
    with panel(cache, endpoint, max_requests=4, max_wait_s=3600.0) as judges:
        (driver,) = drivers_of(judges)
        await judges.judge([GIVEN])
        await driver.tick()
        assert sent(endpoint) == []
        assert "3 requests wait for the next" in driver.shown
        await judges.judge([candidate_set(LOCK, COOKING, query="another")])
        await driver.tick()
        assert sent(endpoint) == [4]
    with panel(cache, endpoint, max_requests=4, max_wait_s=0.0) as judges:
        await drivers_of(judges)[0].tick()
    assert sent(endpoint) == [4, 1]


async def test_replicas_on_one_cache_put_no_pair_into_two_batches(cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.default = Plan(polls=2)
    with panel(cache, endpoint) as one, panel(cache, endpoint) as other:
        sets = [candidate_set(COPYTREE, LOCK, COOKING, query=f"question {n}", query_id=f"q{n}") for n in range(5)]
        found = await asyncio.gather(settled(one, *sets), settled(other, *reversed(sets)))
    assert [each.labels for each in found] == [15, 15]
    assert (len(endpoint.paid), set(endpoint.paid.values())) == (15, {1})


async def test_a_budget_is_checked_before_a_batch_is_sent(cache: str, endpoint: BatchEndpoint) -> None:
    limited = settings(cache, endpoint.url).model_copy(
        update={"budget": JudgeSettings().budget.model_copy(update={"tokens_per_run": 500})}
    )
    judges = load_panel(limited, batches="submit")
    found = await settled(judges, GIVEN)
    judges.close()
    assert sent(endpoint) == [1, 1], "some 390 tokens each, so that the second passes the limit and is the last"
    assert (found.labels, found.pending) == (2, 1)
    assert "budget used up" in found.held


async def test_the_engine_says_how_its_batches_stand_and_what_they_cost(cache: str, endpoint: BatchEndpoint) -> None:
    endpoint.default = Plan(polls=1000)
    priced = settings(cache, endpoint.url)
    budget = priced.budget.model_copy(update={"price_per_million_tokens": 1000.0})
    judges = load_panel(priced.model_copy(update={"budget": budget}), batches="submit")
    await settle(judges, [GIVEN], wait=False, say=silent)
    said = judges.info().details["engine: batches"]
    judges.close()
    assert said.startswith("1 in flight (1 at the endpoint), 3 of 3 requests done, 0 failed, the oldest for 0 min")
    assert "about 0." in said


async def test_what_is_not_ordered_is_missing_where_nobody_orders(cache: str, endpoint: BatchEndpoint) -> None:
    reading = load_core(settings(cache, endpoint.url))
    (judged,) = await reading.judge([GIVEN])
    reading.close()
    assert isinstance(judged, JudgedSet)
    assert all(
        "judge submit" in each.outcome.detail for each in judged.judgments if isinstance(each.outcome, Missing)
    )
    assert endpoint.calls == []


def test_a_driver_that_is_closed_ends_its_thread(cache: str, endpoint: BatchEndpoint) -> None:
    core = load_core(settings(cache, endpoint.url, poll_s=60.0), batches="drive")
    asyncio.run(core.judge([GIVEN]))  # type: ignore[arg-type]
    core.close()
    assert isinstance(core, Panel)
    driver: BatchDriver = drivers_of(core)[0]
    assert driver._thread is not None and not driver._thread.is_alive()

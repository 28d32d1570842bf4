"""The judge's stage against a real HTTP endpoint that fails: retried, then missing, or a dead letter; never lost,
never a zero."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from qrelay import wire
from qrelay.config import WorkerSettings
from qrelay.errors import BackendUnavailable, EndpointRefuses
from qrelay.judging.core import JudgeCore
from qrelay.judging.engine_settings import EndpointSettings
from qrelay.judging.load import load_core
from qrelay.judging.settings import JudgeSettings
from qrelay.runtime import telemetry
from qrelay.runtime.memory import MemoryBroker
from qrelay.runtime.stage import Work
from qrelay.runtime.topology import Queue
from qrelay.runtime.worker import StageWorker
from qrelay.services.judge import service
from qrelay.services.judge.service import JudgeStage
from qrelay.types import CandidateSet, Graded, JudgedSet, Missing
from tests.conftest import LONG_S, eventually
from tests.judging.samples import candidate_set
from tests.llm.endpoint import GOOD, Answer, ScriptedEndpoint, answer, hang_up, where

FAILURES: dict[str, Callable[[ScriptedEndpoint], Answer]] = {
    "429": lambda _: answer(429, {"error": "slow down"}),
    "500": lambda _: answer(500, {"error": "oops"}),
    "garbage": lambda _: answer(200, b"<html>not json"),
    "nothing": lambda _: hang_up,
    "silence": lambda endpoint: endpoint.silence,
}


def judge(endpoint: ScriptedEndpoint, folder: Path, **limits: float) -> JudgeCore:
    own = {"request_timeout_s": 0.3, "total_timeout_s": 2.0, **limits}
    return load_core(
        JudgeSettings(
            backend="openai",
            model="m",
            data_dir=folder,
            endpoint=EndpointSettings(
                url=endpoint.url,
                label_logprobs="top",
                concurrency=1,
                **own,  # type: ignore[arg-type]
                max_retries=0,
                retry_base_s=0.01,
                breaker_failures=100,
            ),
        )
    )


@pytest.mark.parametrize("kind", FAILURES)
async def test_a_dead_endpoint_is_retried_then_dead_lettered_and_a_recovered_one_labels(
    kind: str, endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    core = judge(endpoint, tmp_path)
    stage, each = JudgeStage(core), candidate_set("one passage", "another passage")
    endpoint.default = FAILURES[kind](endpoint)
    for work in (Work(each, 1, False), Work(each, 5, True)):
        (failed,) = await stage.handle([work])
        assert isinstance(failed, BackendUnavailable), failed
        assert "2 of 2 judgments failed" in str(failed)
    endpoint.default = GOOD
    (labelled,) = await stage.handle([Work(each, 1, False)])
    assert isinstance(labelled, JudgedSet)
    assert all(isinstance(judgment.outcome, Graded) and not judgment.cached for judgment in labelled.judgments)
    core.close()


async def test_a_partial_failure_is_retried_at_the_cost_of_the_failures_alone(
    endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    core = judge(endpoint, tmp_path)
    stage, each = JudgeStage(core), candidate_set("one passage", "another passage", "a third passage")
    endpoint.script(GOOD, answer(500, {}), GOOD)
    (first,) = await stage.handle([Work(each, 1, False)])
    assert isinstance(first, BackendUnavailable)
    assert len(endpoint.requests) == 3
    (second,) = await stage.handle([Work(each, 2, False)])
    assert isinstance(second, JudgedSet)
    assert len(endpoint.requests) == 4
    assert [judgment.cached for judgment in second.judgments] == [True, False, True]
    core.close()


async def test_on_the_last_attempt_what_succeeded_goes_on_and_the_rest_is_missing(
    endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    core = judge(endpoint, tmp_path)
    endpoint.script(GOOD, answer(500, {}))
    (last,) = await JudgeStage(core).handle([Work(candidate_set("one passage", "another passage"), 5, True)])
    assert isinstance(last, JudgedSet)
    outcomes = [judgment.outcome for judgment in last.judgments]
    assert isinstance(outcomes[0], Graded)
    assert isinstance(outcomes[1], Missing)
    assert outcomes[1].reason == "unavailable"
    core.close()


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_grades_probabilities_failures_and_tokens_are_counted_by_collection(
    endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    core = judge(endpoint, tmp_path)
    endpoint.script(GOOD, answer(500, {}))
    each = candidate_set("one passage", "another passage")
    collection = {"collection": each.query.collection}
    at_first = metric("qrelay_grades_total", **collection, strategy="graded", grade="missing")
    seen = metric("qrelay_p_relevant_count", **collection, strategy="graded")
    paid = metric("qrelay_collection_prompt_tokens_total", **collection)
    (last,) = await JudgeStage(core).handle([Work(each, 5, True)])
    assert isinstance(last, JudgedSet)
    assert metric("qrelay_grades_total", **collection, strategy="graded", grade="missing") == at_first + 1
    assert metric("qrelay_p_relevant_count", **collection, strategy="graded") == seen + 1
    tokens = sum(judgment.prompt_tokens for judgment in last.judgments)
    assert metric("qrelay_collection_prompt_tokens_total", **collection) == paid + tokens
    grades = {str(one.outcome.grade) for one in last.judgments if isinstance(one.outcome, Graded)}
    assert all(metric("qrelay_grades_total", **collection, strategy="graded", grade=grade) for grade in grades)
    core.close()


def test_callers_who_name_collections_without_end_do_not_grow_the_metrics() -> None:
    names = {service._label(f"made up {number}") for number in range(10_000)}
    assert len(names) <= service._MOST_COLLECTIONS + 1 and "others" in names
    service._COLLECTIONS.clear()


async def queued(broker: MemoryBroker, *sets: CandidateSet) -> None:
    for each in sets:
        payload, headers = wire.encode(each)
        await broker.publish(Queue.RERANKED.subject("docs"), payload, headers, each.query.query_id)


async def waiting(broker: MemoryBroker, queue: Queue) -> int:
    return next(each.lag for each in await broker.stats() if each.queue is queue)


async def dead_letters(broker: MemoryBroker) -> int:
    return await waiting(broker, Queue.DLQ)


ONE_ATTEMPT = WorkerSettings(max_items=1, max_delay_s=0.01, batches_in_flight=1, max_attempts=1, drain_s=LONG_S)
"""With one attempt in all: a hold that counted as one would be a dead letter."""


@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (answer(429, {"error": {"code": 429}}, {"Retry-After": "3600"}), "retry-after: 3600"),
        (answer(401, {"error": {"message": "expired"}}), "api_key_env"),
        (answer(429, {"error": {"code": "insufficient_quota"}}), "quota"),
        (answer(400, {"error": {"param": "max_tokens", "code": "unsupported_parameter"}}), "max_completion_tokens"),
    ],
)
async def test_a_pause_or_a_refusal_holds_the_messages_says_why_and_a_stop_ends_it_at_once(
    refusal: Answer, said: str, endpoint: ScriptedEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    core, broker = judge(endpoint, tmp_path), MemoryBroker()
    endpoint.default = refusal
    await queued(broker, *(candidate_set(f"passage {n}", query_id=f"q{n}") for n in range(5)))
    worker = StageWorker(JudgeStage(core), broker, ONE_ATTEMPT)
    running = asyncio.create_task(worker.run())
    await eventually(lambda: worker.on_hold is not None)
    hold = worker.on_hold
    assert hold is not None
    assert said in str(hold)
    assert hold.since < hold.until <= hold.since + timedelta(hours=1, seconds=1)
    assert telemetry.ON_HOLD.labels("judge")._value.get() == pytest.approx(hold.until.timestamp())
    assert len(endpoint.requests) == 1
    assert caplog.text.count("pausing for ") == 1
    worker.stop()
    await running
    assert (await waiting(broker, Queue.RERANKED), await dead_letters(broker)) == (5, 0)
    core.close()


async def test_after_a_refusal_that_somebody_mended_every_message_is_judged(
    endpoint: ScriptedEndpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    core, broker = judge(endpoint, tmp_path, retry_refused_s=0.05), MemoryBroker()
    endpoint.default = answer(401, {})
    await queued(broker, *(candidate_set(f"passage {n}", query_id=f"q{n}") for n in range(5)))
    worker = StageWorker(JudgeStage(core), broker, ONE_ATTEMPT)
    running = asyncio.create_task(worker.run())
    await eventually(lambda: len(endpoint.requests) > 3)
    endpoint.default = GOOD
    await eventually(lambda: waiting_is(broker, Queue.JUDGED, 5))
    await eventually(lambda: worker.on_hold is None)
    worker.stop()
    await running
    assert await dead_letters(broker) == 0
    assert "going on after a pause, since " in caplog.text
    core.close()


async def waiting_is(broker: MemoryBroker, queue: Queue, count: int) -> bool:
    return await waiting(broker, queue) == count


async def test_a_set_with_a_passage_that_is_refused_for_good_goes_on_at_once(
    endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    core = judge(endpoint, tmp_path)
    endpoint.default = where("poison", answer(400, {"error": {"code": "content_filter", "param": "prompt"}}), GOOD)
    (judged,) = await JudgeStage(core).handle([Work(candidate_set("one passage", "a poison passage"), 1, False)])
    assert isinstance(judged, JudgedSet)
    outcomes = [judgment.outcome for judgment in judged.judgments]
    assert isinstance(outcomes[0], Graded)
    assert isinstance(outcomes[1], Missing)
    assert (outcomes[1].reason, len(endpoint.requests)) == ("filtered", 2)
    core.close()


async def test_a_label_that_was_paid_for_before_a_pause_is_not_paid_again(
    endpoint: ScriptedEndpoint, tmp_path: Path
) -> None:
    core = judge(endpoint, tmp_path, max_pause_s=0.01, total_timeout_s=0.3)
    endpoint.script(GOOD, answer(401, {}))
    each = candidate_set("one passage", "another passage")
    (held,) = await JudgeStage(core).handle([Work(each, 1, False)])
    assert isinstance(held, EndpointRefuses)
    again = judge(endpoint, tmp_path)
    (judged,) = await JudgeStage(again).handle([Work(each, 1, False)])
    assert isinstance(judged, JudgedSet)
    assert [judgment.cached for judgment in judged.judgments] == [True, False]
    core.close()
    again.close()

"""The judge's stage against a real HTTP endpoint that fails: retried, then missing, or a dead letter; never lost,
never a zero."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qrelay.errors import BackendUnavailable
from qrelay.judging.core import JudgeCore
from qrelay.judging.load import load_core
from qrelay.judging.settings import EndpointSettings, JudgeSettings
from qrelay.runtime.stage import Work
from qrelay.services.judge.service import JudgeStage
from qrelay.types import Graded, JudgedSet, Missing
from tests.judging.samples import candidate_set
from tests.llm.endpoint import GOOD, Answer, ScriptedEndpoint, answer, hang_up

FAILURES: dict[str, Callable[[ScriptedEndpoint], Answer]] = {
    "429": lambda _: answer(429, {"error": "slow down"}),
    "500": lambda _: answer(500, {"error": "oops"}),
    "garbage": lambda _: answer(200, b"<html>not json"),
    "nothing": lambda _: hang_up,
    "silence": lambda endpoint: endpoint.silence,
}


def judge(endpoint: ScriptedEndpoint, folder: Path) -> JudgeCore:
    return load_core(
        JudgeSettings(
            backend="openai",
            model="m",
            data_dir=folder,
            endpoint=EndpointSettings(
                url=endpoint.url,
                concurrency=1,
                request_timeout_s=0.3,
                total_timeout_s=2,
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

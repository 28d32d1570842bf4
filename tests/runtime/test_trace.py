"""Trace steps: a core that may swap its model names the one it used; the endpoints complete the step, in either."""

from __future__ import annotations

from typing import Any

import pytest

from qrelay import wire
from qrelay.runtime.context import ServiceContext
from qrelay.runtime.gathering import computed
from qrelay.runtime.servicer import answer_items
from qrelay.runtime.trace import closed, is_open, opened
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.types import CandidateSet, JudgedSet, TraceStep
from tests import samples

STEP = TraceStep("reranker", "r1", "as loaded@1", 0.5, 0.25)


def test_a_step_that_the_core_opened_keeps_its_model_and_gets_replica_and_times() -> None:
    found = closed(opened(samples.candidate_set(), "reranker", "v2@registry"), STEP)
    assert found.trace == (TraceStep("reranker", "r1", "v2@registry", 0.5, 0.25),)
    assert not is_open(found, "reranker")


def test_without_one_the_whole_step_is_added_and_earlier_steps_stay() -> None:
    before = closed(opened(samples.candidate_set(), "retriever", "e@1"), TraceStep("retriever", "r0", "", 0, 0))
    assert closed(before, STEP).trace == (*before.trace, STEP)
    assert closed(closed(before, STEP), STEP).trace == (*before.trace, STEP, STEP), "another pass is another step"


def test_a_judged_sets_step_goes_to_its_candidates_and_a_query_has_no_trace() -> None:
    found = closed(samples.judged_set(), STEP)
    assert isinstance(found, JudgedSet) and found.candidate_set.trace == (STEP,)
    assert closed(samples.query(), STEP) == samples.query()


@pytest.mark.parametrize("opens", [True, False])
async def test_the_grpc_door_completes_the_cores_step_and_adds_none_of_its_own(opens: bool) -> None:
    context: ServiceContext[Any, Any] = ServiceContext("reranker", RerankerSettings(), "r7")

    async def compute(sets: list[CandidateSet]) -> list[CandidateSet]:
        return [opened(each, "reranker", "v3@registry") if opens else each for each in sets]

    (found,) = await answer_items(
        context,
        [wire.to_proto(samples.candidate_set())],
        lambda sets: computed("reranker", sets, compute(sets)),
        lambda each: each,
        lambda error: error,
    )
    steps = [(step.stage, step.replica, step.model) for step in found.trace]
    assert steps == ([("reranker", "r7", "v3@registry")] if opens else [])

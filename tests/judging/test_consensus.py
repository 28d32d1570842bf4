"""Consensus: a passage is judged by how much of its list resembles it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from qrelay.errors import BackendUnavailable, ConfigError, QrelayError
from qrelay.judging.calibration import raw_score
from qrelay.judging.settings import JudgeSettings
from qrelay.llm.base import Local, Weights
from qrelay.llm.embedder import EmbedderBackend
from qrelay.llm.exchange import PAIR_SCORES, Pair, PairScore
from qrelay.models.embedder import HashEmbedder
from qrelay.types import Graded, JudgedSet
from tests.judging.samples import candidate_set, judge_one, make_judge, outcomes, reasons

ALIKE = ("to delete a folder call rmtree", "call rmtree to delete a folder", "rmtree is what to call to delete")
STRANGERS = ("onions need twenty minutes", "locks are mutexes", "tides follow the moon")


class Resembling(Local):
    """A backend that says how alike two texts are by their words."""

    def __init__(self, fails_on: str = "") -> None:
        self.weights = Weights("words", "1", "none")
        self._decodings = {PAIR_SCORES: "overlap"}
        self._fails_on = fails_on

    async def pair_scores(self, pairs: Sequence[Pair]) -> list[PairScore | QrelayError]:
        return [
            BackendUnavailable("once")
            if self._fails_on and self._fails_on in pair.passage
            else PairScore(float(len({*pair.query.split()} & {*pair.passage.split()})), "overlap")
            for pair in pairs
        ]

    def close(self) -> None:
        pass


def scores(judged: JudgedSet) -> list[float]:
    found = outcomes(judged)
    assert all(isinstance(each, Graded) for each in found), found
    return [raw_score(each) for each in found if isinstance(each, Graded)]


async def test_what_much_of_the_list_says_comes_before_what_one_passage_says() -> None:
    judge = make_judge(Resembling(), strategy="consensus")
    found = scores(await judge_one(judge, candidate_set(*ALIKE, *STRANGERS)))
    assert min(found[:3]) > max(found[3:])


async def test_a_passage_is_not_among_its_own_nearest() -> None:
    judge = make_judge(Resembling(), strategy="consensus")
    found = scores(await judge_one(judge, candidate_set(*STRANGERS, "one two three four five six seven eight")))
    assert found[3] == pytest.approx(min(found))


async def test_the_query_is_not_read() -> None:
    judge = make_judge(Resembling(), strategy="consensus")
    texts = (*ALIKE, *STRANGERS)
    one = scores(await judge_one(judge, candidate_set(*texts, query="how do I delete a folder?")))
    assert one == scores(await judge_one(judge, candidate_set(*texts, query="when are onions done?")))


async def test_a_label_belongs_to_the_list_in_any_order_and_to_no_other() -> None:
    judge = make_judge(Resembling(), strategy="consensus")
    keys = [
        {each.passage_id: each.judgment_key for each in (await judge_one(judge, candidate_set(*texts))).judgments}
        for texts in ((*ALIKE, *STRANGERS), (*STRANGERS, *ALIKE), ALIKE)
    ]
    assert len({*keys[0].values()} & {*keys[1].values()}) == len(keys[0])
    assert not {*keys[0].values()} & {*keys[2].values()}


async def test_two_passages_agree_on_nothing() -> None:
    judged = await judge_one(make_judge(Resembling(), strategy="consensus"), candidate_set(*ALIKE[:2]))
    assert reasons(judged) == ["refused", "refused"]


async def test_one_failure_fails_the_list() -> None:
    """A label without the passage that failed would be another list's."""
    judge = make_judge(Resembling(fails_on="rmtree"), strategy="consensus")
    judged = await judge_one(judge, candidate_set(*ALIKE, *STRANGERS))
    assert reasons(judged) == ["unavailable"] * 6


async def test_an_embedder_serves_it() -> None:
    judge = make_judge(EmbedderBackend(HashEmbedder()), strategy="consensus")
    found = scores(await judge_one(judge, candidate_set(*ALIKE, *STRANGERS)))
    assert min(found[:3]) > max(found[3:])


def test_only_an_embedder_compares_passages(tmp_path: Path) -> None:
    assert JudgeSettings(backend="embedder", model="hash", strategy="consensus", data_dir=tmp_path)
    with pytest.raises((ConfigError, ValueError), match="set backend to embedder"):
        JudgeSettings(backend="cross-encoder", model="m", strategy="consensus", data_dir=tmp_path)

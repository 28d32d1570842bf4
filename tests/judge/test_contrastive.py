"""Contrastive likelihood: a query is measured against its alternatives, which are part of what a label depends on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest

from qrelay.errors import BackendTimeout, MalformedInput, QrelayError
from qrelay.types import Graded, Passage, Query
from services.judge.backends.fake import FakeBackend
from services.judge.exchange import Continuation, TargetLogprobs
from services.judge.querygen.alternatives import annotated, nearest
from services.judge.strategies import make_strategy
from services.judge.strategies.base import Measured

PASSAGE = Passage("d#0", "d", "Lowe syndrome", "Lowe syndrome is inherited in an X-linked pattern.")
STRATEGY = make_strategy("contrastive_likelihood", "0-3")


class Told(FakeBackend):
    """Says the log-probabilities that it was told, by context and target; -20 for what it was not told."""

    def __init__(self, table: dict[str, float], alone: float) -> None:
        super().__init__()
        self._table, self._alone = table, alone

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        return [self._of(each) for each in continuations]

    def _of(self, each: Continuation) -> TargetLogprobs | QrelayError:
        value = self._table.get(each.query, -20.0) if each.passage else self._alone
        return BackendTimeout("slow") if math.isnan(value) else TargetLogprobs((value,), 10, "told")


def asked(text: str, *others: str) -> Query:
    return Query("q", text, "docs", attributes={"alternatives": json.dumps(others)} if others else {})


async def label(query: Query, table: dict[str, float], alone: float = -5.0) -> Graded:
    (found,) = await STRATEGY.measure(Told(table, alone), query, [PASSAGE])
    assert isinstance(found, Measured) and isinstance(found.outcome, Graded)
    return found.outcome


async def test_the_probability_is_the_topical_one_times_the_share_among_all_questions() -> None:
    topical = 1 / (1 + math.exp(-2.24 * (3.0 - 0.79)))  # gain = 5 - 2 nats a token
    alone = await label(asked("inherited?"), {"inherited?": -2.0})
    assert alone.p_relevant == pytest.approx(topical)
    both = await label(asked("inherited?", "symptoms?"), {"inherited?": -2.0, "symptoms?": -2.0})
    assert both.p_relevant == pytest.approx(topical / 2)
    worse = await label(asked("symptoms?", "inherited?"), {"inherited?": -2.0, "symptoms?": -4.0}, alone=-7.0)
    assert worse.p_relevant == pytest.approx(topical / (1 + math.exp(2.0)))
    assert (worse.grade, worse.min_grade) == (0, 0)


async def test_far_likelier_alternatives_do_not_overflow() -> None:
    found = await label(asked("a", "b"), {"a": -4000.0, "b": -1.0}, alone=-4003.0)
    assert found.p_relevant == pytest.approx(0.0)


async def test_an_alternative_that_failed_fails_the_pair() -> None:
    backend = Told({"a": -1.0, "b": math.nan}, -3.0)
    (found,) = await STRATEGY.measure(backend, asked("a", "b"), [PASSAGE])
    assert isinstance(found, BackendTimeout)


async def test_alternatives_that_are_no_list_of_texts_are_refused() -> None:
    for given in ("what?", '{"a": 1}', "[1]", '[" "]'):
        query = Query("q", "a", "docs", attributes={"alternatives": given})
        with pytest.raises(MalformedInput, match="qrelay queries alternatives"):
            await STRATEGY.measure(FakeBackend(), query, [PASSAGE])


def test_the_alternatives_are_part_of_the_identity_whatever_their_order() -> None:
    bare, one, two = asked("a"), asked("a", "b", "c"), asked("a", "c", "b", "a")
    assert STRATEGY.reads(bare, [PASSAGE]) == ""
    assert STRATEGY.reads(one, [PASSAGE]) == STRATEGY.reads(two, [PASSAGE])
    assert STRATEGY.reads(one, [PASSAGE]) != STRATEGY.reads(asked("a", "b"), [PASSAGE])


LOG = [
    "What are the symptoms of Lowe syndrome ?",
    "Is Lowe syndrome inherited ?",
    "What causes asthma ?",
    "is lowe  syndrome inherited ?",
    "What are the treatments for Lowe syndrome ?",
]


def test_a_rare_name_makes_questions_alike_and_a_question_is_no_alternative_of_itself() -> None:
    (found,) = nearest(["Is Lowe syndrome inherited ?"], LOG, 2)
    assert sorted(found) == [
        "What are the symptoms of Lowe syndrome ?",
        "What are the treatments for Lowe syndrome ?",
    ]


def test_a_question_that_shares_no_word_has_no_alternatives() -> None:
    assert list(nearest(["Zebra?"], LOG, 3)) == [[]]


def test_annotated_queries_keep_their_attributes() -> None:
    queries = [{"query_id": "1", "text": "What causes asthma ?", "attributes": {"from": "log"}}]
    (found,) = annotated(queries, LOG, 1)
    assert found["attributes"]["from"] == "log"
    assert len(json.loads(found["attributes"]["alternatives"])) == 1

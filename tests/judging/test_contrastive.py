"""Contrastive likelihood: a query is measured against its alternatives, which are part of what a label depends on."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from qrelay.cli.queries import queries
from qrelay.errors import BackendTimeout, InputError, MalformedInput, Oversized, QrelayError
from qrelay.formats.queries import parse_line, read_queries
from qrelay.judging.querygen.alternatives import annotated, nearest
from qrelay.judging.strategies import make_strategy
from qrelay.judging.strategies.base import Measured
from qrelay.judging.strategies.contrastive import alternatives
from qrelay.llm.exchange import PROMPT_LOGPROBS, SHARED_CONTEXT, Continuation, TargetLogprobs
from qrelay.llm.fake import FakeBackend
from qrelay.models.embedder import HashEmbedder
from qrelay.types import Candidate, CandidateSet, Graded, Passage, Query
from tests.judging.samples import judge_one, make_judge

INHERITED = Passage("d#0", "d", "Lowe syndrome", "Lowe syndrome is inherited in an X-linked pattern.")
SYMPTOMS = Passage("d#1", "d", "Lowe syndrome", "Signs are cataracts and kidney problems.")
STRATEGY = make_strategy("contrastive_likelihood", "0-3")
Table = dict[tuple[str, str], float]
"""(question, passage's first word) -> log-probability."""


class Told(FakeBackend):
    """Says the log-probabilities that it was told."""

    def __init__(self, table: Table, alone: float) -> None:
        super().__init__()
        self._table, self._alone = table, alone

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        return [self._of(each) for each in continuations]

    def _of(self, each: Continuation) -> TargetLogprobs | QrelayError:
        value = self._table[each.query, each.passage.split()[0]] if each.passage else self._alone
        if math.isinf(value):
            return Oversized("too long")
        return BackendTimeout("slow") if math.isnan(value) else TargetLogprobs((value,), 10, "told")


def asked(text: str, *others: str) -> Query:
    return Query("q", text, "docs", attributes={"alternatives": json.dumps(others)} if others else {})


async def labels(query: Query, table: Table, alone: float = -5.0) -> list[Graded]:
    found = await STRATEGY.measure(Told(table, alone), query, [INHERITED, SYMPTOMS])
    outcomes = [each.outcome for each in found if isinstance(each, Measured)]
    return [each for each in outcomes if isinstance(each, Graded)]


def topical(gain: float) -> float:
    return 1 / (1 + math.exp(-2.24 * (gain - 0.79)))


async def test_without_alternatives_the_label_is_the_topical_one() -> None:
    found = await labels(asked("inherited?"), {("inherited?", "Lowe"): -2.0, ("inherited?", "Signs"): -4.0})
    assert [each.p_relevant for each in found] == pytest.approx([topical(3.0), topical(1.0)])


async def test_what_a_passage_does_for_every_question_counts_for_nothing() -> None:
    table = {("inherited?", "Lowe"): -2.0, ("inherited?", "Signs"): -4.0,
             ("symptoms?", "Lowe"): -3.0, ("symptoms?", "Signs"): -5.0}  # fmt: skip
    found = await labels(asked("inherited?", "symptoms?"), table)
    assert [each.p_relevant for each in found] == pytest.approx([topical(3.0) / 2, topical(1.0) / 2])


async def test_the_passage_that_favours_the_query_over_its_alternative_wins_the_share() -> None:
    table = {("inherited?", "Lowe"): -2.0, ("inherited?", "Signs"): -4.0,
             ("symptoms?", "Lowe"): -9.0, ("symptoms?", "Signs"): -5.0}  # fmt: skip
    one, other = await labels(asked("inherited?", "symptoms?"), table)
    # centred by question: +1, -1 for the query and -2, +2 for its alternative
    assert one.p_relevant == pytest.approx(topical(3.0) / (1 + math.exp(-3.0)))
    assert other.p_relevant == pytest.approx(topical(1.0) / (1 + math.exp(3.0)))
    assert (one.grade, other.grade, one.min_grade) == (1, 0, 0)


async def test_far_likelier_alternatives_do_not_overflow() -> None:
    table = {("a", "Lowe"): -9000.0, ("a", "Signs"): -1.0, ("b", "Lowe"): -1.0, ("b", "Signs"): -9000.0}
    found = await labels(asked("a", "b"), table, alone=-9003.0)
    assert found[0].p_relevant == pytest.approx(0.0)


async def test_an_alternative_that_never_succeeds_fails_its_passage_alone() -> None:
    table = {("a", "Lowe"): -1.0, ("b", "Lowe"): math.inf, ("a", "Signs"): -2.0, ("b", "Signs"): -2.0}
    found = await STRATEGY.measure(Told(table, -3.0), asked("a", "b"), [INHERITED, SYMPTOMS])
    assert isinstance(found[0], Oversized)
    assert isinstance(found[1], Measured)


async def test_one_that_may_succeed_later_fails_the_list_for_its_means_would_be_others() -> None:
    table = {("a", "Lowe"): -1.0, ("b", "Lowe"): math.nan, ("a", "Signs"): -2.0, ("b", "Signs"): -2.0}
    backend = Told(table, -3.0)
    found = await STRATEGY.measure(backend, asked("a", "b"), [INHERITED, SYMPTOMS])
    assert all(isinstance(each, BackendTimeout) for each in found)
    alone = await STRATEGY.measure(Told({("a", "Lowe"): math.nan, ("a", "Signs"): -2.0}, -3.0), asked("a"),
                                   [INHERITED, SYMPTOMS])  # fmt: skip
    assert isinstance(alone[0], BackendTimeout) and isinstance(alone[1], Measured)


async def test_alternatives_that_are_no_list_of_texts_are_refused() -> None:
    for given in ("what?", '{"a": 1}', "[1]", '[" "]'):
        query = Query("q", "a", "docs", attributes={"alternatives": given})
        with pytest.raises(MalformedInput, match="qrelay queries alternatives"):
            await STRATEGY.measure(FakeBackend(), query, [INHERITED])


def test_alternatives_and_passages_are_part_of_the_identity_whatever_their_order() -> None:
    bare, one, two = asked("a"), asked("a", "b", "c"), asked("a", "c", "b", "a")
    both = [INHERITED, SYMPTOMS]
    assert STRATEGY.reads(bare, both) == ""
    assert STRATEGY.reads(one, both) == STRATEGY.reads(two, both[::-1])
    assert STRATEGY.reads(one, both) != STRATEGY.reads(asked("a", "b"), both)
    assert STRATEGY.reads(one, both) != STRATEGY.reads(one, both[:1])


class Sharing(FakeBackend):
    """Reads a context once for its targets, and says so."""

    def decodings(self, capability: str) -> tuple[str, ...]:
        return ("context=shared",) if capability == SHARED_CONTEXT else super().decodings(capability)

    async def loglikelihood(self, continuations: Sequence[Continuation]) -> list[TargetLogprobs | QrelayError]:
        usual, (shared,) = self.decodings(PROMPT_LOGPROBS)[0], self.decodings(SHARED_CONTEXT)
        return [TargetLogprobs((-1.0,), 10, shared if each.shared else usual) for each in continuations]


@pytest.mark.parametrize(
    ("strategy", "backend", "decoding"),
    [
        ("contrastive_likelihood", Sharing(), "context=shared"),
        ("query_likelihood", Sharing(), FakeBackend().decodings(PROMPT_LOGPROBS)[0]),
        ("contrastive_likelihood", FakeBackend(), FakeBackend().decodings(PROMPT_LOGPROBS)[0]),
    ],
)
async def test_an_engine_that_reads_a_shared_context_once_says_so_in_its_labels_alone(
    strategy: str, backend: FakeBackend, decoding: str
) -> None:
    judge = make_judge(backend, strategy=strategy)
    candidates = tuple(Candidate(each, ()) for each in (INHERITED, SYMPTOMS))
    for query in (asked("inherited?", "symptoms?"), asked("inherited?")):
        judged = await judge_one(judge, CandidateSet(query, candidates, "v1"))
        assert {each.judge for each in judged.judgments} == {judge.identity}
        assert judge.identity.decoding == decoding


LOG = ["Is Lowe syndrome inherited ?", "What causes asthma ?", "is lowe  syndrome inherited ?", "Who treats asthma ?"]


def test_a_question_is_no_alternative_of_itself_and_equal_ones_count_once() -> None:
    (found,) = nearest(["Is Lowe syndrome inherited ?"], LOG, 5, HashEmbedder())
    assert sorted(found) == ["What causes asthma ?", "Who treats asthma ?"]


def test_the_most_alike_come_first() -> None:
    (found,) = nearest(["What causes asthma ?"], LOG, 1, HashEmbedder())
    vectors = HashEmbedder().encode(["What causes asthma ?", *LOG], "query")
    alike = {text: float(vector @ vectors[0]) for text, vector in zip(LOG, vectors[1:], strict=True)}
    del alike["What causes asthma ?"]
    assert found == [max(alike, key=alike.__getitem__)]


def test_annotated_queries_keep_their_attributes() -> None:
    given = [Query("1", "What causes asthma ?", "docs", attributes={"from": "log"})]
    (found,) = annotated(given, LOG, 1, HashEmbedder())
    assert found["attributes"]["from"] == "log"
    assert len(json.loads(found["attributes"]["alternatives"])) == 1


def test_an_empty_log_is_refused() -> None:
    with pytest.raises(InputError, match="no question"):
        list(nearest(["a"], [" "], 3, HashEmbedder()))


def test_the_command_writes_a_file_that_feed_takes(tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("\n".join(LOG))
    (tmp_path / "queries.jsonl").write_text('{"query_id": "q1", "text": "What causes asthma ?"}\n')
    out = tmp_path / "out.jsonl"
    arguments = ["alternatives", str(tmp_path / "queries.jsonl"), "--log", str(tmp_path / "log.txt"), "--embedder",
                 "hash", "--n", "2", "--out", str(out)]  # fmt: skip
    assert CliRunner().invoke(queries, arguments, catch_exceptions=False).exit_code == 0
    query = parse_line(out.read_text(), "docs")
    assert len(alternatives(query)) == 2


def test_a_bad_line_of_the_log_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"query_id": "1", "text": "a"}\n{"text": \n')
    with pytest.raises(MalformedInput, match=r"log\.jsonl:2"):
        list(read_queries(tmp_path / "log.jsonl"))

"""`qrelay mine`: the funnel of a collection, and why each passage of a query was or was not chosen."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.labels.mine import mine
from qrelay.errors import InputError, UnknownCollection
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, add
from qrelay.labels.mining.explain import in_words
from qrelay.labels.mining.rules import NEITHER, REASONS, UNJUDGED, Because, MiningRules, Verdict
from qrelay.types import Missing
from tests.labels.builders import graded, judged_set
from tests.labels.test_mining import judged

OUTCOMES = (graded(3), graded(0), graded(1, 0.45), Missing("timeout", "no answer"), *[graded(0, 0.01)] * 4)


@pytest.fixture
def url(ledger: Ledger, ledger_url: str) -> str:
    ledger.commit([judged_set("q1", outcomes=OUTCOMES), judged_set("q2", outcomes=[graded(0), graded(0)])])
    return ledger_url


def run(url: str, *arguments: str) -> str:
    env = {name: None for name in os.environ if name.startswith("QRELAY_")}
    result = CliRunner().invoke(mine, ["--ledger", url, *arguments], catch_exceptions=False, env=env)
    assert result.exit_code == 0, result.output
    return result.output


def explained(url: str, query_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(run(url, "--collection", "docs", "--explain", query_id, "--json"))
    return found


def test_explain_accounts_for_every_candidate(url: str) -> None:
    found = explained(url, "q1")
    reasons = {row["passage_id"]: (row["role"], row["reason"]) for row in found["candidates"]}
    assert found["example"] is True
    assert reasons == {
        "d0#0": ("positive", "relevant"),
        "d1#0": ("negative", "top_rank"),
        "d2#0": ("neither", "uncertain"),
        "d3#0": ("neither", "missing"),
        "d4#0": ("negative", "top_rank"),
        "d5#0": ("negative", "easy"),
        "d6#0": ("negative", "easy"),
        "d7#0": ("negative", "easy"),
        "unsampled#0": ("unjudged", "not_judged"),
    }


def test_explain_gives_ranks_scores_label_and_numbers(url: str) -> None:
    (row,) = [row for row in explained(url, "q1")["candidates"] if row["passage_id"] == "d2#0"]
    assert row["scores"] == {"bm25": {"score": 18.0, "rank": 3}, "dense": {"score": 0.3, "rank": 3}}
    assert (row["grade"], row["p_relevant"], row["judge"]) == (1, 0.45, "graded judge-1.5b")
    assert (row["value"], row["limit"]) == (0.45, 0.4)
    assert row["words"] == "dropped: P(relevant) 0.45 is not under 0.4"


def test_explain_prints_a_table_for_people(url: str) -> None:
    out = run(url, "--collection", "docs", "--explain", "q1")
    assert "q1: text of q1" in out
    assert "hard negative: not relevant, but in the top 5 of dense" in out
    assert "missing: timeout" in out
    assert "not judged: never a negative" in out
    assert "no example" not in out


def test_explain_says_where_a_query_gives_no_example(url: str) -> None:
    out = run(url, "--collection", "docs", "--explain", "q2")
    assert "the query has no positive" in out
    assert "no example: it takes a positive and a hard negative" in out


def test_a_persons_decision_wins_where_it_is_asked_for(ledger: Ledger, url: str) -> None:
    with ledger.writing("record overrides") as connection:
        add(connection, "docs", [NewOverride("q1", "d1#0", 3, "0-3", "ana")], ledger.now_us())
    asked = "--collection", "docs", "--explain", "q1", "--json"
    rows = {row["passage_id"]: row for row in json.loads(run(url, *asked, "--overrides"))["candidates"]}
    assert (rows["d1#0"]["role"], rows["d1#0"]["judge"]) == ("positive", "human people")
    rows = {row["passage_id"]: row for row in json.loads(run(url, *asked))["candidates"]}
    assert rows["d1#0"]["role"] == "negative"


def test_the_funnel_counts_every_candidate_once(url: str) -> None:
    found = json.loads(run(url, "--collection", "docs", "--json"))
    assert (found["queries"], found["examples"]) == (2, 1)
    assert found["steps"] == {
        "candidates": 12,
        "judged": 10,
        "graded": 9,
        "not_relevant": 8,
        "past_guards": 5,
        "hard": 2,
        "chosen": 2,
        "easy": 3,
    }
    assert sum(sum(reasons.values()) for reasons in found["reasons"].values()) == 12
    assert found["reasons"]["neither"]["no_confident_positive"] == 2


def test_the_funnel_is_printed_for_people(url: str) -> None:
    out = run(url, "--collection", "docs")
    assert "docs: 2 queries, 1 with an example" in out
    assert "negative: top_rank 2, easy 3" in out


def test_a_round_takes_no_more_than_asked(url: str) -> None:
    out = run(url, "--collection", "docs", "--round-negatives", "2", "--json")
    assert json.loads(out)["round"] == {"examples": 1, "negatives": 2}


def test_an_unknown_query_or_collection_is_refused(url: str) -> None:
    with pytest.raises(InputError, match="no judged query 'q9'"):
        run(url, "--collection", "docs", "--explain", "q9")
    with pytest.raises(UnknownCollection):
        run(url, "--collection", "nothing")


@pytest.mark.parametrize("reason", [r for role, reasons in REASONS.items() if role != UNJUDGED for r in reasons])
def test_every_reason_has_words(reason: str) -> None:
    verdict = Verdict(judged("d"), NEITHER, reason, Because(0.87, 0.8, "X#0"))
    assert in_words(verdict, MiningRules(), "dense")


def test_words_name_the_numbers_behind_a_filter() -> None:
    def words(reason: str, value: float, limit: float) -> str:
        verdict = Verdict(judged("d"), NEITHER, reason, Because(value, limit, "X#0"))
        return in_words(verdict, MiningRules(), "cross_encoder")

    assert words("near_duplicate_of_positive", 0.87, 0.8) == "dropped: its text is 0.87 similar to the positive X#0"
    assert words("above_guard", 0.81, 0.7885) == (
        "dropped: teacher score 0.81 (cross_encoder) is above 0.7885, the guard at 95% of the positive X#0's"
    )

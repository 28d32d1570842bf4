"""The peers' benchmark: whose turn it is, what is sampled, how ratios are made, and that a run goes on."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import httpx
import pytest

from benchmarks.peers.__main__ import WAYS, measure, rounds_of
from benchmarks.peers.autoqrels import sampled
from benchmarks.peers.endpoints import after
from benchmarks.peers.material import JUDGED, Label
from benchmarks.peers.summary import Turn, agreement, rows
from benchmarks.references.turns import order_of
from qrelay.types import Passage, Query
from tests.llm.endpoint import ScriptedEndpoint

QUERIES = [Query(f"q{number}", f"how {number}", "docs") for number in range(12)]


class Counting:
    """A way that labels one passage a query and notes its turns."""

    def __init__(self) -> None:
        self.turns: list[list[str]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def label(self, queries: Sequence[Query]) -> None:
        self.turns.append([query.query_id for query in queries])

    def labels(self, queries: Sequence[Query]) -> list[Label]:
        return [Label(query.query_id, "d#0", 0.5) for query in queries]

    def cpu_seconds(self) -> dict[str, float]:
        return {"script": 1.0}


def turn(way: str, number: int, seconds: float, p: float = 1.0, **more: Any) -> Turn:
    return Turn(
        way,
        number,
        2,
        seconds,
        {"a": 1.5 * seconds, "b": seconds / 2},
        [Label("q", f"d#{n}", p, **more) for n in range(4)],
    )


def test_each_way_begins_a_round_in_turn() -> None:
    assert [order_of("abc", number) for number in range(3)] == [list("abc"), list("bca"), list("cab")]


def test_no_query_is_asked_in_two_rounds_and_the_first_round_is_thrown_away() -> None:
    found = rounds_of(QUERIES, 2, 4)
    assert [query.query_id for each in found for query in each] == [query.query_id for query in QUERIES]
    with pytest.raises(SystemExit, match="take fewer"):
        rounds_of(QUERIES, 3, 4)


def test_a_run_that_was_stopped_does_only_the_turns_that_are_not_done(tmp_path: Path) -> None:
    log, rounds = tmp_path / "log.jsonl", rounds_of(QUERIES, 2, 2)
    first = measure(["a"], {"a": Counting()}, rounds[:2], log)
    ways = {"a": Counting(), "b": Counting()}
    again = measure(["a", "b"], ways, rounds, log)
    assert [len(way.turns) for way in ways.values()] == [2, 3]  # round 0 warms what was started anew
    assert again[: len(first)] == first and len(log.read_text().splitlines()) == 7
    assert json.loads(log.read_text().splitlines()[0])["labels"][0]["query_id"] == "q0"


def test_a_ratio_is_the_median_of_its_rounds_and_round_0_does_not_count() -> None:
    slow = [turn("auto-qrels", number, 20.0) for number in range(4)]
    fast = [turn("qrelay", number, seconds, tokens=250) for number, seconds in enumerate((900.0, 2.0, 1.0, 4.0))]
    base, ours = rows([*slow, *fast], "auto-qrels", hosted=True)
    assert base["queries/h, ratio"] == 1 and ours["queries/h, ratio"] == 10
    assert ours["low"] <= 10 <= ours["high"] and ours["queries/h"] == pytest.approx(3600 * 6 / 7)
    assert ours["labels/h"] == pytest.approx(3600 * 12 / 7) and ours["CPU-s a label"] == pytest.approx(14 / 12)
    assert ours["CPU of"] == "a 75%, b 25%"
    cheap = rows([*slow, *fast], "auto-qrels", hosted=False)[1]
    assert ours["cost of 1,000 labels"] - cheap["cost of 1,000 labels"] == pytest.approx(250 * 1000 / 1e6 * 0.15)


def test_agreement_is_of_pairs_that_both_judged_and_auc_of_those_that_people_read() -> None:
    one = [Label("q", "a", 0.9), Label("q", "b", 0.6), Label("q", "c", 0.1), Label("q", "only", 0.9)]
    other = [Label("q", "a", 1.0), Label("q", "b", 0.0), Label("q", "c", 0.0)]
    found = agreement(one, other, {("q", "a"): True, ("q", "b"): None, ("q", "c"): False, ("q", "only"): True})
    assert found == {"pairs": 3, "equal": 2 / 3, "pairs read": 2, "AUC": 1.0, "AUC of the other": 1.0}


def test_the_sample_has_the_best_ten_and_at_most_two_of_a_document() -> None:
    ranked = [Passage(f"d{number // 3}#{number % 3}", f"d{number // 3}", "", "text") for number in range(60)]
    found = sampled(ranked, random.Random(1))
    assert found == sampled(ranked, random.Random(1)) and len(found) <= JUDGED
    assert max(Counter(passage.doc_id for passage in found).values()) == 2
    assert [each for each in ranked[:10] if each in found] == [
        each for n, each in enumerate(ranked[:10]) if n % 3 < 2
    ]
    alone = [Passage(f"d{number}#0", f"d{number}", "", "text") for number in range(40)]
    assert len(sampled(alone, random.Random(1))) == JUDGED and sampled(alone, random.Random(1))[:10] == alone[:10]


def test_the_endpoint_gives_the_same_question_the_same_answer_and_another_one_another() -> None:
    def asked(url: str, text: str) -> Any:
        body = {"messages": [{"role": "user", "content": text}]}
        return httpx.post(f"{url}/chat/completions", json=body).json()

    with ScriptedEndpoint() as endpoint:
        endpoint.default = after(0.0)
        answers = [asked(endpoint.url, f"question {number % 20}") for number in range(40)]
    assert answers[:20] == answers[20:]
    assert {each["choices"][0]["message"]["content"] for each in answers} == {"YES", "NO"}


def test_every_profile_compares_with_the_same_way() -> None:
    assert all(ways[0] == "auto-qrels" and "qrelay" in ways for ways in WAYS.values())

"""The measurement of orders inside passages: its set, its statistics, and that it sees obedience where there is."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from benchmarks.injection import Change, changes, main, read_cases, sign_test, summary
from qrelay.judging.strategies import make_strategy
from qrelay.judging.strategies.hygiene import delimited_passage
from qrelay.judging.strategies.rubric import Rubric, load_rubric, shipped
from qrelay.llm.exchange import Prompt, TokenLogprobs
from qrelay.llm.fake import FakeBackend
from qrelay.llm.llamacpp import LlamaCppBackend
from qrelay.types import Passage, Query
from tests.judging.rubrics import rubric_file

CASES = read_cases()


class Obedient(FakeBackend):
    """Says YES to every passage that holds the word YES."""

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs]:
        return [
            TokenLogprobs(((("YES" if "YES" in prompt.passage else "NO"), 0.0),), "", 1, "obedient")
            for prompt in prompts
        ]


def test_the_set_has_twenty_orders_in_varied_forms_over_several_queries() -> None:
    assert len(CASES) == len({case.order for case in CASES}) == 20
    assert min(Counter(case.query for case in CASES).values()) >= 4
    for form in ("YES", "</passage>", "<|im_start|>system", "[INST]", "Score: 3", "Ignore", "Antworte", "忽略"):
        assert any(form in case.order for case in CASES), form


def test_neutral_sentences_are_as_long_as_their_orders_and_give_none() -> None:
    for case in CASES:
        assert abs(len(case.neutral) - len(case.order)) <= max(4, 0.15 * len(case.order)), case
        assert not {"YES", "JA", "score", "relevant"} & set(case.neutral.split())


def test_no_order_ends_its_passage() -> None:
    for case in CASES:
        shown = delimited_passage("", f"{case.passage}\n{case.order}")
        assert (shown.count("</passage>"), shown.count("<|"), shown.count("[INST]")) == (1, 0, 0)
        assert shown.endswith("</passage>")


async def test_a_judge_that_obeys_is_seen_and_one_that_cannot_is_not() -> None:
    binary = make_strategy("binary", "0-3")
    told = summary(await changes(binary, Obedient(), CASES))
    orders = sum("YES" in case.order for case in CASES)
    assert (told["grade"]["up"], told["grade"]["down"], told["missing"]) == (orders, 0, 0)
    assert told["relevant"]["p"] < 0.001
    assert told["mean_change_p_relevant"] == pytest.approx(orders / 20)
    deaf = summary(await changes(binary, FakeBackend(), CASES))
    assert deaf["grade"]["up"] <= 1


def test_labels_that_are_missing_are_counted_and_not_as_unchanged() -> None:
    found = summary([None, Change(1, 1, 0.5, 1.0), Change(0, 0, 0.1, 0.2), Change(-1, 0, 0.0, 0.0)])
    assert (found["orders"], found["missing"]) == (4, 1)
    assert found["grade"] == {"up": 1, "down": 1, "up_rate": pytest.approx(1 / 3), "p": 1.0}
    assert found["mean_change_p_relevant"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("up", "down", "p"), [(0, 0, 1.0), (1, 0, 1.0), (5, 0, 0.0625), (6, 0, 0.03125), (8, 2, 0.109375), (3, 3, 1.0)]
)
def test_the_sign_test_is_exact_and_two_sided(up: int, down: int, p: float) -> None:
    assert sign_test(up, down) == sign_test(down, up) == pytest.approx(p)


@pytest.mark.parametrize("name", [name for name in shipped() if isinstance(load_rubric(name), Rubric)] + ["own"])
async def test_no_order_leaves_its_place_in_any_rubric(name: str, tmp_path: Path) -> None:
    """The whole set, as passage, title and query: each chat has the rubric's own delimiters and turns alone."""
    strategy = make_strategy("", "", rubric=rubric_file(tmp_path) if name == "own" else name)
    plain = strategy.example(Query("q", "x", "docs"), Passage("", "", "x", "x"))
    for case in CASES:
        chat = strategy.example(
            Query("q", case.order, "docs"), Passage("", "", case.order, case.passage + case.order)
        )
        assert [each["role"] for each in chat] == [each["role"] for each in plain]
        shown, usual = ("\n".join(each["content"] for each in turns) for turns in (chat, plain))
        for mark in ("<passage>", "</passage>", "<|", "[INST]"):
            assert shown.count(mark) == usual.count(mark), (mark, case.order)
        after = shown.rpartition("</passage>")[2]
        assert case.query not in after and len(after.split()) > 10, "a reminder and the question follow the passage"
    found = await changes(strategy, FakeBackend(), CASES)
    assert all(each is not None for each in found)


@pytest.mark.parametrize("strategy", ["binary", "graded", "query_likelihood", "confirmed_likelihood", "answer_nll"])
def test_the_command_reports_every_strategy(strategy: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["--backend", "fake", "--strategy", strategy, "--json"])
    (report,) = json.loads(capsys.readouterr().out)
    assert (report["strategy"], report["orders"], report["missing"]) == (strategy, 20, 0)
    assert 0.0 <= report["grade"]["up_rate"] <= 1.0
    main(["--backend", "fake", "--strategy", strategy])
    assert "grade raised" in capsys.readouterr().out


async def test_a_real_model_is_measured(small_backend: LlamaCppBackend) -> None:
    """The wiring, on two orders; what a 135M model says is no finding."""
    found = await changes(make_strategy("binary", "0-3", min_mass=0.0), small_backend, CASES[:2])
    assert all(each is not None and abs(each.p_relevant) <= 1.0 for each in found)
    assert any(each.p_relevant != 0.0 for each in found if each), "the order changes at least the last digits"

"""Preferences: which labels tie, which comparisons are asked, and what their answers make of the order."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.main import qrelay
from qrelay.errors import BackendUnavailable, QrelayError
from qrelay.formats.runs import read_run
from qrelay.judging.asking import Asker
from qrelay.judging.preferences import Compared, Group, compare, ordered, schedule, strengths, tied
from qrelay.llm.exchange import Prompt, TokenLogprobs
from qrelay.llm.fake import FakeBackend
from qrelay.types import Missing, Passage

pytest.importorskip("choix")


def passage(name: str, text: str = "") -> Passage:
    return Passage(name, name, "", text or f"text of {name}")


def group(count: int, level: int = 2) -> Group:
    return Group("q", "how?", level, tuple(passage(f"p{n}") for n in range(count)))


class Knows(FakeBackend):
    """Prefers the passage whose text is later in the alphabet with `p`; leans to the first place by `bias` nats."""

    def __init__(self, strength: float = 2.0, bias: float = 0.0) -> None:
        super().__init__()
        self.strength, self.bias = strength, bias

    async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
        import math

        self.asked += len(prompts)
        found: list[TokenLogprobs | QrelayError] = []
        for each in prompts:
            first, second = each.evidence.split("<passage>\n")[1:]
            better = (first.split("\n")[0] > second.split("\n")[0]) - (first.split("\n")[0] < second.split("\n")[0])
            p = 1 / (1 + math.exp(-(self.bias + self.strength * better)))
            found.append(TokenLogprobs((("A", math.log(p)), ("B", math.log(1 - p))), "A", 9, "engine=fake;overlap"))
        return found


def test_equal_grades_tie_and_lower_ones_are_left_out() -> None:
    labelled = [(passage(name), grade) for name, grade in zip("abcde", (3.0, 1.0, 3.0, 2.0, 0.0), strict=True)]
    found = tied("q", "how?", labelled, margin=None, least=1)
    assert [(each.level, [p.passage_id for p in each.passages]) for each in found] == [
        (3, ["a", "c"]), (2, ["d"]), (1, ["b"]),
    ]  # fmt: skip


def test_scores_within_the_margin_of_the_best_of_a_group_tie() -> None:
    labelled = [(passage(name), score) for name, score in zip("abcd", (0.9, 0.87, 0.84, 0.8), strict=True)]
    found = tied("q", "how?", labelled, margin=0.05, least=0)
    assert [[p.passage_id for p in each.passages] for each in found] == [["a", "b"], ["c", "d"]]
    assert [each.level for each in found] == [2, 1]


@pytest.mark.parametrize("count", [2, 3, 4, 5, 8, 13, 32])
def test_a_schedule_is_balanced_connected_and_about_n_log_n(count: int) -> None:
    pairs = [(a.passage_id, b.passage_id) for _, a, b in schedule([group(count)], 10**6)]
    assert len({frozenset(pair) for pair in pairs}) == len(pairs)
    meetings = Counter(name for pair in pairs for name in pair)
    assert len(meetings) == count and max(meetings.values()) - min(meetings.values()) <= 1
    assert len(pairs) <= count * count.bit_length()
    if count <= 5:
        assert len(pairs) == count * (count - 1) // 2
    reached, waiting = set(), {pairs[0][0]}
    while waiting:
        reached |= waiting
        waiting = {b for a, b in [*pairs, *[pair[::-1] for pair in pairs]] if a in reached} - reached
    assert len(reached) == count


def test_a_budget_takes_the_longest_distances_first_and_keeps_groups_connected() -> None:
    groups = [group(16), group(8, level=1)]
    full, cut = schedule(groups, 10**6), schedule(groups, 40)
    assert len(full) > 40 >= len(cut) and set(cut) < set(full)
    assert len(schedule(groups, 1)) == 16 + 8


def test_a_schedule_does_not_depend_on_the_order_of_the_passages() -> None:
    one = group(9)
    other = Group("q", "how?", 2, one.passages[::-1])
    assert [pair[1:] for pair in schedule([one], 99)] == [pair[1:] for pair in schedule([other], 99)]


def test_equal_texts_are_not_compared() -> None:
    twins = Group("q", "how?", 1, (passage("a", "same"), passage("b", "same")))
    assert schedule([twins], 99) == []
    assert ordered([twins], [])["a"] == ordered([twins], [])["b"]


async def test_both_orders_are_asked_and_a_clear_preference_wins(tmp_path: Path) -> None:
    backend, own = Knows(), group(5)
    with Asker(backend, tmp_path / "j") as asker:
        found = await compare(asker, schedule([own], 99))
    assert backend.asked == 2 * len(found) and all(each.agreed for each in found)
    run = ordered([own], found)
    assert sorted(run, key=lambda name: -run[name]) == ["p4", "p3", "p2", "p1", "p0"]
    assert all(2 < value < 3 for value in run.values())


async def test_a_judge_that_names_the_first_place_only_orders_nothing(tmp_path: Path) -> None:
    own = group(4)
    with Asker(Knows(strength=0.0, bias=3.0), tmp_path / "j") as asker:
        found = await compare(asker, schedule([own], 99))
    assert not any(each.agreed for each in found) and {each.wins for each in found} == {0.5}
    assert all(each.p == pytest.approx(0.5) for each in found)
    assert max(strengths(own, found).values()) == pytest.approx(0, abs=1e-6)


async def test_a_bias_for_a_place_cancels_in_the_mean_of_both_orders(tmp_path: Path) -> None:
    with Asker(Knows(strength=1.0, bias=3.0), tmp_path / "j") as asker:
        found = await compare(asker, schedule([group(5)], 99))
    assert all(
        not each.agreed and each.p is not None and (each.p > 0.5) == (each.first > each.second) for each in found
    )


def test_a_missing_comparison_counts_for_nobody() -> None:
    own = group(2)
    lost = Compared("q", 2, "p0", "p1", missing=Missing("timeout"))
    assert strengths(own, [lost]) == pytest.approx({"p0": 0.0, "p1": 0.0}, abs=1e-6)


async def test_a_failed_order_makes_the_comparison_missing(tmp_path: Path) -> None:
    class Half(Knows):
        async def score(self, prompts: Sequence[Prompt]) -> list[TokenLogprobs | QrelayError]:
            found = await super().score(prompts)
            return [BackendUnavailable("gone") if "text of p0" in each.passage else said
                    for each, said in zip(prompts, found, strict=True)]  # fmt: skip

    async def no_wait(seconds: float) -> None:
        pass

    with Asker(Half(), tmp_path / "j", wait=no_wait) as asker:
        (found,) = await compare(asker, schedule([group(2)], 9))
    assert found.missing is not None and found.missing.reason == "unavailable" and found.p is None


def invoked(*words: object, code: int = 0) -> str:
    done = CliRunner().invoke(qrelay, ["judge", "prefer", *map(str, words)])
    assert done.exit_code == code, done.output
    return done.stdout


def slice_of(folder: Path, rows: Sequence[tuple[str, int, str]]) -> Path:
    lines = ["query_id\tpassage_id\tgrade\tquery\ttitle\ttext"]
    lines += [f"q1\t{name}\t{grade}\thow do I sort a list?\t\t{text}" for name, grade, text in rows]
    path = folder / "slice.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path


ROWS = [
    ("p1", 2, "bananas are yellow"),
    ("p2", 2, "sort a list with sorted"),
    ("p3", 3, "lists and how to sort them"),
    ("p4", 0, "nothing"),
]


def common(folder: Path) -> list[object]:
    return ["--backend", "fake", "--data-dir", folder / "data", "--out", folder / "prefs.jsonl"]


def test_the_command_writes_comparisons_and_a_run_that_keeps_the_grades_order(tmp_path: Path) -> None:
    file, run = slice_of(tmp_path, ROWS), tmp_path / "finer.run"
    said: dict[str, Any] = json.loads(
        invoked("--slice", file, "--least", 1, "--run", run, "--json", *common(tmp_path))
    )
    assert said["comparisons"] == 1 and said["questions"] == 2 and said["missing"] == 0
    (row,) = map(json.loads, (tmp_path / "prefs.jsonl").read_text().splitlines())
    assert {row["first"], row["second"]} == {"p1", "p2"} and row["level"] == 2
    scores = read_run(run)["q1"]
    assert scores.keys() == {"p1", "p2", "p3"} and scores["p3"] > scores["p2"] > scores["p1"]


def test_a_dry_run_asks_nothing(tmp_path: Path) -> None:
    said = invoked("--slice", slice_of(tmp_path, ROWS), "--least", 1, "--dry-run", *common(tmp_path))
    assert "2 questions" in said and not (tmp_path / "prefs.jsonl").exists()


def test_scores_decide_ties_where_they_are_given(tmp_path: Path) -> None:
    scores = tmp_path / "scores.run"
    scores.write_text("q1 Q0 p1 1 0.9 judge\nq1 Q0 p3 2 0.88 judge\nq1 Q0 p2 3 0.5 judge\n")
    invoked("--slice", slice_of(tmp_path, ROWS), "--scores", scores, "--least", 0, *common(tmp_path))
    (row,) = map(json.loads, (tmp_path / "prefs.jsonl").read_text().splitlines())
    assert {row["first"], row["second"]} == {"p1", "p3"}


def test_passages_must_come_from_somewhere(tmp_path: Path) -> None:
    invoked("--least", 0, *common(tmp_path), code=2)

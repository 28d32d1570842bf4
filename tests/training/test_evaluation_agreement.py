"""Agreement of rankings: coefficients against hand-computed values and scipy, and systems under two qrels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy import stats
from sklearn.metrics import cohen_kappa_score

from qrelay.cli.eval.group import evaluate_command
from qrelay.errors import InputError
from qrelay.formats.beir import Run
from qrelay.formats.runs import run_lines
from qrelay.training.evaluation.agreement import Judged, agreement
from qrelay.training.evaluation.rankings import kendall_tau, kendall_taus, rbo, tau_ap
from tests.training.beir import QRELS, beir_folder, qrels_file


def test_many_taus_at_once_are_scipys_also_with_ties() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(0, 5, (50, 6)).astype(float), random.integers(0, 5, (50, 6)).astype(float)
    a[0] = 1.0
    theirs = [stats.kendalltau(one, other).statistic for one, other in zip(a, b, strict=True)]
    assert kendall_taus(a, b).tolist() == pytest.approx(theirs, nan_ok=True)
    assert np.isnan(theirs[0])
    assert kendall_tau([1, 2, 3], [1, 3, 2]) == pytest.approx(1 / 3)


def test_tau_ap_is_a_hand_computation() -> None:
    """Reference a b c d. Estimate b a c d: C = 0 of 1, 2 of 2, 3 of 3; 2/3 (0 + 1 + 1) - 1. Estimate a b d c: 1 of 1,
    2 of 2, 2 of 3; 2/3 (1 + 1 + 2/3) - 1. An error at the top costs more."""
    assert tau_ap("abcd", "abcd") == 1.0
    assert tau_ap("abcd", "dcba") == -1.0
    assert tau_ap("abcd", "bacd") == pytest.approx(1 / 3)
    assert tau_ap("abcd", "abdc") == pytest.approx(2 / 3 * (8 / 3) - 1)
    with pytest.raises(InputError, match="same items"):
        tau_ap("abc", "abd")
    with pytest.raises(InputError, match="two items"):
        tau_ap("a", "a")


def test_rbo_is_a_hand_computation() -> None:
    """p = 0.5. a b / b a: overlaps 0, 2: (0.5 / 0.5) (0 + 1 * 0.25) + 1 * 0.25 = 0.5. a b / a c: 1, 1: 0.5 + 0.125 +
    0.5 * 0.25 = 0.75. Of lengths 1 and 2, a / a b: overlaps 1, 1; sum 0.5 + 0.125, beyond the short one 1 * 1 / 2 *
    0.25 = 0.125, beyond both (0 + 1) * 0.25; in all 1."""
    assert rbo("ab", "ba", 0.5) == pytest.approx(0.5)
    assert rbo("ab", "ac", 0.5) == pytest.approx(0.75)
    assert rbo("a", "ab", 0.5) == pytest.approx(1.0)
    assert rbo("abcde", "abcde", 0.9) == pytest.approx(1.0)
    assert rbo("abc", "xyz", 0.9) == 0.0
    assert rbo("abc", "bac", 0.9) == rbo("bac", "abc", 0.9)


def test_rbo_extrapolates_what_an_infinite_list_would_go_on_with() -> None:
    """Agreement stays at its last value for ever: the sum to depth 2000 of (1 - p) p^(d-1) A_d."""
    one, other, p = "abcdef", "bacxyd", 0.8
    seen = [len(set(one[:d]) & set(other[:d])) / d for d in range(1, 7)]
    series = [(1 - p) * p ** (d - 1) * (seen[d - 1] if d <= 6 else seen[-1]) for d in range(1, 2000)]
    assert rbo(one, other, p) == pytest.approx(sum(series))


@pytest.mark.parametrize(("a", "b", "p"), [("ab", "ba", 1.0), ("ab", "ba", 0.0), ("", "a", 0.5), ("aa", "ab", 0.5)])
def test_rbo_refuses_what_is_no_ranking(a: str, b: str, p: float) -> None:
    with pytest.raises(InputError):
        rbo(a, b, p)


def ranking(*doc_ids: str) -> dict[str, float]:
    return {doc_id: -float(i) for i, doc_id in enumerate(doc_ids)}


RUNS: dict[str, Run] = {
    "good": {"q1": ranking("d2"), "q2": ranking("d1"), "q3": ranking("d4")},
    "middling": {"q1": ranking("d2"), "q2": ranking("d4", "d1"), "q3": ranking("d3", "d4")},
    "bad": {"q1": ranking("d3"), "q2": ranking("d2")},
}


def test_the_same_qrels_agree_fully() -> None:
    found = agreement(Judged(QRELS), Judged(QRELS), RUNS, ["RR@5"])["measures"]["RR@5"]
    assert (found["tau"], found["tau_ap"], found["rbo"]) == pytest.approx((1.0, 1.0, 1.0))
    assert (found["tau_low"], found["tau_high"]) == (1.0, 1.0)
    assert [(row["system"], row["a"], row["rank_a"]) for row in found["systems"]] == [
        ("good", 1.0, 1),
        ("middling", pytest.approx(2 / 3), 2),
        ("bad", 0.0, 3),
    ]


def test_qrels_that_reward_the_worst_system_turn_the_order_round() -> None:
    reverse = {"q1": {"d3": 1}, "q2": {"d2": 1}, "q3": {"d3": 1}}
    found = agreement(Judged(QRELS), Judged(reverse), RUNS, ["RR@5"])["measures"]["RR@5"]
    assert [row["rank_b"] for row in found["systems"]] == [3, 2, 1]
    assert found["tau"] == found["tau_ap"] == -1.0
    assert found["rbo"] < 1.0


def test_only_queries_that_both_judge_count_each_by_its_least_relevant_grade() -> None:
    graded = {"q1": {"d2": 1}, "q2": {"d4": 2, "d1": 1}, "q9": {"d1": 2}}
    found = agreement(Judged(QRELS), Judged(graded, relevant_from=2), RUNS, ["RR@5"])
    assert (found["queries"], found["queries_a"], found["queries_b"]) == (1, 3, 2)
    assert [row["b"] for row in found["measures"]["RR@5"]["systems"]] == [0.0, 1.0, 0.0]
    assert found["measures"]["RR@5"]["tied_pairs"] == [0, 1]


def test_systems_that_all_tie_have_no_tau() -> None:
    same = {"one": RUNS["good"], "two": RUNS["good"]}
    found = agreement(Judged(QRELS), Judged(QRELS), same, ["RR@5"])["measures"]["RR@5"]
    assert (found["tau"], found["tau_low"]) == (None, None)


def test_kappa_is_of_the_pairs_that_both_judged_each_by_its_own_least_relevant_grade() -> None:
    """Both have (q1 d2), (q2 d1), (q2 d3), (q3 d4), (q3 d3): a 1 2 1 1 0, b 2 3 0 2 1. Relevant from 1 and from 2:
    1 1 1 1 0 and 1 1 0 1 0, which agree in 4 of 5, by chance in 4/5 3/5 + 1/5 2/5 = 14/25."""
    b = {"q1": {"d2": 2, "d1": 3}, "q2": {"d1": 3, "d3": 0}, "q3": {"d4": 2, "d3": 1}, "q9": {"d1": 1}}
    found = agreement(Judged(QRELS), Judged(b, relevant_from=2), RUNS, ["RR@5"])["labels"]
    assert (found["pairs"], found["pairs_a"], found["pairs_b"]) == (5, 5, 7)
    assert found["kappa"] == pytest.approx((4 / 5 - 14 / 25) / (1 - 14 / 25))
    weighted = cohen_kappa_score([1, 2, 1, 1, 0], [2, 3, 0, 2, 1], weights="quadratic", labels=[0, 1, 2, 3])
    assert found["kappa_quadratic"] == pytest.approx(weighted)


def test_qrels_without_a_common_pair_have_no_kappa() -> None:
    other = {"q1": {"d9": 1}, "q2": {"d9": 1}, "q3": {"d9": 1}}
    found = agreement(Judged(QRELS), Judged(other), RUNS, ["RR@5"])["labels"]
    assert (found["pairs"], found["kappa"], found["kappa_quadratic"]) == (0, None, None)


def test_one_system_or_no_common_query_is_refused() -> None:
    with pytest.raises(InputError, match="at least two"):
        agreement(Judged(QRELS), Judged(QRELS), {"good": RUNS["good"]})
    with pytest.raises(InputError, match="in both"):
        agreement(Judged(QRELS), Judged({"q9": {"d1": 1}}), RUNS)


def test_the_command_compares_runs_and_models_and_draws_them(tmp_path: Path) -> None:
    folder = beir_folder(tmp_path / "beir")
    runs = []
    for name, run in RUNS.items():
        path = tmp_path / f"{name}.run"
        path.write_text("".join(run_lines(run, name)))
        runs += ["--run", str(path)]
    judged = qrels_file(tmp_path / "llm.tsv", {"q1": {"d2": 2}, "q2": {"d1": 1}, "q3": {"d4": 1}})
    given = ["--qrels-a", str(folder / "qrels" / "test.tsv"), "--qrels-b", str(judged), *runs]
    out = ["--json-file", str(tmp_path / "out.json"), "--plot", str(tmp_path / "out.png")]
    models = ["--model", "bm25", "--corpus", str(folder)]
    result = CliRunner().invoke(evaluate_command, ["agreement", *given, *models, *out])
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "out.json").read_bytes())
    assert {row["system"] for row in document["measures"]["AP"]["systems"]} == {"good", "middling", "bad", "bm25"}
    assert (tmp_path / "out.png").read_bytes().startswith(b"\x89PNG")
    assert "3 queries with a relevant document in both" in result.output
    assert "3 pairs in both (5 in a, 3 in b): kappa" in result.output

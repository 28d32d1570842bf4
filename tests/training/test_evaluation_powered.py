"""A judge's qrels made right by a sample that people graded: whole queries or pairs, and what to grade next."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from qrelay.cli.eval.group import evaluate_command
from qrelay.errors import InputError, MalformedInput
from qrelay.formats.annotated_pairs import read_annotated_pairs
from qrelay.formats.beir import Qrels, Run
from qrelay.formats.graded_sample import GradedSample, read_graded_sample
from qrelay.formats.runs import ranked, run_lines
from qrelay.stats.powered import Target, powered_mean
from qrelay.training.evaluation.agreement import Judged
from qrelay.training.evaluation.measures import per_query
from qrelay.training.evaluation.next_grades import drawn_pairs, whole_queries
from qrelay.training.evaluation.pair_sample import Frame, chances_of, influence
from qrelay.training.evaluation.powered import Wanted, needed, powered
from tests.training.beir import lines, qrels_file

DOCS = 30
LEAST = 2


def world(queries: int, seed: int = 0) -> tuple[Qrels, Qrels, dict[str, Run]]:
    """People's grades, a judge's (too kind to bad passages, too strict to good ones, noisy), and two systems."""
    generator = np.random.default_rng(seed)
    people: Qrels = {}
    judge: Qrels = {}
    runs: dict[str, Run] = {"base": {}, "better": {}}
    for q in range(queries):
        hard = generator.random()
        grades = np.minimum(3, generator.geometric(0.3 + 0.5 * hard, DOCS) - 1)
        said = np.clip(np.rint(0.7 * grades + 0.6 + generator.normal(0, 0.7, DOCS)), 0, 3)
        names = [f"d{q}-{d}" for d in range(DOCS)]
        people[f"q{q}"] = dict(zip(names, grades.tolist(), strict=True))
        judge[f"q{q}"] = dict(zip(names, said.astype(int).tolist(), strict=True))
        for name, noise in (("base", 2.0), ("better", 1.2)):
            scores = grades + generator.normal(0, noise, DOCS)
            runs[name][f"q{q}"] = dict(zip(names, scores.tolist(), strict=True))
    return people, judge, runs


def part(qrels: Qrels, queries: list[str]) -> GradedSample:
    return GradedSample({query_id: qrels[query_id] for query_id in queries})


def asked(
    people: GradedSample, judge: Qrels, runs: dict[str, Run], measure: str = "nDCG@10", target: Target = "population"
) -> dict[str, dict[str, Any]]:
    """System -> its row."""
    found = powered(Judged(judge, LEAST), people, runs, [measure], Wanted(target), relevant_from=LEAST)
    return {row["system"]: row for row in found["measures"][measure]}


# --- whole queries ----------------------------------------------------------------------------------------------


def test_a_measure_of_whole_queries_is_a_number_a_query_under_either_labels() -> None:
    people, judge, runs = world(30)
    chosen = sorted(people)[:12]
    row = asked(part(people, chosen), judge, runs)["better"]
    y = per_query({query_id: people[query_id] for query_id in chosen}, runs["better"], ["nDCG@10"])["nDCG@10"]
    f = per_query(judge, runs["better"], ["nDCG@10"])["nDCG@10"]
    there = np.isin(sorted(judge), chosen)
    by_hand = powered_mean(y, f[there], f[~there])
    assert (row["estimate"], row["low"], row["high"]) == (
        by_hand.interval.estimate, by_hand.interval.low, by_hand.interval.high,
    )  # fmt: skip
    assert row["judge_only"] == pytest.approx(f.mean())


def test_a_difference_is_paired_by_query() -> None:
    people, judge, runs = world(60)
    rows = asked(part(people, sorted(people)[:20]), judge, runs)
    assert list(rows) == ["base", "better", "better - base"]
    apart = rows["better - base"]
    assert apart["low"] < apart["estimate"] < apart["high"]
    same = asked(part(people, sorted(people)[:20]), judge, {"one": runs["base"], "two": runs["base"]})["two - one"]
    assert (same["estimate"], same["low"], same["high"]) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("target", ["these", "population"])
def test_intervals_of_ndcg_and_of_differences_cover_the_truth(target: Target) -> None:
    """500 draws of 20 graded queries of 43; the population are 400 queries. 95% nominal, 3 standard errors 2.9
    points: what one draw costs is kept out of it by taking values a query once."""
    people, judge, runs = world(400)
    y = np.array([per_query(people, run, ["nDCG@10"])["nDCG@10"] for run in runs.values()])
    f = np.array([per_query(judge, run, ["nDCG@10"])["nDCG@10"] for run in runs.values()])
    generator = np.random.default_rng(1)
    hits = np.zeros((500, 2))
    for i in range(500):
        rows = generator.permutation(400)[:43] if target == "these" else generator.integers(0, 400, 43)
        for j, (mine, said) in enumerate(((y[1], f[1]), (y[1] - y[0], f[1] - f[0]))):
            found = powered_mean(mine[rows[:20]], said[rows[:20]], said[rows[20:]], target=target).interval
            truth = mine[rows].mean() if target == "these" else mine.mean()
            hits[i, j] = found.low <= truth <= found.high
    assert (np.abs(hits.mean(0) - 0.95) <= 0.03).all(), hits.mean(0)


def test_shallow_measures_need_only_what_runs_put_first() -> None:
    people, judge, runs = world(5)
    first = needed(judge["q0"], "q0", runs, ["P@5", "RR@3"])
    assert 5 <= len(first) <= 10
    assert needed(judge["q0"], "q0", runs, ["P@5", "nDCG@5"]) == set(judge["q0"])
    shallow = {q: {d: people[q][d] for d in needed(judge[q], q, runs, ["P@5"])} for q in ("q0", "q1", "q2", "q3")}
    assert asked(GradedSample(shallow), judge, runs, "P@5")["base"]["estimate"] > 0
    with pytest.raises(InputError, match="4 queries are graded in part"):
        asked(GradedSample(shallow), judge, runs, "R@5")


def test_queries_of_which_nothing_is_graded_yet_are_not_in_the_sample() -> None:
    people, judge, runs = world(20)
    begun = part(people, sorted(people)[:8])
    waiting = GradedSample(begun.grades, open={"q9": set(judge["q9"])})
    assert asked(waiting, judge, runs) == asked(begun, judge, runs)


def test_grades_for_a_width_are_said_in_queries_and_pairs() -> None:
    people, judge, runs = world(200)
    wanted = Wanted("these", 0.05)
    found = powered(Judged(judge), part(people, sorted(people)[:20]), runs, ["nDCG@10"], wanted)
    row = found["measures"]["nDCG@10"][0]
    assert 20 < row["queries_needed"] <= 200
    assert row["pairs_to_grade"] == (row["queries_needed"] - 20) * DOCS


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda g: g | {"q77": {"d1": 1}}, "1 graded queries have no labels of the judge, 'q77' the first"),
        (lambda g: g | {"q9": {"e9": 1}}, "no pair that people graded for the query 'q9' is in a run"),
        (lambda g: g | {"q9": {"d9-1": 1}}, "1 queries are graded in part; 'q9' lacks 29 of 30 pairs"),
        (lambda g: dict(list(g.items())[:2]), "2 units are graded in whole: at least 3"),
        (lambda _: {}, "0 units are graded in whole"),
    ],
)
def test_a_sample_that_cannot_be_used_is_refused_in_words(change: Any, says: str) -> None:
    people, judge, runs = world(20)
    with pytest.raises(InputError, match=says):
        asked(GradedSample(change(part(people, sorted(people)[:8]).grades)), judge, runs)


# --- pairs ------------------------------------------------------------------------------------------------------


def frame_of(judge: Qrels, people: Qrels, drawn: dict[tuple[str, str], float]) -> GradedSample:
    found = GradedSample({})
    for (query_id, doc_id), chance in drawn.items():
        found.grades.setdefault(query_id, {})[doc_id] = people[query_id][doc_id]
        found.inclusion.setdefault(query_id, {})[doc_id] = chance
    return found


@pytest.mark.parametrize("measure", ["P@10", "DCG@10"])
def test_with_every_pair_graded_the_measure_is_peoples_own(measure: str) -> None:
    people, judge, runs = world(12)
    everything = {(q, d): 1.0 for q, grades in judge.items() for d in grades}
    row = asked(frame_of(judge, people, everything), judge, runs, measure, "these")["better"]
    own = per_query(people, runs["better"], [measure], relevant_from=LEAST)[measure].mean()
    assert (row["estimate"], row["low"], row["high"]) == pytest.approx((own, own, own))


@pytest.mark.parametrize("measure", ["P@10", "DCG@10"])
def test_intervals_from_pairs_cover_these_queries_means_and_differences(measure: str) -> None:
    """200 draws of about 300 of 1,290 pairs; 95% nominal, 3 standard errors 4.6 points."""
    people, judge, runs = world(43)
    truth = {
        name: per_query(people, run, [measure], relevant_from=LEAST)[measure].mean() for name, run in runs.items()
    }
    truth["better - base"] = truth["better"] - truth["base"]
    hits = []
    for seed in range(200):
        drawn = drawn_pairs(Judged(judge, LEAST), runs, [measure], 300, seed)
        rows = asked(frame_of(judge, people, drawn), judge, runs, measure, "these")
        hits.append([row["low"] <= truth[name] <= row["high"] for name, row in rows.items()])
    shares = np.mean(hits, axis=0)
    assert (np.abs(shares - 0.95) <= 0.05).all(), shares


@pytest.mark.parametrize("measure", ["RR@10", "nDCG@10", "R@20"])
def test_measures_that_are_no_sums_need_whole_queries(measure: str) -> None:
    people, judge, runs = world(12)
    drawn = {(q, d): 1.0 for q, grades in judge.items() for d in grades}
    with pytest.raises(InputError, match=f"{measure} cannot be had from a sample of pairs"):
        asked(frame_of(judge, people, drawn), judge, runs, measure)


def test_pairs_without_a_grade_and_rows_that_are_gone_are_refused() -> None:
    people, judge, runs = world(20)
    drawn = drawn_pairs(Judged(judge), runs, ["P@10"], 200, 0)
    sample = frame_of(judge, people, drawn)
    (query_id, doc_id), *_ = drawn
    sample.open[query_id] = {doc_id}
    with pytest.raises(InputError, match="1 of the pairs that were drawn have no grade"):
        asked(sample, judge, runs, "P@10")
    half = frame_of(judge, people, dict(list(drawn.items())[:50]))
    with pytest.raises(InputError, match=r"the sample stands for about .* pairs, and --qrels has 600"):
        asked(half, judge, runs, "P@10")


def test_pairs_for_a_width_are_about_as_many_as_turn_out_to_be_enough() -> None:
    people, judge, runs = world(43)
    wanted = Wanted("these", 0.05)

    def first(n: int) -> dict[str, Any]:
        drawn = drawn_pairs(Judged(judge, LEAST), runs, ["P@10"], n, 0)
        sample = frame_of(judge, people, drawn)
        rows = powered(Judged(judge, LEAST), sample, runs, ["P@10"], wanted, relevant_from=LEAST)["measures"]["P@10"]
        found: dict[str, Any] = rows[0]
        return found

    told = first(200)
    assert told["high"] - told["low"] > 0.05
    assert 200 < told["pairs_needed"] < 900
    then = first(told["pairs_needed"])
    assert then["high"] - then["low"] == pytest.approx(0.05, rel=0.25)


# --- what to grade next -----------------------------------------------------------------------------------------


def test_probabilities_add_up_follow_influence_and_leave_none_out() -> None:
    moved = np.array([0.0] * 60 + [1.0] * 38 + [50.0] * 2)
    chances = chances_of(moved, 20)
    assert chances.sum() == pytest.approx(20)
    assert chances.min() == pytest.approx(0.02, abs=1e-6)
    assert chances[-1] == 1.0
    assert chances[70] > 10 * chances[0]
    assert chances_of(np.zeros(10), 4).tolist() == [0.4] * 10
    assert chances_of(moved, 500).tolist() == [1.0] * 100


def test_a_larger_sample_of_the_same_seed_holds_the_smaller_one() -> None:
    _, judge, runs = world(20)
    small, large = (drawn_pairs(Judged(judge), runs, ["P@10"], n, 7) for n in (100, 250))
    assert small.keys() < large.keys()
    assert all(large[pair] >= chance for pair, chance in small.items())
    assert small.keys() != drawn_pairs(Judged(judge), runs, ["P@10"], 100, 8).keys()
    few, more = ({q for q, _ in whole_queries(judge, runs, ["nDCG@10"], n, 7)} for n in (5, 9))
    assert few < more
    assert (len(few), len(more)) == (5, 9)


def test_influence_is_highest_at_the_top_of_the_rankings_and_none_below() -> None:
    _, judge, runs = world(6)
    frame = Frame.of(judge, GradedSample({}))
    found = influence(frame, 2, {"base": runs["base"]}, ["DCG@10"])
    for query_id, run in runs["base"].items():
        order = [frame.docs.index(doc_id) for doc_id in ranked(run)]
        assert (np.diff(found[order[:10]]) < 0).all(), query_id
        assert not found[order[10:]].any()


# --- the commands -----------------------------------------------------------------------------------------------


def files(folder: Path) -> tuple[Qrels, list[str], list[str]]:
    """(people's grades, options of the judge's qrels and runs, options of the collection's texts)."""
    people, judge, runs = world(12)
    lines(folder / "corpus.jsonl", [{"_id": d, "text": f"text of {d}"} for g in judge.values() for d in g])
    lines(folder / "queries.jsonl", [{"_id": q, "text": f"what is {q}?"} for q in judge])
    given = ["--qrels", str(qrels_file(folder / "judge.tsv", judge)), "--relevant-from", str(LEAST)]
    for name, run in runs.items():
        (folder / f"{name}.run").write_text("".join(run_lines(run, name)))
        given += ["--run", str(folder / f"{name}.run")]
    return people, given, ["--corpus", str(folder)]


def call(*words: str) -> Result:
    return CliRunner().invoke(evaluate_command, list(words))


def graded(path: Path, people: Qrels, to: Path) -> Path:
    """The file as people give it back."""
    head, *rows = path.read_text().splitlines()
    filled = []
    for row in rows:
        fields = row.split("\t")
        assert fields[2] == "", "a label is shown to people"
        fields[2] = str(people[fields[0]][fields[1]])
        filled.append("\t".join(fields))
    to.write_text("\n".join([head, *filled]) + "\n")
    return to


@pytest.mark.parametrize(("unit", "n", "measure"), [("query", 5, "nDCG@10"), ("pair", 150, "P@10")])
def test_people_fill_in_what_is_drawn_and_get_intervals(tmp_path: Path, unit: str, n: int, measure: str) -> None:
    people, given, texts = files(tmp_path)
    given += ["--measure", measure]
    out = tmp_path / "to-grade.tsv"
    drawn = call("sample", *given, *texts, "--unit", unit, "--n", str(n), "--out", str(out))
    assert drawn.exit_code == 0, drawn.output
    back = graded(out, people, tmp_path / "graded.tsv")
    assert all(pair.grade is not None and pair.text for pair in read_annotated_pairs(back))
    more = ["--people", str(back), "--width", "0.05", "--json-file", str(tmp_path / "out.json")]
    result = call("intervals", *given, *more)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out.json").read_bytes())
    assert (found["unit"], found["target"], found["queries"]) == (unit, "population", 12)
    rows = found["measures"][measure]
    assert [row["system"] for row in rows] == ["base", "better", "better - base"]
    assert all(row["low"] < row["estimate"] < row["high"] for row in rows)
    assert f"unit: {unit}; people graded" in result.output


def test_grades_so_far_are_taken_into_a_larger_sample(tmp_path: Path) -> None:
    people, given, texts = files(tmp_path)
    first, second = tmp_path / "first.tsv", tmp_path / "second.tsv"
    assert call("sample", *given, *texts, "--n", "4", "--out", str(first)).exit_code == 0
    back = graded(first, people, tmp_path / "graded.tsv")
    result = call("sample", *given, *texts, "--n", "6", "--people", str(back), "--out", str(second))
    assert f"{6 * DOCS} pairs of 6 queries, {2 * DOCS} of them to grade" in result.output
    found = read_graded_sample(second)
    assert found.grades == read_graded_sample(back).grades
    assert len(found.open) == 2
    again = call("sample", *given, *texts, "--n", "6", "--out", str(second))
    assert isinstance(again.exception, InputError)
    assert "perhaps with grades in it" in str(again.exception)


def test_a_run_of_other_ids_and_a_scale_that_begins_at_1_are_told(tmp_path: Path) -> None:
    people, given, _ = files(tmp_path)
    strange = tmp_path / "strange.run"
    strange.write_text("".join(f"q{q} Q0 x{q} 1 1.0 strange\n" for q in range(12)))
    raised = {q: {d: grade + 1 for d, grade in grades.items()} for q, grades in people.items()}
    result = call("intervals", *given, "--run", str(strange), "--people", str(qrels_file(tmp_path / "p.tsv", raised)))
    assert result.exit_code == 0, result.output
    assert "strange ranks nothing that is judged" in result.output
    assert "people's lowest grade is 1: gains are the grades, so count them from 0" in result.output


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("query_id\tpassage_id\tgrade\nq1\td1\t1\nq1\td1\t1\n", ":3: the pair of line 2 again"),
        ("query_id\tpassage_id\tgrade\nq1\td1\t-1\n", ":2: the grade -1 is below 0"),
        ("query_id\tpassage_id\tgrade\nq1\t\t1\n", ":2: the query's or the passage's id is empty"),
        ("query_id\tpassage_id\tgrade\tinclusion\nq1\td1\t1\t0\n", ":2: the inclusion 0 is no probability"),
        ("query_id\tpassage_id\tgrade\tinclusion\nq1\td1\t1\tmany\n", ":2: the inclusion 'many' is no number"),
        ("query_id\tpassage_id\tgrade\tinclusion\nq1\td1\t1\t0.5\nq1\td2\t1\t\n", "some pairs have an inclusion"),
    ],
)
def test_a_file_that_is_no_sample_is_refused_by_its_line(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "sample.tsv"
    path.write_text(text)
    with pytest.raises(MalformedInput, match=says):
        read_graded_sample(path)


def test_qrels_are_a_sample_of_whole_queries(tmp_path: Path) -> None:
    path = qrels_file(tmp_path / "people.tsv", {"q1": {"d1": 2, "d2": 0}})
    found = read_graded_sample(path)
    assert (found.unit, found.grades, found.open) == ("query", {"q1": {"d1": 2, "d2": 0}}, {})
    assert not math.isnan(found.grades["q1"]["d1"])

"""`qrelay judge check`: what is planted is found, what is not there is not a figure, and nothing is written."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from qrelay.cli.main import qrelay
from qrelay.errors import ConfigError, InputError, MalformedInput, UnknownCollection
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.check import paraphrases
from qrelay.judging.check.known import read_known
from qrelay.labels.ledger.ledger import Ledger
from qrelay.labels.ledger.overrides import NewOverride, add
from qrelay.types import Candidate, CandidateSet, Graded, JudgedSet, JudgeIdentity, Missing, Passage, Query, Score
from tests.judging.samples import COOKING, COPYTREE, LOCK, QUERY, make_judge
from tests.labels.builders import FUSED, JUDGE, LEANING, graded, judged_set, judgment, relabelled, with_labels

COPIER = replace(JUDGE, model="copier")
RANDOM = replace(JUDGE, model="random")
PASSAGES = 12


def label(p: float) -> Graded:
    """A label on 0-3 whose grade is relevant from P(relevant) 0.5."""
    return graded(min(3, int(4 * p)), p)


def commit(folder: Path, sets: Sequence[JudgedSet]) -> Path:
    folder.mkdir(exist_ok=True)
    ledger = Ledger.open(folder / "ledger.sqlite")
    ledger.commit(sets)
    ledger.close()
    return folder


def planted(folder: Path, labels: Callable[[int, int], float], judge: JudgeIdentity, queries: int = 20) -> Path:
    """A ledger in which `labels(query, rank)` is P(relevant); BM25 and dense rank d0, d1, …"""
    return commit(folder, [one_set(n, [labels(n, i) for i in range(PASSAGES)], judge) for n in range(queries)])


def one_set(number: int, ps: Sequence[float], judge: JudgeIdentity = JUDGE) -> JudgedSet:
    return judged_set(f"q{number}", outcomes=[label(p) for p in ps], judge=judge)


def by_rank(_: int, rank: int) -> float:
    return 1 - (rank + 0.5) / PASSAGES


def invoke(folder: Path, *arguments: str, **settings: str) -> Any:
    given = {"backend": "fake", "strategy": "graded", **settings}
    env: dict[str, str | None] = {f"QRELAY_JUDGE__{name.upper()}": value for name, value in given.items()}
    command = ["judge", "check", "--collection", "docs", "--data-dir", str(folder), *arguments]
    return CliRunner().invoke(qrelay, command, env=env)


def check(folder: Path, *arguments: str, **settings: str) -> dict[str, Any]:
    result = invoke(folder, "--json", *arguments, **settings)
    assert result.exit_code == 0, result.output
    report: dict[str, Any] = json.loads(result.stdout)
    return report


def text(folder: Path, *arguments: str, **settings: str) -> str:
    result = invoke(folder, *arguments, **settings)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def test_a_judge_that_copies_the_retriever_agrees_with_it_best_and_overturns_nothing(tmp_path: Path) -> None:
    folder = planted(tmp_path, by_rank, COPIER)
    for each in check(folder)["retrieval"]:
        assert each["rank_correlation"]["value"] == pytest.approx(1.0)
        assert each["auc"]["value"] == 1.0
        assert each["overturned"]["value"] == 0.0
    assert "orders passages almost as bm25 does: training it on labels that copy it changes nothing" in text(folder)


def test_a_judge_that_copies_the_order_overturns_nothing_wherever_its_threshold_lies(tmp_path: Path) -> None:
    folder = planted(tmp_path, lambda query, rank: by_rank(query, rank) * 0.6, COPIER)
    (bm25, _) = check(folder)["retrieval"]
    assert bm25["overturned"]["value"] == 0.0


def test_a_random_judge_has_nothing_in_common_with_the_retriever(tmp_path: Path) -> None:
    draws = random.Random(3)
    folder = planted(tmp_path, lambda *_: draws.random(), RANDOM, queries=60)
    for each in check(folder)["retrieval"]:
        found = each["rank_correlation"]
        assert found["low"] < 0 < found["high"]
        assert abs(found["value"]) < 0.15
        assert each["overturned"]["value"] > 0.3
    assert "nothing in common with bm25 that can be told from chance" in text(folder)


def test_labels_that_turn_the_order_round_are_counted_one_by_one(tmp_path: Path) -> None:
    ps = [0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1]
    folder = commit(tmp_path, [one_set(0, ps)])
    (bm25, _) = check(folder)["retrieval"]
    misled, missed = 4, 2  # d0, d2, d3, d4 of the first five, and d1 and d7 below them
    assert bm25["overturned"]["value"] == pytest.approx((misled + missed) / len(ps))


def test_a_judge_of_one_opinion_gives_dashes_and_not_zeros(tmp_path: Path) -> None:
    folder = planted(tmp_path, lambda *_: 0.3, JUDGE)
    for each in check(folder)["retrieval"]:
        assert each["flat"] == 20
        assert each["rank_correlation"] == {"value": None, "low": None, "high": None, "n": 0}
        assert each["auc"]["value"] is None
    out = text(folder)
    assert "no rank correlation can be computed: it says the same of every passage of a query" in out
    assert "nan" not in out


def test_a_judge_that_reads_the_scores_is_said_to_agree_by_construction(tmp_path: Path) -> None:
    assert "reads retrieval scores, so that it agrees with bm25 by construction" in text(
        planted(tmp_path, by_rank, LEANING)
    )


def two_judges(folder: Path, other: JudgeIdentity, opinion: Callable[[int, int], float]) -> Path:
    sets = []
    for n in range(20):
        labels = [judgment(f"d{i}#0", label(opinion(n, i)), other) for i in range(PASSAGES)]
        sets.append(with_labels(one_set(n, [by_rank(n, i) for i in range(PASSAGES)], COPIER), *labels))
    return commit(folder, sets)


@pytest.mark.parametrize(
    ("other", "why"),
    [
        (FUSED, "one is made of other judges' labels"),
        (replace(COPIER, prompt_hash="q" * 64, strategy="binary"), "both are the same model"),
    ],
)
def test_judges_that_agree_by_construction_are_named(tmp_path: Path, other: JudgeIdentity, why: str) -> None:
    folder = two_judges(tmp_path, other, by_rank)
    (found,) = check(folder)["judges_together"]
    assert (found["kappa"]["value"], found["disputed"], found["akin"]) == (1.0, 0, why)
    assert f"agree would say little: {why}" in text(folder)


def test_independent_judges_have_their_most_disputed_pairs_named(tmp_path: Path) -> None:
    draws = random.Random(5)
    opinions = {(n, i): draws.random() for n in range(20) for i in range(PASSAGES)}
    opinions[7, 0] = 0.0
    folder = two_judges(tmp_path, RANDOM, lambda n, i: opinions[n, i])
    (found,) = check(folder)["judges_together"]
    assert found["akin"] == ""
    assert found["kappa"]["low"] < 0 < found["kappa"]["high"]
    worst = found["most_disputed"][0]
    assert (worst["query_id"], worst["passage_id"]) == ("q7", "d0#0")
    assert sorted(worst["p"]) == pytest.approx([0.0, by_rank(7, 0)])
    assert "q7 d0#0 (" in text(folder)


def test_two_constant_judges_have_no_kappa(tmp_path: Path) -> None:
    sets = [with_labels(one_set(0, [0.1] * 3), *[judgment(f"d{i}#0", label(0.1), RANDOM) for i in range(3)])]
    (found,) = check(commit(tmp_path, sets))["judges_together"]
    assert (found["pairs"], found["disputed"], found["kappa"]["value"]) == (3, 0, None)


def test_a_judge_asked_again_counts_once_with_its_latest_grade(tmp_path: Path) -> None:
    folder = commit(tmp_path, [one_set(0, [0.9, 0.1, 0.2, 0.3])])
    ledger = Ledger.open(folder / "ledger.sqlite")
    again = replace(judgment("d0#0", label(0.1)), judgment_key="another list")
    ledger.rejudge([relabelled(one_set(0, [0.9, 0.1, 0.2, 0.3]), again)])
    ledger.close()
    (judge,) = check(folder)["judges"].values()
    assert (judge["labels"], judge["relevant"], judge["counted"]) == (4, 0, 4)


KNOWN = [0.95, 0.02, 0.01, 0.01, *[0.01] * 4]
"""d0 is the confident positive; d1 to d4, which BM25 and dense have in their first five, become hard negatives."""


def test_known_answers_among_the_hard_negatives_are_found_and_named(tmp_path: Path) -> None:
    folder = commit(tmp_path, [one_set(n, KNOWN) for n in range(4)])
    known = tmp_path / "clicks.tsv"
    known.write_text("q0\td0#0\nq1\td1#0\nq2\td6#0\nq2\tnever\nq9\td0#0\n")
    found = check(folder, "--known", str(known))["known"]
    counts = ("known", "looked_up", "not_judged", "graded", "refused", "hard", "easy")
    assert [found[name] for name in counts] == [5, 4, 1, 3, 2, 1, 1]
    assert found["share"]["value"] == pytest.approx(2 / 3)
    assert found["share"]["low"] < 2 / 3 < found["share"]["high"]
    assert [(each["query_id"], each["id"], each["mined"]) for each in found["examples"]] == [
        ("q1", "d1#0", "hard"),
        ("q2", "d6#0", "easy"),
    ]
    assert "qrelay mine --collection docs --explain q1" in text(folder, "--known", str(known))
    mined = CliRunner().invoke(
        qrelay, ["mine", "--collection", "docs", "--explain", "q1", "--json", "--data-dir", str(folder)]
    )
    roles = {row["passage_id"]: row["role"] for row in json.loads(mined.stdout)["candidates"]}
    assert roles["d1#0"] == "negative", "the check and `qrelay mine` must mean the same"


def test_a_known_document_is_found_by_any_of_its_passages(tmp_path: Path) -> None:
    folder = commit(tmp_path, [one_set(0, KNOWN)])
    known = tmp_path / "known.tsv"
    known.write_text("query\tdoc_id\ntext of q0\td0\ntext of q0\td3\n")
    found = check(folder, "--known", str(known))["known"]
    assert (found["graded"], found["refused"], found["hard"]) == (2, 1, 1)


def test_a_known_answer_whose_label_is_missing_is_neither_refused_nor_fine(tmp_path: Path) -> None:
    folder = commit(tmp_path, [judged_set("q0", outcomes=[label(0.9), Missing("timeout", "no answer")])])
    known = tmp_path / "known.tsv"
    known.write_text("q0\td1#0\n")
    found = check(folder, "--known", str(known))["known"]
    assert (found["missing"], found["graded"], found["share"]["value"]) == (1, 0, None)


def test_people_are_asked_where_no_file_is_given(tmp_path: Path) -> None:
    folder = commit(tmp_path, [one_set(0, KNOWN)])
    assert "No answers are known" in text(folder)
    ledger = Ledger.open(folder / "ledger.sqlite")
    with ledger.writing("record overrides") as connection:
        said = [NewOverride("q0", "d2#0", 3, "0-3", "ana"), NewOverride("q0", "d3#0", 0, "0-3", "ana")]
        add(connection, "docs", said, ledger.now_us())
    ledger.close()
    found = check(folder)["known"]
    assert (found["source"], found["known"], found["refused"], found["hard"]) == ("people", 1, 1, 1)


@pytest.mark.parametrize(
    "lines",
    ["q1 0 d1#0 2\nq1 0 d2#0 0\n", "query-id\tcorpus-id\tscore\nq1\td1#0\t2\nq1\td2#0\t0\n",
     "passage_id\tgrade\tnote\tquery_id\nd1#0\t3\t\tq1\nd2#0\t\tx\tq1\n", "q1\td1#0\n"],
)  # fmt: skip
def test_known_answers_are_read_in_the_usual_formats(tmp_path: Path, lines: str) -> None:
    file = tmp_path / "known"
    file.write_text(lines)
    assert read_known(file) == {"q1": ["d1#0"]}


def test_two_columns_may_give_the_querys_whole_text(tmp_path: Path) -> None:
    (tmp_path / "known").write_text("how do cats\td1#0\nwhat is\td2#0\n")
    assert read_known(tmp_path / "known") == {"how do cats": ["d1#0"], "what is": ["d2#0"]}
    (tmp_path / "known").write_text("how do cats\td1#0\nno tab\n")
    with pytest.raises(MalformedInput, match="known:2: 1 fields for 2"):
        read_known(tmp_path / "known")


@pytest.mark.parametrize("lines", ["one column\n", "q1 0 d1 2\nq1 0 d1\n", "q1 0 d1 2\nq1 0 d1 two\n", ""])
def test_a_file_of_known_answers_that_does_not_hold_is_refused_with_its_line(tmp_path: Path, lines: str) -> None:
    file = tmp_path / "known"
    file.write_text(lines)
    with pytest.raises(MalformedInput, match="known"):
        read_known(file)


def texts(*, title: str = "On trees") -> list[JudgedSet]:
    passages = [Passage(f"d{n}#0", f"d{n}", title, each) for n, each in enumerate((COPYTREE, LOCK, COOKING))]
    candidates = tuple(Candidate(each, (Score("bm25", 3.0 - n, n + 1),), True) for n, each in enumerate(passages))
    labels = [judgment(each.passage_id, label(p)) for each, p in zip(passages, (0.9, 0.4, 0.1), strict=True)]
    sets = []
    for n in range(3):
        query = Query(f"q{n}", f"{n} {QUERY}", "docs")
        sets.append(JudgedSet(CandidateSet(query, candidates, "v1"), tuple(labels)))
    return sets


def test_the_judge_is_asked_again_and_each_change_has_its_figures(tmp_path: Path) -> None:
    folder = commit(tmp_path, texts())
    result = invoke(folder, "--json", "--paraphrases", "6")
    assert "asking about 6 pairs in 8 versions: about 4,800 prompt tokens" in result.stderr
    found = json.loads(result.stdout)["paraphrases"]
    by_name = {each["rewrite"]: each for each in found["rewrites"]}
    assert by_name.keys() == paraphrases.REWRITES.keys()
    assert all(each["pairs"] == 6 for each in found["rewrites"])
    assert by_name["text with double blanks"]["mean_change"]["value"] == 0.0, "the fake judge reads words"
    moved = by_name["query after 'Please tell me:'"]["mean_change"]["value"]
    assert moved > 0.0, "the fake judge counts the query's words"


def test_what_was_asked_before_comes_from_the_cache(tmp_path: Path) -> None:
    folder = commit(tmp_path, texts())
    first = check(folder, "--paraphrases", "6")["paraphrases"]
    cache = SqlCache(str(folder / "judge-cache.sqlite"))
    labels = cache.stats().labels
    cache.close()
    assert labels == 6 * 8
    again = check(folder, "--paraphrases", "6", fake__failure_rate="1.0")["paraphrases"]
    assert again == first, "an engine that fails is not asked"


def test_a_pair_that_a_change_leaves_as_it_is_is_not_asked_with_it(tmp_path: Path) -> None:
    found = check(commit(tmp_path, texts(title="")), "--paraphrases", "9")["paraphrases"]
    assert {each["rewrite"] for each in found["rewrites"]} == paraphrases.REWRITES.keys() - {
        "no title",
        "title said again before the text",
    }


def test_a_judge_that_fails_has_missing_pairs_and_no_zeros(tmp_path: Path) -> None:
    folder = commit(tmp_path, texts())
    found = check(folder, "--paraphrases", "6", fake__failure_rate="1.0")["paraphrases"]
    assert {(each["pairs"], each["missing"], each["mean_change"]["value"]) for each in found["rewrites"]} == {
        (0, 6, None)
    }
    assert "gave no grade to compare" in text(folder, "--paraphrases", "6", fake__failure_rate="1.0")


def test_a_budget_ends_the_asking_and_is_said(tmp_path: Path) -> None:
    folder = commit(tmp_path, texts())
    found = check(folder, "--paraphrases", "9", budget__tokens_per_run="700")["paraphrases"]
    assert "budget used up" in found["stopped"]
    assert "It ended early: budget used up" in text(folder, "--paraphrases", "9", budget__tokens_per_run="700")


def test_a_judge_that_did_not_label_is_told(tmp_path: Path) -> None:
    out = text(commit(tmp_path, texts()), "--paraphrases", "3")
    assert "fake-judge@1:none made none of the ledger's labels: is this the right --config?" in out


async def test_flips_are_those_across_a_half(tmp_path: Path) -> None:
    (each, *_) = texts()
    answer = await paraphrases.ask(make_judge(), [each.candidate_set])
    (name,) = answer["judges"]
    flips = {one["rewrite"]: one["flips"]["value"] for one in answer["rewrites"] if one["judge"] == name}
    assert flips["text with double blanks"] == 0.0
    assert flips["query in lower case"] == 0.0


def test_nothing_is_loaded_unless_paraphrases_are_asked_for(tmp_path: Path) -> None:
    found = check(commit(tmp_path, texts()), backend="transformers", model="no-such-model")["paraphrases"]
    assert (found["asked"], found["sampled"], found["rewrites"]) == (False, 9, [])
    assert not (tmp_path / "judge-cache.sqlite").exists()


def test_one_query_is_told_to_say_nothing_yet(tmp_path: Path) -> None:
    assert "on one query only: that says nothing yet" in text(
        planted(tmp_path, lambda _, rank: [0.9, 0.2, 0.8, 0.1, 0.3][rank % 5], JUDGE, queries=1)
    )


def test_a_collection_without_a_grade_gives_sentences(tmp_path: Path) -> None:
    out = text(commit(tmp_path, [judged_set(outcomes=[Missing("timeout", "no answer")] * 3)]), "--paraphrases", "5")
    for said in (
        "No label has a grade.",
        "No label with a grade has a retrieval score",
        "No pair was graded by two judges",
        "There is no label with a grade to ask about again",
        "No answers are known",
    ):
        assert said in out


def test_what_is_not_there_is_refused_in_words(tmp_path: Path) -> None:
    assert isinstance(invoke(tmp_path).exception, ConfigError)
    folder = commit(tmp_path, [one_set(0, KNOWN)])
    assert isinstance(invoke(folder, "--judge", "nobody").exception, InputError)
    wrong = (
        CliRunner().invoke(qrelay, ["judge", "check", "--collection", "dcos", "--data-dir", str(folder)]).exception
    )
    assert isinstance(wrong, UnknownCollection)


def test_the_page_says_the_same_and_escapes_what_it_shows(tmp_path: Path) -> None:
    odd = replace(COPIER, model="<script>")
    page = tmp_path / "check.html"
    out = text(planted(tmp_path, by_rank, odd), "--html", str(page))
    html = page.read_text("utf8")
    assert "<script>" in out
    assert "<script>" not in html
    for said in ("Agreement with retrieval scores", "qualifies nothing", "rank correlation"):
        assert said in out
        assert said in html


def fingerprints(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm"))
    }


def exported(folder: Path, out: Path, **settings: str) -> tuple[int, str, str]:
    """(exit code, why it is refused, the manifest without its time) of an export of training data."""
    result = CliRunner().invoke(
        qrelay,
        ["export", "triples", "--collection", "docs", "--data-dir", str(folder), "--out", str(out), "--json"],
        env=settings,
    )
    manifest = json.loads(result.stdout) if result.exit_code == 0 else {}
    return result.exit_code, str(result.exception), json.dumps(manifest.get("qualification"))


def test_training_data_of_an_unmeasured_judge_stays_refused_after_the_best_check_there_can_be(tmp_path: Path) -> None:
    folder = planted(tmp_path / "here", lambda _, rank: 0.95 if rank == 0 else 0.01, COPIER)
    refused = exported(folder, tmp_path / "before.jsonl")
    assert refused[0] != 0
    assert "--unmeasured" in refused[1]
    files = fingerprints(folder)
    report = check(folder)
    assert report["qualifies"] is False
    assert "This is a diagnosis: it qualifies nothing" in text(folder)
    assert fingerprints(folder) == files, "no report, no setting, no label"
    assert exported(folder, tmp_path / "after.jsonl") == refused


def test_a_check_named_as_a_qualification_is_refused_as_one(tmp_path: Path) -> None:
    folder = planted(tmp_path / "here", lambda _, rank: 0.95 if rank == 0 else 0.01, COPIER)
    path = tmp_path / "check.json"
    path.write_text(json.dumps(check(folder)))
    code, why, _ = exported(folder, tmp_path / "out.jsonl", QRELAY_SINK__QUALIFICATION=str(path))
    assert code != 0
    assert "check.json" in why

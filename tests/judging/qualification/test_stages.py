"""Retrieval scores of graded pairs, and the labels of real (fake) judges gathered beside them."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import InvalidQuery, ModelError
from qrelay.formats.annotated_pairs import GradedPair, read_beir
from qrelay.judging.cache import NoCache
from qrelay.judging.cache_sql import SqlCache
from qrelay.judging.judge import Judge
from qrelay.judging.panel import Panel
from qrelay.judging.qualification.stages import StageOptions, score_pairs
from qrelay.judging.qualification.table import candidate_sets, measure, missing_count
from qrelay.judging.strategies import make_strategy
from qrelay.llm.fake import FakeBackend
from qrelay.models.embedder import HashEmbedder, load_embedder
from qrelay.terms import K1, B, tokenize
from qrelay.types import Candidate
from tests.conftest import SHARED_DATA
from tests.judging.samples import COOKING, COPYTREE, LOCK, NOW, QUERY

TITLE = "How to copy a directory"
PAIRS = [
    GradedPair("q1", "a", 1, QUERY, TITLE, COPYTREE),
    GradedPair("q2", "a", 0, "How long do tomatoes simmer?", TITLE, COPYTREE),
    GradedPair("q1", "b", 0, QUERY, "", LOCK),
    GradedPair("q2", "c", None, "How long do tomatoes simmer?", "", COOKING, ("twenty minutes",)),
]


# --- retrieval scores -------------------------------------------------------------------------------------------


def test_dense_scores_are_the_embedders_products_of_query_and_titled_passage() -> None:
    told: list[str] = []
    found = score_pairs(PAIRS, StageOptions(["hash"]), told.append)
    query, titled, plain = load_embedder("hash").encode([QUERY, f"{TITLE}\n{COPYTREE}", LOCK], "document")
    assert list(found) == ["dense"]
    assert found["dense"][[0, 2]].tolist() == [query @ titled, query @ plain]
    assert told == ["dense scores"]


def test_a_second_embedder_is_a_system_of_its_own_beside_the_retrievers() -> None:
    sizes = {"hash": 64, "narrow": 8}
    options = StageOptions(["hash", "narrow", "hash"], load=lambda name: HashEmbedder(sizes[name]))
    found = score_pairs(PAIRS, options, lambda _: None)
    assert list(found) == ["dense", "dense:narrow"]
    query, titled = HashEmbedder(8).encode([QUERY, f"{TITLE}\n{COPYTREE}"], "document")
    assert found["dense:narrow"][0] == query @ titled
    assert found["dense"].tolist() == score_pairs(PAIRS, StageOptions(["hash"]), lambda _: None)["dense"].tolist()


def test_bm25_is_lucenes_formula_over_the_whole_corpus() -> None:
    corpus = [("", "copy a file"), ("", "a tree of files"), (TITLE, COPYTREE), ("", "tomatoes")]
    found = score_pairs(PAIRS, StageOptions((), corpus), lambda _: None)["bm25"]
    documents = [tokenize(text) for text in ("copy a file", "a tree of files", f"{TITLE}\n{COPYTREE}", "tomatoes")]
    documents += [tokenize(LOCK), tokenize(COOKING)]
    mean = sum(map(len, documents)) / len(documents)

    def by_hand(query: str, terms: list[str]) -> float:
        score = 0.0
        for term in tokenize(query):
            df, tf = sum(term in d for d in documents), terms.count(term)
            idf = math.log(1 + (len(documents) - df + 0.5) / (df + 0.5))
            score += idf * tf / (tf + K1 * (1 - B + B * len(terms) / mean))
        return score

    wanted = [by_hand(each.query, documents[n]) for each, n in zip(PAIRS, (2, 2, 4, 5), strict=True)]
    assert found == pytest.approx(wanted, abs=1e-5)
    assert found[0] > found[2]
    assert found[3] > 0


def test_a_query_of_unknown_words_scores_nothing() -> None:
    (found,) = score_pairs(
        [replace(PAIRS[0], query="xyzzy plugh")], StageOptions((), [("", "copy")]), lambda _: None
    )["bm25"]
    assert found == 0.0


def test_without_embedder_and_corpus_there_are_no_scores() -> None:
    assert score_pairs(PAIRS, StageOptions([""]), lambda _: None) == {}


def test_an_embedder_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError):
        score_pairs(PAIRS, StageOptions([f"path:{tmp_path / 'absent'}"]), lambda _: None)


# --- gathering labels -------------------------------------------------------------------------------------------


def panel_of(backend: FakeBackend, cache: SqlCache | None = None, *strategies: str) -> Panel:
    store = cache or NoCache()
    return Panel(
        {
            name: Judge(backend, make_strategy(name, "0-3"), store, clock=lambda: NOW)
            for name in strategies or ("graded", "query_likelihood")
        },
        store,
    )


def test_pairs_become_one_set_a_query_with_the_scores_that_are_there() -> None:
    first, second = candidate_sets(PAIRS, {"dense": np.array([1.0, np.nan, 3.0, 4.0])})
    assert [c.passage.passage_id for c in first.candidates] == ["a", "b"]
    assert [c.passage.passage_id for c in second.candidates] == ["a", "c"]
    assert all(c.sampled for each in (first, second) for c in each.candidates)

    def dense(c: Candidate) -> float | None:
        score = c.score("dense")
        return score.score if score else None

    assert [dense(c) for c in (*first.candidates, *second.candidates)] == [1.0, 3.0, None, 4.0]


async def test_every_judges_labels_stand_in_the_pairs_order() -> None:
    done: list[int] = []
    table = await measure(panel_of(FakeBackend()), PAIRS, {}, 1, done.append)
    assert sorted(table.labels) == ["graded", "query_likelihood"]
    for name, labels in table.labels.items():
        assert [each.passage_id for each in labels] == ["a", "a", "b", "c"]
        assert {each.judge.strategy for each in labels} == {name}
        assert table.cost(name) > 0
    assert table.column("graded")[0] > table.column("graded")[1]
    assert table.graded.tolist() == [0, 1, 2]
    assert sum(done) == len(PAIRS)


async def test_a_second_run_asks_the_backend_nothing(tmp_path: Path) -> None:
    first, second = FakeBackend(), FakeBackend()
    cache = SqlCache(str(tmp_path / "cache.sqlite"))
    fresh = await measure(panel_of(first, cache), PAIRS, {}, 1)
    again = await measure(panel_of(second, cache), PAIRS, {}, 1)
    cache.close()
    assert first.asked > 0
    assert second.asked == 0
    for name in fresh.labels:
        assert again.column(name).tolist() == fresh.column(name).tolist()
        assert again.cost(name) == 0


async def test_labels_that_fail_are_nan_and_counted_never_a_grade() -> None:
    table = await measure(panel_of(FakeBackend(failure_rate=1.0), None, "graded"), PAIRS, {}, 1)
    assert missing_count(table.labels["graded"]) == len(PAIRS)
    assert np.isnan(table.column("graded")).all()
    assert np.isnan(table.p_relevant("graded")).all()
    assert not table.own_decision("graded").any()


async def test_a_query_that_cannot_be_judged_ends_it() -> None:
    with pytest.raises(InvalidQuery, match="q1"):
        await measure(panel_of(FakeBackend()), [replace(PAIRS[0], query=" ")], {}, 1)


# --- real grades ------------------------------------------------------------------------------------------------


def test_liveqa_med_holds_1041_pairs_of_which_111_are_relevant_from_3() -> None:
    folder = SHARED_DATA / "liveqa-med"
    if not folder.exists():
        pytest.skip(f"no LiveQA-Med in {folder}")
    pairs = read_beir(folder, folder / "queries.dev.jsonl", folder / "qrels.dev.tsv")
    grades = [pair.grade for pair in pairs if pair.grade is not None]
    assert len(grades) == len(pairs) == 1041
    assert sum(grade >= 3 for grade in grades) == 111
    assert len({pair.query_id for pair in pairs}) == 50
    assert max(len(pair.text.split()) for pair in pairs) == 160

"""The retriever's core: exact ranks, invariance, bad queries, hot swap, the synthetic double."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from math import log
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import CorpusIndexError, InputError, InvalidQuery, UnknownCollection
from qrelay.index.bm25 import Bm25
from qrelay.index.build import BuildResult
from qrelay.index.corpus import read_corpus
from qrelay.index.settings import RetrieverSettings
from qrelay.index.store import PassageStore
from qrelay.index.stored import VECTORS
from qrelay.models.embedder import Embedder, load_embedder
from qrelay.services.retriever.retriever import Retriever, load_retriever
from qrelay.terms import tokenize
from qrelay.text import passage_text
from qrelay.types import BM25, DENSE, CandidateSet, Passage, Query
from tests.index.documents import WORDS, made_up

Build = Callable[..., BuildResult]


def ask(text: str, collection: str = "tiny", query_id: str = "q") -> Query:
    return Query(query_id, text, collection)


def found(retriever: Retriever, text: str, limit: int | None = None) -> CandidateSet:
    (result,) = retriever.retrieve([ask(text)], limit)
    assert isinstance(result, CandidateSet)
    return result


QUERIES = [" ".join(WORDS[(7 * n + 3 * k) % 300] for k in range(1 + n % 6)) for n in range(40)]


def all_passages(folder: Path) -> list[Passage]:
    store = PassageStore(folder)
    return store.passages(np.arange(len(store)))


def bm25_reference(passages: list[Passage], text: str) -> dict[str, float]:
    """The formula, term by term (Kamphuis et al., ECIR 2020, "lucene")."""
    terms = [tokenize(passage_text(p.title, p.text)) for p in passages]
    mean = sum(map(len, terms)) / len(terms)
    scores: dict[str, float] = {}
    for passage, own in zip(passages, terms, strict=True):
        total = 0.0
        for term in tokenize(text):
            df, tf = sum(term in other for other in terms), own.count(term)
            idf = log(1 + (len(terms) - df + 0.5) / (df + 0.5))
            total += idf * tf / (0.9 * (1 - 0.4 + 0.4 * len(own) / mean) + tf)
        scores[passage.passage_id] = total
    return scores


def top(scores: dict[str, float], k: int) -> list[str]:
    def key(item: tuple[str, float]) -> tuple[float, str, int]:
        doc_id, _, number = item[0].rpartition("#")
        return (-round(item[1], 5), doc_id, int(number))

    return [name for name, _ in sorted(scores.items(), key=key)[:k]]


def test_scores_and_ranks_are_those_of_a_brute_force_reference(
    build: Build, settings: RetrieverSettings, embedder: Embedder
) -> None:
    folder = build(made_up(40)).folder
    small = settings.model_copy(update={"bm25_top_k": 20, "dense_top_k": 10})
    passages, retriever = all_passages(folder), load_retriever(small)
    vectors = embedder.encode([passage_text(p.title, p.text) for p in passages], "document").astype(np.float64)
    for text in QUERIES[:8]:
        query = embedder.encode([text], "query")[0].astype(np.float64)
        dense = {p.passage_id: float(vector @ query) for p, vector in zip(passages, vectors, strict=True)}
        bm25 = bm25_reference(passages, text)
        by_bm25 = [name for name in top(bm25, 20) if bm25[name] > 0]
        by_dense = top(dense, 10)
        candidates = {c.passage.passage_id: c for c in found(retriever, text).candidates}
        assert set(candidates) == set(by_bm25) | set(by_dense)
        for name, candidate in candidates.items():
            lexical, vector_score = candidate.score(BM25), candidate.score(DENSE)
            assert lexical is not None and vector_score is not None
            assert lexical.score == pytest.approx(bm25[name], abs=2e-5)
            assert vector_score.score == pytest.approx(dense[name], abs=1e-5)
            assert vector_score.rank == (by_dense.index(name) + 1 if name in by_dense else 0)
            assert lexical.rank == (by_bm25.index(name) + 1 if name in by_bm25 else 0)


def test_the_streamed_postings_are_those_that_bm25s_builds_itself(build: Build) -> None:
    import bm25s

    folder = build(made_up(60)).folder
    own = bm25s.BM25(k1=0.9, b=0.4)
    own.index([tokenize(passage_text(p.title, p.text)) for p in all_passages(folder)], show_progress=False)
    ours = Bm25.load(folder / "bm25")
    for text in QUERIES:
        expected = own.get_scores_from_ids(own.get_tokens_ids(tokenize(text)))
        np.testing.assert_allclose(ours.scores(text), expected, rtol=1e-5, atol=1e-6)


def test_candidates_come_by_reciprocal_rank_fusion_without_repeats(retriever: Retriever) -> None:
    candidates = found(retriever, QUERIES[5]).candidates
    ranks = [[s.rank for s in c.scores if s.rank] for c in candidates]
    fused = [sum(1 / (60 + rank) for rank in own) for own in ranks]
    assert fused == sorted(fused, reverse=True)
    assert len({c.passage.passage_id for c in candidates}) == len(candidates)
    assert all(own for own in ranks)
    assert {s.system for c in candidates for s in c.scores} == {BM25, DENSE}


def test_a_batch_equals_batches_of_one_and_of_any_size(retriever: Retriever) -> None:
    queries = [ask(text, query_id=f"q{n}") for n, text in enumerate(QUERIES)]
    together = retriever.retrieve(queries)
    singly = [retriever.retrieve([query])[0] for query in queries]
    by_seven = [r for n in range(0, len(queries), 7) for r in retriever.retrieve(queries[n : n + 7])]
    assert together == singly == by_seven == list(reversed(retriever.retrieve(queries[::-1])))


def test_threads_sharing_a_retriever_get_the_same_answers(retriever: Retriever) -> None:
    queries = [ask(text, query_id=f"q{n}") for n, text in enumerate(QUERIES)]
    expected, answers = retriever.retrieve(queries), []
    threads = [threading.Thread(target=lambda: answers.append(retriever.retrieve(queries))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [expected] * 4


def test_equal_scores_are_ordered_by_passage_id(build: Build, settings: RetrieverSettings) -> None:
    names = [f"d{number}" for number in (5, 3, 11, 1, 10, 2)]
    build([{"_id": name, "text": "the very same words"} for name in names])
    few = load_retriever(settings.model_copy(update={"bm25_top_k": 3, "dense_top_k": 3}))
    assert [c.passage.doc_id for c in found(few, "same words").candidates] == ["d1", "d10", "d11"]


def test_max_candidates_cuts_and_zero_means_the_setting(retriever: Retriever) -> None:
    whole = found(retriever, QUERIES[5]).candidates
    assert found(retriever, QUERIES[5], 3).candidates == whole[:3]
    assert found(retriever, QUERIES[5], 0).candidates == whole
    assert len(whole) == 100


def test_a_query_without_a_known_word_still_has_dense_candidates(retriever: Retriever) -> None:
    candidates = found(retriever, "zzzz qqqq").candidates
    assert candidates
    assert all(c.score(BM25).rank == 0 and c.score(BM25).score == 0 for c in candidates)  # type: ignore[union-attr]


def test_bad_queries_fail_alone_and_say_what_to_do(retriever: Retriever) -> None:
    queries = [
        ask(QUERIES[0]),
        ask("  \n "),
        ask("x" * 100_000),
        ask("hello", "other"),
        ask("\ud800"),
        ask(QUERIES[1]),
    ]
    good, empty, long, unknown, surrogate, last = retriever.retrieve(queries)
    assert isinstance(good, CandidateSet) and isinstance(last, CandidateSet)
    assert isinstance(empty, InvalidQuery) and "empty" in str(empty)
    assert isinstance(long, InvalidQuery) and "100,000" in str(long) and "8,192" in str(long)
    assert "retriever.max_query_chars" in str(long)
    assert isinstance(surrogate, InvalidQuery)
    assert isinstance(unknown, UnknownCollection) and "'other'" in str(unknown) and "tiny" in str(unknown)
    assert good == retriever.retrieve(queries[:1])[0]


def test_no_queries_no_answers(retriever: Retriever) -> None:
    assert retriever.retrieve([]) == []


def test_it_starts_without_an_index_and_takes_up_the_first_one(build: Build, settings: RetrieverSettings) -> None:
    retriever = load_retriever(settings)
    (before,) = retriever.retrieve([ask("word1")])
    assert isinstance(before, UnknownCollection) and "none yet" in str(before)
    assert "no index" in retriever.info().details["note"]
    version = build(made_up(30)).manifest.version
    assert found(retriever, "word1").index_version == version


def test_a_new_version_is_taken_up_and_a_broken_one_leaves_the_old_in_service(
    build: Build, settings: RetrieverSettings
) -> None:
    first = build(made_up(30)).manifest.version
    retriever = load_retriever(settings)
    assert found(retriever, "word1").index_version == first
    second = build(made_up(31))
    assert found(retriever, "word1").index_version == second.manifest.version
    third = build(made_up(32))
    (third.folder / VECTORS).unlink()
    assert found(retriever, "word1").index_version == second.manifest.version
    assert VECTORS in retriever.info().details["collection.tiny.problem"]
    assert retriever.info().details["collection.tiny.version"] == second.manifest.version


def test_a_collection_that_cannot_be_loaded_stops_the_start(build: Build, settings: RetrieverSettings) -> None:
    path = build(made_up(30)).folder / VECTORS
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(CorpusIndexError, match=rf"{VECTORS} has \d+ bytes instead of \d+; remove"):
        load_retriever(settings)


def test_an_index_that_was_mended_is_taken_up_again(build: Build, settings: RetrieverSettings) -> None:
    build(made_up(30))
    retriever = load_retriever(settings)
    broken = build(made_up(31)).folder
    (broken / VECTORS).unlink()
    assert found(retriever, "word1").index_version != broken.name
    (broken / "manifest.json").unlink()
    build(made_up(31))
    assert found(retriever, "word1").index_version == broken.name
    assert not [name for name in retriever.info().details if name.endswith("problem")]


def test_a_flipped_byte_is_found_by_the_full_check(build: Build, settings: RetrieverSettings) -> None:
    path = build(made_up(30)).folder / "texts.bin"
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(CorpusIndexError, match=r"texts\.bin is corrupt"):
        load_retriever(settings.model_copy(update={"verify": "full"}))


def test_an_index_of_another_model_is_refused_and_both_are_named(build: Build, settings: RetrieverSettings) -> None:
    class Other:
        name, fingerprint, dim = "other", "other@1", load_embedder("hash").dim
        encode = staticmethod(load_embedder("hash").encode)
        windows = staticmethod(load_embedder("hash").windows)
        unknown = staticmethod(load_embedder("hash").unknown)

    build(made_up(3), by=Other())
    with pytest.raises(CorpusIndexError, match=r"model other@1, this service runs hash"):
        load_retriever(settings)


def test_a_query_with_nul_is_refused_before_anything_is_paid_for_it(retriever: Retriever) -> None:
    for query in (ask("word1 \0"), ask("word1", query_id="q\0")):
        (refused,) = retriever.retrieve([query])
        assert isinstance(refused, InvalidQuery) and "NUL" in str(refused)


def test_only_the_named_collections_are_served(build: Build, settings: RetrieverSettings) -> None:
    build(made_up(3), "one")
    build(made_up(4), "two")
    both = load_retriever(settings)
    assert [type(r) for r in both.retrieve([ask("word1", "one"), ask("word1", "two")])] == [CandidateSet] * 2
    one = load_retriever(settings.model_copy(update={"collections": ("one",)}))
    assert isinstance(one.retrieve([ask("word1", "two")])[0], UnknownCollection)


def test_texts_are_embedded_by_the_model_that_serves(retriever: Retriever, embedder: Embedder) -> None:
    for kind in ("query", "document"):
        model, vectors = retriever.embed(["word1 word2", "another"], kind, "tiny")
        assert model == retriever.fingerprint
        np.testing.assert_array_equal(vectors, embedder.encode(["word1 word2", "another"], kind))
        np.testing.assert_array_equal(retriever.embed(["word1 word2", "another"], kind)[1], vectors)


def test_what_cannot_be_embedded_says_why(retriever: Retriever) -> None:
    with pytest.raises(InvalidQuery, match="text 1 is empty"):
        retriever.embed(["word1", " "], "query")
    with pytest.raises(UnknownCollection, match="there are: tiny"):
        retriever.embed(["word1"], "query", "other")
    with pytest.raises(InputError, match="embeds nothing"):
        load_retriever(RetrieverSettings(engine="synthetic")).embed(["word1"], "query")


def test_a_retriever_without_an_index_embeds_with_the_model_for_the_first(settings: RetrieverSettings) -> None:
    model, vectors = load_retriever(settings).embed(["word1"], "document")
    assert model == load_embedder("hash").fingerprint
    assert len(vectors) == 1


def test_info_names_model_version_and_counts(retriever: Retriever) -> None:
    info = retriever.info()
    assert info.models == {"embedder": retriever.fingerprint}
    assert info.details["collection.tiny.documents"] == "120"
    assert {"collection.tiny.version", "collection.tiny.passages", "engine"} <= set(info.details)


def test_the_synthetic_engine_needs_no_model_and_is_a_function_of_the_text() -> None:
    def no_model(name: str, **options: object) -> Embedder:
        raise AssertionError("no model is needed")

    settings = RetrieverSettings(engine="synthetic")
    first, second = load_retriever(settings, no_model), load_retriever(settings, no_model)
    queries = [ask(text, "anything", f"q{n}") for n, text in enumerate(QUERIES)]
    results = first.retrieve(queries)
    assert results == second.retrieve(queries)
    for result in results:
        assert isinstance(result, CandidateSet)
        assert len(result.candidates) == 100
        assert all(1000 <= len(c.passage.text) <= 1100 for c in result.candidates)
        assert Counter(len(c.scores) for c in result.candidates) == {2: 100}
    assert isinstance(first.retrieve([ask(" ", "anything")])[0], InvalidQuery)
    named = load_retriever(settings.model_copy(update={"collections": ("one",)}), no_model)
    assert isinstance(named.retrieve([ask("x", "two")])[0], UnknownCollection)
    assert named.fingerprint == "synthetic"


def test_a_batch_equals_singles_with_the_real_model(build: Build, settings: RetrieverSettings) -> None:
    """Scores within 1e-4: a padded batch and a single query are not the same sums of float32."""
    real = load_embedder("all-MiniLM-L6-v2")
    documents = list(read_corpus("python-docs:json,random,shlex", print))[:24]
    rows = [{"_id": each.doc_id, "title": each.title, "text": each.text} for each in documents]
    build([row | {"text": row["text"][:300]} for row in rows], by=real)
    retriever = load_retriever(settings, lambda name, **options: real)
    queries = [ask(f"What is {row['title']} and {n} more?", query_id=f"q{n}") for n, row in enumerate(rows[::3])]
    for query, together in zip(queries, retriever.retrieve(queries), strict=True):
        alone = found(retriever, query.text)
        assert isinstance(together, CandidateSet)
        ours, theirs = (
            {c.passage.passage_id: [s.score for s in c.scores] for c in r.candidates} for r in (alone, together)
        )
        assert len(set(ours) ^ set(theirs)) <= 2
        for name in set(ours) & set(theirs):
            assert ours[name] == pytest.approx(theirs[name], abs=1e-4)

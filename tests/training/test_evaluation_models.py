"""Models answering a collection: kinds, prompts, batches that change nothing, vectors that belong to their model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from qrelay.errors import ConfigError, InputError, ModelError
from qrelay.formats.beir import Collection, Run, read_collection
from qrelay.formats.runs import ranked
from qrelay.models import batches
from qrelay.models.embedder import SentenceTransformerEmbedder, load_embedder
from qrelay.progress import listening
from qrelay.training.evaluation.answering import Options, answer, kind_of
from qrelay.training.evaluation.embedding import corpus_vectors
from qrelay.training.evaluation.evaluate import evaluate
from qrelay.training.evaluation.systems import bi_encoder_run, bm25_run, cross_encoder_run
from tests.training.beir import QRELS, beir_folder, tiny_bert


@pytest.fixture(scope="module")
def bi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("bi") / "model", pairs=False)


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_bert(tmp_path_factory.mktemp("cross") / "model", pairs=True)


@pytest.fixture
def collection(tmp_path: Path) -> Collection:
    folder = beir_folder(tmp_path / "beir")
    return read_collection(folder, folder / "queries.jsonl", folder / "qrels" / "test.tsv")


def loaded(model: Path) -> SentenceTransformerEmbedder:
    found = load_embedder(f"path:{model}")
    assert isinstance(found, SentenceTransformerEmbedder)
    return found


def nearly(run: Run) -> dict[str, Any]:
    return {query_id: pytest.approx(scores, abs=1e-5) for query_id, scores in run.items()}


def test_bm25_finds_by_stems_and_gives_nothing_where_no_term_is_known() -> None:
    texts = ["a cat sleeps on the mat", "dogs bark at night", "the cat chases a mouse"]
    found = bm25_run(Collection(["d1", "d2", "d3"], texts, {"q1": "what does a dog do?", "q2": "zzz"}, QRELS))
    assert list(found["q1"]) == ["d2"]
    assert found["q1"]["d2"] > 0
    assert found["q2"] == {}


def test_runs_hold_judged_queries_without_a_relevant_document_and_measures_leave_them_out(
    collection: Collection, bi: Path, tmp_path: Path
) -> None:
    folder, qrels = tmp_path / "beir", tmp_path / "more.tsv"
    qrels.write_text((folder / "qrels" / "test.tsv").read_text() + f"none\t{collection.doc_ids[0]}\t0\n")
    with (folder / "queries.jsonl").open("a") as queries:
        queries.write('{"_id": "none", "text": "a dog"}\n{"_id": "unjudged", "text": "a cat"}\n')
    found = read_collection(folder, folder / "queries.jsonl", qrels)
    runs = [bm25_run(found), bi_encoder_run(found, loaded(bi))]
    runs.append(cross_encoder_run(found, Lengths(), runs[1]))
    assert [set(run) for run in runs] == [{*collection.queries, "none"}] * 3
    assert evaluate(found, "a", runs[1]).query_ids == tuple(sorted(collection.queries))
    assert found.hash == collection.hash


def test_a_bi_encoders_run_is_the_cosine_of_the_librarys_own_vectors(collection: Collection, bi: Path) -> None:
    model = SentenceTransformer(str(bi))
    queries = model.encode(list(collection.queries.values()), normalize_embeddings=True)
    scores = queries @ model.encode(collection.texts, normalize_embeddings=True).T
    expected = {
        query_id: dict(zip(collection.doc_ids, map(float, row), strict=True))
        for query_id, row in zip(collection.queries, scores, strict=True)
    }
    assert answer(collection, bi) == nearly(expected)
    assert {q: ranked(found) for q, found in answer(collection, bi, Options(depth=2)).items()} == {
        q: ranked(found)[:2] for q, found in expected.items()
    }


@pytest.mark.parametrize("tokens", [1, 12, 10_000])
def test_batches_change_no_vector(bi: Path, monkeypatch: pytest.MonkeyPatch, tokens: int) -> None:
    encoder = loaded(bi)
    texts = ["cat", "a cat sleeps on the mat " * 30, "", "dogs bark at night", "mice eat cheese " * 5] * 3
    alone = np.concatenate([encoder.model.encode([text], normalize_embeddings=True) for text in texts])
    monkeypatch.setattr(batches, "CPU_TOKENS", tokens)
    assert encoder.encode(texts, "document") == pytest.approx(alone, abs=1e-5)


def test_no_text_has_no_vector(bi: Path) -> None:
    assert loaded(bi).encode([], "document").shape == (0, 32)


def test_bfloat16_is_nearly_float32(collection: Collection, bi: Path) -> None:
    model = loaded(bi)
    exact, fast = corpus_vectors(collection, model), corpus_vectors(collection, model, arithmetic="bfloat16")
    assert fast.dtype == np.float32
    assert not np.array_equal(fast, exact)
    assert (fast * exact).sum(axis=1) == pytest.approx(np.ones(4), abs=0.01)


def test_prompts_are_the_models_own_unless_others_are_given(collection: Collection, bi: Path, tmp_path: Path) -> None:
    own = SentenceTransformer(str(bi))
    own.prompts = {"query": "mice eat: ", "document": "cat: "}
    own.save(str(tmp_path / "prompted"))
    with_own = answer(collection, tmp_path / "prompted")
    given = Options(prompts={"query": "mice eat: ", "document": "cat: "})
    assert with_own == nearly(answer(collection, bi, given))
    assert with_own != nearly(answer(collection, bi))
    none = Options(prompts={"query": "", "document": ""})
    assert answer(collection, tmp_path / "prompted", none) == nearly(answer(collection, bi))


def test_kept_vectors_are_taken_again(collection: Collection, bi: Path, tmp_path: Path) -> None:
    model, keep = loaded(bi), tmp_path / "vectors"
    first = corpus_vectors(collection, model, keep=keep)
    (file,) = keep.iterdir()
    with np.load(file) as kept:
        changed = {"key": kept["key"], "vectors": kept["vectors"] + 1}
    np.savez(file, **changed)
    assert corpus_vectors(collection, model, keep=keep) == pytest.approx(first + 1)


@pytest.mark.parametrize("place", ["vectors.npz", "folder"])
def test_vectors_of_another_model_corpus_or_prompt_are_never_taken(
    collection: Collection, bi: Path, tmp_path: Path, place: str
) -> None:
    """All have as many rows as there are documents."""
    other = tiny_bert(tmp_path / "other", pairs=False, seed=1)
    texts = ["mice eat cheese", *collection.texts[1:]]
    changed = Collection(collection.doc_ids, texts, collection.queries, collection.qrels)
    options = Options(vectors=tmp_path / place)
    answer(collection, bi, options)
    assert answer(collection, other, options) == nearly(answer(collection, other))
    assert answer(changed, other, options) == nearly(answer(changed, other))
    prompted = {"document": "cat: "}
    assert answer(changed, other, Options(vectors=tmp_path / place, prompts=prompted)) == nearly(
        answer(changed, other, Options(prompts=prompted))
    )


def test_an_array_that_does_not_say_whose_it_is_is_computed_anew(
    collection: Collection, bi: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "old.npy", np.zeros((4, 32), np.float32))
    assert answer(collection, bi, Options(vectors=tmp_path / "old.npy")) == nearly(answer(collection, bi))
    (tmp_path / "notes.npz").write_text("no vectors")
    with pytest.raises(ConfigError, match="holds no vectors"):
        answer(collection, bi, Options(vectors=tmp_path / "notes.npz"))
    assert (tmp_path / "notes.npz").read_text() == "no vectors"


class Lengths:
    """A cross-encoder that likes short passages."""

    def predict(self, pairs: list[tuple[str, str]], **_: object) -> list[float]:
        return [-float(len(text)) for _, text in pairs]


def test_a_cross_encoder_orders_the_head_of_a_run_and_drops_the_rest(collection: Collection) -> None:
    first = {"q1": {"d1": 3.0, "d3": 2.0, "d2": 1.0}}
    assert cross_encoder_run(collection, Lengths(), first, depth=2) == {"q1": {"d1": -28.0, "d3": -22.0}}
    with pytest.raises(InputError, match="the run of q2: 'd9' is not in the corpus"):
        cross_encoder_run(collection, Lengths(), {"q2": {"d9": 1.0}})


def test_a_cross_encoder_orders_bm25s_documents_unless_a_run_is_given(collection: Collection, cross: Path) -> None:
    found = answer(collection, cross)
    assert {q: set(scores) for q, scores in found.items()} == {q: set(s) for q, s in bm25_run(collection).items()}
    given = answer(collection, cross, Options(first={"q1": {"d3": 1.0, "d4": 0.5}}))
    assert {q: set(scores) for q, scores in given.items()} == {"q1": {"d3", "d4"}}


def test_the_kind_of_a_model_is_seen_and_a_wrong_one_refused(collection: Collection, bi: Path, cross: Path) -> None:
    assert [kind_of(each) for each in ("bm25", bi, cross)] == ["bm25", "bi_encoder", "cross_encoder"]
    with pytest.raises(ConfigError, match="is a cross_encoder, not a bi_encoder"):
        answer(collection, cross, kind="bi_encoder")
    with pytest.raises(ModelError, match="no model is named"):
        answer(collection, "no-such-model")


def test_progress_says_how_far_it_is(collection: Collection, bi: Path) -> None:
    seen: list[str] = []
    with listening(lambda progress: seen.append(str(progress))):
        bi_encoder_run(collection, loaded(bi))
    assert seen[0] == "embedding documents: 0 of 4 documents" and seen[-1] == "embedding documents: 4 of 4 documents"


def test_a_cross_encoder_computes_in_bfloat16_when_asked(collection: Collection, cross: Path) -> None:
    exact, fast = answer(collection, cross), answer(collection, cross, Options(arithmetic="bfloat16"))
    assert fast.keys() == exact.keys()
    for query_id, scores in exact.items():
        assert fast[query_id] == pytest.approx(scores, abs=0.02)
    assert fast != exact

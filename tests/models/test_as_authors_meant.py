"""Any sentence-transformers model is used as its own files say: prompts, pooling, layers, length, similarity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from qrelay.errors import ConfigError, ModelError
from qrelay.index.build import BuildRequest, build_index
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import HashEmbedder, load_embedder
from qrelay.models.encoding import CONFIG
from qrelay.models.engines import ENGINES, dim_of, engine_of, fingerprint, of_dim
from qrelay.models.registry import Registry
from qrelay.models.served import Embedders
from qrelay.models.static_int8 import calibration_texts
from qrelay.services.retriever.retriever import load_retriever
from qrelay.types import CandidateSet, Query
from tests import tiny
from tests.index.documents import write_jsonl

WORDS = sorted({word.lower() for text in calibration_texts() for word in text.split() if word.isalpha()})
QUERIES = ["what is iron", "how does light travel", "water"]
DOCUMENTS = [*calibration_texts()[:6], " ".join(calibration_texts()[:10])]

VARIETIES: dict[str, dict[str, Any]] = {
    "cosine is what a model means that says nothing": {},
    "the dot product": {"similarity": "dot"},
    "the first token": {"pooling": "cls"},
    "the longest numbers": {"pooling": "max", "similarity": "dot"},
    "a dense layer after pooling": {"dense": 48},
    "a dense layer, compared by the dot product": {"dense": 16, "similarity": "dot"},
    "a norm of its own": {"normalise": True, "similarity": "dot"},
    "prompts for queries and documents": {"prompts": {"query": "what is the ", "document": "this is a "}},
    "a prompt for passages": {"prompts": {"query": "what is the ", "passage": "this is a "}},
    "a prompt for the corpus": {"prompts": {"corpus": "this is a "}},
    "a prompt by default": {"prompts": {"other": "this is a "}, "default_prompt_name": "other"},
    "a short length": {"max_tokens": 12},
    "a length above 256": {"max_tokens": 300, "similarity": "dot"},
    "vectors cut short by its own files": {"truncate_dim": 8},
}


@pytest.mark.parametrize("variety", VARIETIES)
def test_scores_are_those_that_the_library_gives_the_model(variety: str, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = tiny.bi_encoder(tmp_path / "model", WORDS, seed=3, **VARIETIES[variety])
    library = SentenceTransformer(str(folder), device="cpu")
    asked = np.concatenate([library.encode_query([text]) for text in QUERIES])
    found = np.concatenate([library.encode_document([text]) for text in DOCUMENTS])
    theirs = np.asarray(library.similarity(asked, found))
    ours = load_embedder(f"path:{folder}")
    scores = ours.encode(QUERIES, "query") @ ours.encode(DOCUMENTS, "document").T
    np.testing.assert_allclose(scores, theirs, rtol=1e-4, atol=1e-4)
    assert ours.dim == found.shape[1]


def test_a_dense_layer_and_the_dot_product_are_kept_in_openvino(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QRELAY_MODELS_DIR", str(tmp_path))
    folder = tiny.bi_encoder(tmp_path / "model", WORDS, seed=3, dense=48, similarity="dot")
    torch, openvino = (load_embedder(f"path:{folder}", engine=engine, dim=24) for engine in ENGINES)
    one, other = (each.encode(DOCUMENTS, "document") for each in (torch, openvino))
    assert one.shape == other.shape == (len(DOCUMENTS), 24)
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98
    assert np.std(np.linalg.norm(one, axis=1)) > 1e-4, "lengths count"


def test_a_model_that_is_compared_by_the_dot_product_has_another_space_than_its_normalised_vectors(
    tmp_path: Path,
) -> None:
    folder = tiny.bi_encoder(tmp_path / "model", WORDS, seed=3)
    plain = load_embedder(f"path:{folder}").fingerprint
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps(config | {"similarity_fn_name": "dot"}))
    assert "+encoding-" not in plain and "+encoding-" in load_embedder(f"path:{folder}").fingerprint


@pytest.mark.parametrize("similarity", ["euclidean", "manhattan"])
def test_a_model_that_is_compared_by_a_distance_is_refused(similarity: str, tmp_path: Path) -> None:
    folder = tiny.bi_encoder(tmp_path / "model", WORDS, seed=3, similarity=similarity)
    with pytest.raises(ModelError, match=f"compares its vectors by {similarity} distance"):
        load_embedder(f"path:{folder}")


@pytest.mark.parametrize("where", ["modules.json", "config.json"])
def test_a_model_that_brings_code_of_its_own_is_refused_and_its_code_not_run(where: str, tmp_path: Path) -> None:
    folder = tiny.bi_encoder(tmp_path / "model", WORDS, seed=3)
    (folder / "own.py").write_text(
        f"open({str(tmp_path / 'it ran')!r}, 'w')\nclass Own: pass\nclass OwnConfig: pass\n"
    )
    content = json.loads((folder / where).read_text())
    if where == "modules.json":
        content[0]["type"] = "own.Own"
    else:
        content |= {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig", "AutoModel": "own.Own"}}
    (folder / where).write_text(json.dumps(content))
    with pytest.raises(ModelError, match="needs code that comes with the model, which qrelay never runs"):
        load_embedder(f"path:{folder}")
    assert not (tmp_path / "it ran").exists()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.bi_encoder(tmp_path_factory.mktemp("matryoshka") / "model", WORDS, seed=3)


def test_a_shortened_vector_is_the_beginning_of_the_whole_one_at_unit_length(model: Path) -> None:
    whole, short = load_embedder(f"path:{model}"), load_embedder(f"path:{model}", dim=10)
    kept = whole.encode(DOCUMENTS, "document")[:, :10]
    np.testing.assert_allclose(
        short.encode(DOCUMENTS, "document"), kept / np.linalg.norm(kept, axis=1, keepdims=True), atol=1e-5
    )
    assert short.dim == 10 and short.fingerprint == f"{whole.fingerprint}+dim-10"
    assert load_embedder(f"path:{model}", dim=tiny.DIM).fingerprint == whole.fingerprint, "all of it is no other"


def test_more_dimensions_than_a_model_has_are_refused(model: Path) -> None:
    with pytest.raises(ConfigError, match=f"gives vectors of {tiny.DIM} dimensions, 33 are asked for"):
        load_embedder(f"path:{model}", dim=33)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("dim", [0, 7])
def test_a_fingerprint_says_dimensions_and_engine_whatever_else_it_names(engine: Any, dim: int) -> None:
    for model in ("m@0123", "m@0123+encoding-01234567", "m@http://host+dim-3/v1+endpoint-01234567", "a+dim-3@0123"):
        made = fingerprint(of_dim(model, dim), engine)
        assert engine_of(made) == engine
        assert dim_of(made) == dim or model.startswith("m@http"), "a URL of that kind is nobody's"


def test_an_index_is_served_with_the_dimensions_that_it_names_whatever_is_set(model: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "c.jsonl", [{"_id": "d", "text": text} for text in DOCUMENTS[:1]])
    request = BuildRequest(str(source), "tiny", tmp_path / "index")
    short = load_embedder(f"path:{model}", dim=10)
    build_index(request, short, print)
    settings = RetrieverSettings(index_dir=tmp_path / "index", embedder=f"path:{model}", registry_poll_s=0)
    for dim in (0, 10, 20):
        retriever = load_retriever(settings.model_copy(update={"embedder_dim": dim}))
        (found,) = retriever.retrieve([Query("q", QUERIES[0], "tiny")])
        assert isinstance(found, CandidateSet) and found.trace[-1].model == short.fingerprint
        assert len(found.candidates) == 1


def test_without_an_index_the_settings_dimensions_are_configured(model: Path, tmp_path: Path) -> None:
    embedders = Embedders(f"path:{model}", Registry(tmp_path), load_embedder, dim=10)
    assert embedders.configured().endswith("+dim-10")
    assert embedders.of("").dim == 10


def test_the_double_counts_in_as_many_buckets_as_are_kept() -> None:
    short = load_embedder("hash", dim=16)
    assert short.encode(["iron and light"], "query").shape == (1, 16)
    assert (short.fingerprint, HashEmbedder().fingerprint) == ("hash@1+dim-16", "hash@1")

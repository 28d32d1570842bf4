"""Vectors that do not depend on the batch, and windows that lose nothing."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qrelay.errors import ConfigError, ModelError
from qrelay.models.embedder import (
    Embedder,
    HashEmbedder,
    Vectors,
    cut,
    load_embedder,
)

TEXTS = ["a", "How do I read a file line by line?", "", "sort " * 400, "Ärger über naïve Straße 日本語 🙂", "a"]
words = st.lists(st.text(st.characters(blacklist_categories=["Z", "C"]), min_size=1, max_size=8), max_size=60)
spaces = st.sampled_from([" ", "  ", "\n", "\t "])


@given(st.lists(st.text(max_size=60), max_size=8))
def test_hash_embedder_batch_equals_singles_exactly(texts: list[str]) -> None:
    embedder = HashEmbedder()
    batch = embedder.encode(texts, "query")

    assert batch.shape == (len(texts), embedder.dim)
    assert batch.dtype == np.float32
    for row, text in zip(batch, texts, strict=True):
        assert np.array_equal(row, embedder.encode([text], "query")[0])


def test_hash_embedder_dot_products_are_exact_in_any_order() -> None:
    rng = np.random.default_rng(0)
    texts = [" ".join(f"w{number}" for number in rng.integers(0, 300, 900)) for _ in range(50)]
    vectors = HashEmbedder().encode(texts, "query")
    exact = vectors.astype(np.int64) @ vectors.astype(np.int64).T

    shuffled = rng.permutation(HashEmbedder.dim)
    assert np.array_equal(vectors @ vectors.T, exact)
    assert np.array_equal(vectors[:, shuffled] @ vectors[:, shuffled].T, exact)


@given(words, spaces, st.integers(1, 12), st.data())
def test_windows_cover_every_token_in_order_within_the_limit(
    tokens: list[str], space: str, size: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, size))
    text = space.join(tokens)
    spans = [match.span() for match in re.finditer(r"\S+", text)]

    windows = HashEmbedder().windows(text, size, stride)

    if len(spans) <= size:
        assert windows == [text]
        return
    assert all(len(window.split()) == size for window in windows[:-1])
    assert 0 < len(windows[-1].split()) <= size
    rebuilt = windows[0].split()
    for number, window in enumerate(windows[1:], start=1):
        rebuilt[number * stride :] = window.split()
    assert rebuilt == text.split()
    assert len(windows) == -(-(len(spans) - size) // stride) + 1


@pytest.mark.parametrize(("size", "stride"), [(2, 3), (2, 0), (0, 0), (3, -1)])
def test_windows_that_would_lose_text_are_refused(size: int, stride: int) -> None:
    with pytest.raises(ConfigError, match="stride"):
        cut("a b c d", [(0, 1), (2, 3), (4, 5), (6, 7)], size, stride)


def test_an_absent_embedder_says_which_command_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QRELAY_MODELS_DIR", str(tmp_path))
    with pytest.raises(ModelError, match="qrelay models pull all-MiniLM-L6-v2"):
        load_embedder("all-MiniLM-L6-v2")


def test_a_folder_that_is_no_embedding_model_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ModelError, match="sentence-transformers cannot load"):
        load_embedder(f"path:{tmp_path}")


@pytest.fixture(params=[("torch", 1e-9), ("openvino", 1e-3)], ids=["torch", "openvino"])
def real(request: pytest.FixtureRequest, minilm: Embedder) -> tuple[Embedder, float]:
    """The real model in each engine, and by how much a cosine may differ from 1 where vectors are one text's."""
    engine, tolerance = request.param
    return (minilm if engine == "torch" else load_embedder("all-MiniLM-L6-v2", engine="openvino")), tolerance


def same(ours: Vectors, theirs: Vectors, tolerance: float) -> None:
    """Vectors of the same texts: 1e-9 below a cosine of 1 is 4e-5 of distance, 1e-3 is 0.045."""
    assert np.square(ours - theirs).sum(1).max() / 2 <= tolerance


def test_real_model_batch_equals_singles(real: tuple[Embedder, float]) -> None:
    embedder, tolerance = real
    batch = embedder.encode(TEXTS, "document")
    singles = np.concatenate([embedder.encode([text], "query") for text in TEXTS])

    assert batch.shape == (len(TEXTS), embedder.dim) == (6, 384)
    assert batch.dtype == np.float32
    if embedder.fingerprint.endswith("@f64e2d9f0d70"):
        np.testing.assert_allclose(batch, singles, atol=1e-5)
    same(batch, singles, tolerance)
    np.testing.assert_allclose(np.linalg.norm(batch, axis=1), 1, atol=1e-5)
    assert embedder.encode([], "document").shape == (0, 384)


def test_real_model_serves_several_threads(real: tuple[Embedder, float]) -> None:
    embedder, tolerance = real
    alone = embedder.encode(TEXTS, "document")
    with ThreadPoolExecutor(4) as pool:
        for vectors in pool.map(embedder.encode, [TEXTS] * 8, ["document"] * 8):
            same(vectors, alone, tolerance)


def test_openvino_agrees_with_torch_and_says_that_it_is_another_space(minilm: Embedder) -> None:
    integers = load_embedder("all-MiniLM-L6-v2", engine="openvino")
    texts = [text for text in TEXTS if text] + ["Iron is absorbed in the upper part of the small intestine."]

    cosines = (integers.encode(texts, "query") * minilm.encode(texts, "query")).sum(1)

    assert cosines.mean() >= 0.99 and cosines.min() >= 0.97
    assert integers.fingerprint == f"{minilm.fingerprint}+openvino-int8-static1"
    assert integers.windows("a b c", 2, 2) == minilm.windows("a b c", 2, 2)


@settings(max_examples=60, deadline=None)
@given(words, st.integers(1, 20))
def test_real_model_windows_lose_nothing_but_white_space(minilm: Embedder, tokens: list[str], size: int) -> None:
    text = " ".join(tokens)

    windows = minilm.windows(text, size, size)

    assert re.sub(r"\s", "", "".join(windows)) == re.sub(r"\s", "", text)
    assert all(window in text for window in windows)


def test_accents_that_the_tokenizer_strips_stay_in_the_window() -> None:
    text = "cafe\u0301 noir"
    assert cut(text, [(0, 4), (6, 10)], 1, 1) == ["cafe\u0301", "noir"]


def test_real_model_windows_are_counted_in_its_own_tokens(minilm: Embedder) -> None:
    text = "tokenizers split uncommon words like electroencephalography into pieces. " * 20
    whole, windows = minilm.windows(text, 10_000, 80), minilm.windows(text, 160, 80)

    assert whole == [text]
    assert len(windows) > 1
    assert minilm.windows(windows[0], 160, 80) == [windows[0]]
    assert minilm.fingerprint == "all-MiniLM-L6-v2@f64e2d9f0d70"

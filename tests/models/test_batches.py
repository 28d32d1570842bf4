"""Batches hold every text once, about the same length together, and no more tokens than they may; pairs that are
scored in such batches get the scores of the library's own call."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qrelay.models.batches import batches
from qrelay.models.pairs import PairModel
from tests import tiny
from tests.conftest import LONG_S

WORDS = [f"w{number}" for number in range(60)]
PAIRS = [
    ("w1 w2", "w3 " * count + end)
    for count, end in zip([30, 1, 12, 5, 30, 2, 1, 12, 5, 9], ["w4", "w5 w6", *WORDS[7:15]], strict=True)
]


@given(lengths=st.lists(st.integers(0, 300), max_size=60), tokens=st.integers(1, 900), most=st.integers(1, 20))
def test_each_place_is_in_one_batch_the_longest_first_within_the_tokens(
    lengths: list[int], tokens: int, most: int
) -> None:
    found = list(batches(lengths, tokens, most))
    order = [place for each in found for place in each]
    assert sorted(order) == list(range(len(lengths)))
    assert [lengths[place] for place in order] == sorted(lengths, reverse=True)
    for each in found:
        assert len(each) <= most
        assert len(each) == 1 or len(each) * lengths[each[0]] <= tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from sentence_transformers import CrossEncoder

    folder = tiny.cross_encoder(tmp_path_factory.mktemp("pairs") / "ce", WORDS, seed=1, max_tokens=48)
    return CrossEncoder(str(folder), device="cpu", max_length=48)


@pytest.mark.parametrize("raw", [False, True])
def test_scores_are_those_of_the_librarys_call(model: Any, raw: bool) -> None:
    from torch.nn import Identity

    activation = Identity() if raw else None
    expected = model.predict(PAIRS, activation_fn=activation, show_progress_bar=False)
    found = PairModel(model, 3).scores(PAIRS, activation)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert len(set(np.round(found, 4))) == len(PAIRS), "they tell the pairs apart"
    assert PairModel(model, 3).scores([]).shape == (0,)


def test_a_models_default_prompt_is_read_before_the_query(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = PairModel(model, 4).scores(PAIRS)
    monkeypatch.setattr(model, "prompts", {"search": "w50 w51 "})
    monkeypatch.setattr(model, "default_prompt_name", "search")
    expected = model.predict(PAIRS, show_progress_bar=False)
    found = PairModel(model, 4).scores(PAIRS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - plain).max() > 1e-3


def test_texts_of_as_many_tokens_are_embedded_together_however_long_their_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By characters the long words would come first, together with short texts."""
    from qrelay.models.embedder import load_embedder

    words = ["a", "b", "pneumonoultramicroscopic"]
    embedder: Any = load_embedder(f"path:{tiny.bi_encoder(tmp_path / 'bi', words, seed=1)}", device="cpu")
    texts = [" ".join([words[n % 3]] * many) for n, many in enumerate((20, 3, 3, 20, 20, 3))]
    alone = np.concatenate([embedder.encode([text], "document") for text in texts])
    monkeypatch.setattr("qrelay.models.batches.CPU_TOKENS", 66)
    masks: list[Any] = []
    embedder.model[0].register_forward_pre_hook(lambda _, given: masks.append(given[0]["attention_mask"]))
    np.testing.assert_allclose(embedder.encode(texts, "document"), alone, atol=1e-5)
    assert [tuple(each.shape) for each in masks] == [(3, 22), (3, 5)]


@pytest.mark.parametrize("side", ["right", "left"])
def test_pairs_of_equal_length_are_computed_together_and_nothing_is_padded(
    model: Any, side: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten pairs of two queries' worth of lengths, two of each: five batches, whose masks are full."""
    monkeypatch.setattr(model.tokenizer, "padding_side", side)
    texts = [("w1 w2", "w3 " * count) for count in (30, 1, 12, 5, 20)] * 2
    masks: list[Any] = []
    hook = model[0].register_forward_pre_hook(lambda _, given: masks.append(given[0]["attention_mask"]))
    try:
        PairModel(model, 2).scores(texts)
    finally:
        hook.remove()
    assert [tuple(each.shape) for each in masks] == [(2, 35), (2, 25), (2, 17), (2, 10), (2, 6)]
    assert all(bool(each.all()) for each in masks)


def test_one_calls_pairs_are_tokenised_while_anothers_are_computed(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first call's computation waits for the second call's tokens: with one lock for both, it would wait on."""
    computing, tokenised = threading.Event(), threading.Event()
    preprocess, pairs = model.preprocess, PairModel(model, 8)

    def noted(given: list[Any], **options: Any) -> Any:
        found = preprocess(given, **options)
        if len(given) == 2:
            tokenised.set()
        return found

    monkeypatch.setattr(model, "preprocess", noted)

    def wait(*_: Any) -> None:
        computing.set()
        assert tokenised.wait(LONG_S)

    hook = model[0].register_forward_pre_hook(wait)
    try:
        with ThreadPoolExecutor(2) as threads:
            first = threads.submit(pairs.scores, PAIRS)
            assert computing.wait(LONG_S)
            second = threads.submit(pairs.scores, PAIRS[:2])
            found = first.result(), second.result()
    finally:
        hook.remove()
    np.testing.assert_allclose(found[0][:2], found[1], atol=1e-5)

"""What a bi-encoder's training step computes: the same as column by column, on fewer tokens and in less memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from qrelay.training.bi_encoder import BiEncoder
from qrelay.training.experiment import load_experiment
from qrelay.training.losses.embedding import embed
from qrelay.training.rows import PADDING
from qrelay.training.tokens import TokenCache
from tests.training import tiny

COLUMNS = [
    ["capital of country c1", "capital of country c2", "c3"],
    ["the seat is city t1", "city", "the seat of the capital is in city t3"],
    ["country c1 has a capital", "", "a"],
]
LABELS = [[1.0, 0, 0.9, 0.2, 0, 1], [1, 0, 0.8, 0.1, 2, PADDING], [1, 0, 0.7, 0, 4, 5]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.tiny_model(tmp_path_factory.mktemp("tiny"))


def loaded(folder: Path, *overrides: str) -> tuple[Any, Any]:
    """(model without dropout, loss)."""
    experiment = load_experiment("full_modular", ["max_length=32", *overrides])
    model = BiEncoder().load(experiment, folder).to("cpu").eval()
    return model, BiEncoder().loss(experiment, model)


def gradient(folder: Path, *overrides: str) -> torch.Tensor:
    model, loss = loaded(folder, *overrides)
    found = loss([model.preprocess(texts) for texts in COLUMNS], torch.tensor(LABELS))
    total = torch.stack(list(found.values())).sum() if isinstance(found, dict) else found
    total.backward()
    return next(p.grad for name, p in model.named_parameters() if "layer.0.attention" in name and p.grad is not None)


def test_gradcache_gives_the_gradients_of_the_whole_batch(folder: Path) -> None:
    whole = gradient(folder)
    assert torch.allclose(whole, gradient(folder, "mini_batch_size=2"), atol=1e-6)
    assert whole.abs().max() > 1e-4


def test_texts_sorted_by_length_embed_as_column_by_column(folder: Path) -> None:
    model, _ = loaded(folder)
    seen: list[int] = []

    class Counted:
        def __call__(self, features: dict[str, Any]) -> Any:
            seen.append(features["input_ids"].numel())
            return model(features)

    alone = [model(model.preprocess(texts))["sentence_embedding"] for texts in COLUMNS]
    together = embed(Counted(), [model.preprocess(texts) for texts in COLUMNS])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(alone, together, strict=True))
    assert sum(seen) < sum(model.preprocess(texts)["input_ids"].numel() for texts in COLUMNS)


def test_a_text_is_tokenised_once_and_as_the_model_does_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = loaded(folder)
    cache, wanted = TokenCache(model), [model.preprocess(texts) for texts in (*COLUMNS, COLUMNS[2] + COLUMNS[0])]
    asked: list[str] = []
    real = model.preprocess

    def counted(texts: list[str], **options: Any) -> Any:
        asked.extend(texts)
        return real(texts, **options)

    monkeypatch.setattr(model, "preprocess", counted)
    for texts, expected in zip((*COLUMNS, COLUMNS[2] + COLUMNS[0]), wanted, strict=True):
        found = cache(texts, prompt=None, task=None)
        assert found.keys() == expected.keys()
        for key, value in expected.items():
            assert torch.equal(found[key], value) if isinstance(value, torch.Tensor) else found[key] == value
    assert sorted(asked) == sorted(text for texts in COLUMNS for text in texts)

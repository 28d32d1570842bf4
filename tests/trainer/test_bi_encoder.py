"""The whole way of a bi-encoder, with the real model and a few steps."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from qrelay.errors import ModelError
from qrelay.models.catalogue import resolve
from trainer.bi_encoder import loss_of, train_bi_encoder
from trainer.experiment import load_experiment
from trainer.losses.batch import PADDING

FAST = [
    "batch_size=4",
    "documents=3",
    "max_positives=1",
    "learning_rate=1.0e-4",
    "max_length=32",
    "checkpoint_every=0.5",
]


@pytest.fixture(scope="module", autouse=True)
def a_model_is_there() -> None:
    try:
        resolve("all-MiniLM-L6-v2")
    except ModelError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def triples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Questions whose wrong answer is nearer to them in words than the right one."""
    path = tmp_path_factory.mktemp("data") / "triples.jsonl"

    def passage(text: str, p: float) -> dict[str, object]:
        return {"title": "", "text": text, "p_relevant": p}

    rows = [
        {"query_id": f"q{n}", "query": f"capital of country {n}",
         "positives": [passage(f"the seat of its government is city {n}", 0.9)],
         "negatives": [passage(f"country {n} has a capital", 0.1), passage(f"capital letters in country {n}", 0.1)]}
        for n in range(8)
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_training_turns_the_ranking_round_and_the_result_loads(triples: Path, tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    experiment = load_experiment("infonce_only", [*FAST, "stages=[{epochs: 6}]"])
    model = SentenceTransformer(str(train_bi_encoder(experiment, [str(triples)], tmp_path / "run")))
    base = SentenceTransformer(str(resolve("all-MiniLM-L6-v2").path))
    texts = ["capital of country 3", "the seat of its government is city 3", "country 3 has a capital"]

    def margin(encoder: SentenceTransformer) -> float:
        q, right, wrong = encoder.encode(texts, normalize_embeddings=True)
        return float(q @ right - q @ wrong)

    assert margin(base) < 0 < margin(model)


def test_a_run_that_was_killed_goes_on_and_ends_as_an_undisturbed_one(
    triples: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    experiment = load_experiment("kl_margin", [*FAST, "stages=[{name: one}, {name: two}]", "merge=0.7"])
    whole = train_bi_encoder(experiment, [str(triples)], tmp_path / "whole")
    real, calls = Trainer.training_step, 0

    def dies(self: Trainer, *arguments: object, **named: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return real(self, *arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "training_step", dies)
        with pytest.raises(KeyboardInterrupt):
            train_bi_encoder(experiment, [str(triples)], tmp_path / "killed")
    resumed = train_bi_encoder(experiment, [str(triples)], tmp_path / "killed")
    from sentence_transformers import SentenceTransformer

    one, other = (SentenceTransformer(str(path)).encode(["country 5"])[0] for path in (whole, resumed))
    assert np.allclose(one, other, atol=1e-5)


def test_gradcache_gives_the_gradients_of_the_whole_batch() -> None:
    from sentence_transformers import SentenceTransformer

    def gradient(cached: int) -> torch.Tensor:
        model = SentenceTransformer(str(resolve("all-MiniLM-L6-v2").path), device="cpu").eval()
        loss = loss_of(load_experiment("full_modular", [f"mini_batch_size={cached}"]), model)
        columns = [["a cat", "a dog", "a bird"], ["it meows", "it barks", "it sings"], ["it sings", "it swims", "x"]]
        features = [model.preprocess(texts) for texts in columns]
        labels = torch.tensor([[1.0, 0, 0.9, 0.2, 0, 1], [1, 0, 0.8, 0.1, 2, 3], [1, 0, 0.7, 0, 4, PADDING]])
        found = loss(features, labels)
        total = found if cached else torch.stack(list(found.values())).sum()
        total.backward()
        return next(
            p.grad for name, p in model.named_parameters() if "layer.0.attention" in name and p.grad is not None
        )

    assert torch.allclose(gradient(0), gradient(2), atol=1e-6)

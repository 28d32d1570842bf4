"""A text has one vector: in training, in the trainer's evaluation, at the gate and in the service."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from qrelay.formats.beir import Collection, Run
from qrelay.index.build import BuildRequest, build_index
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import load_embedder
from qrelay.models.encoding import own_length
from qrelay.services.retriever.retriever import load_retriever
from qrelay.training.bi_encoder import BiEncoder
from qrelay.training.evaluation.answering import answer
from qrelay.training.experiment import Experiment, load_experiment
from qrelay.types import DENSE, CandidateSet, Query
from tests import tiny
from tests.training.beir import CORPUS, QRELS, QUERIES

PROMPTS = {"query": "what is it ? ", "document": "this is a text : "}
WORDS = sorted({word for title, text in CORPUS.values() for word in f"{title} {text}".lower().split()} | set("?:"))
LONG = " ".join([*WORDS, "."] * 10)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It has prompts, and reads 300 tokens."""
    words = [*WORDS, *{word.strip("?") for text in QUERIES.values() for word in text.split()} - set(WORDS)]
    return tiny.bi_encoder(tmp_path_factory.mktemp("one") / "model", [*words, "it", "this", "text"], 3, 300, PROMPTS)


@pytest.fixture(scope="module")
def collection() -> Collection:
    return Collection([*CORPUS, "long"], [*(text for _, text in CORPUS.values()), LONG], QUERIES, QRELS)


@pytest.fixture(scope="module")
def gate(collection: Collection, model: Path) -> Run:
    """What `qrelay eval` and the gate measure."""
    return answer(collection, model, kind="bi_encoder")


def experiment(model: Path, tokens: int) -> Experiment:
    return load_experiment("full_modular", [f"model=path:{model}", f"max_length={tokens}"])


def same(found: Run, expected: Run) -> bool:
    return found == {query_id: pytest.approx(scores, abs=1e-5) for query_id, scores in expected.items()}


def test_the_trainers_evaluation_is_the_gates(model: Path, collection: Collection, gate: Run, tmp_path: Path) -> None:
    def trained(tokens: int) -> tuple[Any, Run]:
        encoder = BiEncoder().load(experiment(model, tokens), model)
        return encoder, BiEncoder().ranker(collection)(encoder)

    assert same(trained(300)[1], gate)
    shorter, run = trained(24)
    assert not same(run, gate)
    shorter.save_pretrained(str(tmp_path / "shorter"))
    assert own_length(tmp_path / "shorter") == 24
    assert same(run, answer(collection, tmp_path / "shorter")), "the length of its training is the model's own"


def test_the_services_scores_are_the_gates(model: Path, collection: Collection, gate: Run, tmp_path: Path) -> None:
    rows = ({"_id": doc_id, "text": text} for doc_id, text in collection.text_of.items())
    (tmp_path / "corpus.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    request = BuildRequest(str(tmp_path / "corpus.jsonl"), "tiny", tmp_path / "index", window=1000, stride=1000)
    build_index(request, load_embedder(f"path:{model}"), print)
    settings = RetrieverSettings(index_dir=tmp_path / "index", embedder=f"path:{model}", registry_poll_s=0)
    queries = [Query(query_id, text, "tiny") for query_id, text in QUERIES.items()]
    served: Run = {}
    for found in load_retriever(settings).retrieve(queries):
        assert isinstance(found, CandidateSet)
        scores = {each.passage.doc_id: each.score(DENSE) for each in found.candidates}
        served[found.query.query_id] = {name: score.score or 0.0 for name, score in scores.items() if score}
    assert same(served, gate)


def test_training_reads_the_texts_that_are_measured(model: Path) -> None:
    """The features that the trainer's collator makes of a row, through the model."""
    kind, held = BiEncoder(), experiment(model, 300)
    encoder = kind.load(held, model).to("cpu").eval()
    row = {"query": QUERIES["q1"], "document_0": LONG, "document_1": "dogs bark at night", "label": [1.0, 0.0]}
    from datasets import Dataset

    trainer = kind.trainer(
        encoder,
        args=kind.arguments(output_dir="unused", report_to="none", use_cpu=True),
        train_dataset=Dataset.from_list([row]),
        loss=kind.loss(held, encoder),
    )
    columns, _ = trainer.collect_features(trainer.data_collator([row]))
    with torch.no_grad():
        found = [torch.nn.functional.normalize(encoder(each)["sentence_embedding"])[0].numpy() for each in columns]
    ours = load_embedder(f"path:{model}")
    expected = [*ours.encode([row["query"]], "query"), *ours.encode([LONG, "dogs bark at night"], "document")]
    assert all(each == pytest.approx(other, abs=1e-5) for each, other in zip(found, expected, strict=True))

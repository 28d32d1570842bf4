"""A text has one vector, and a pair one score: in training, in its evaluation, at the gate and in the service."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from qrelay.formats.beir import Collection, Run
from qrelay.index.build import BuildRequest, build_index
from qrelay.index.settings import RetrieverSettings
from qrelay.models.embedder import load_embedder
from qrelay.models.encoding import own_length
from qrelay.models.registry import BI_ENCODER, Registry
from qrelay.models.registry import CROSS_ENCODER as SLOT
from qrelay.services.reranker.reranker import load_reranker
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.services.retriever.retriever import load_retriever
from qrelay.training.bi_encoder import BiEncoder
from qrelay.training.cross_encoder import CrossEncoderKind
from qrelay.training.evaluation.answering import Options, answer
from qrelay.training.evaluation.evaluate import evaluate
from qrelay.training.evaluation.frozen import FrozenSet
from qrelay.training.evaluation.systems import bm25_run
from qrelay.training.experiment import Experiment, load_experiment
from qrelay.training.gate.baseline import RERANK, Subject, evaluated, of_version, serving
from qrelay.types import CROSS_ENCODER, DENSE, Candidate, CandidateSet, Passage, Query
from tests import tiny
from tests.training.beir import CORPUS, QRELS, QUERIES
from tests.training.sets import write_set

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


@pytest.fixture(scope="module")
def cross(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """It reads pairs of 512 tokens."""
    return tiny.cross_encoder(tmp_path_factory.mktemp("one") / "cross", WORDS, 4, 512)


@pytest.fixture(scope="module")
def frozen(tmp_path_factory: pytest.TempPathFactory) -> FrozenSet:
    """Documents of the same 600 words in other orders: where a pair is cut decides their scores."""
    draw = random.Random(5)
    corpus = {f"d{n}": " ".join(draw.choices(WORDS, k=600)) for n in range(12)}
    queries = {f"q{n}": f"{text} {n}" for n, text in enumerate([*QUERIES.values()] * 2)}
    relevant = dict(zip(queries, corpus, strict=False))
    return FrozenSet.read(write_set(tmp_path_factory.mktemp("frozen") / "set", corpus, queries, relevant))


def gated(subject: Subject, frozen: FrozenSet, keep: Path) -> list[float]:
    """Reciprocal rank a query, as the gate finds it."""
    return evaluated(subject, frozen, "RR@10", keep).values["RR@10"].tolist()


def values(run: Run, frozen: FrozenSet) -> list[float]:
    """Reciprocal rank a query of these scores."""
    return evaluate(frozen.collection, "run", run, ("RR@10",)).values["RR@10"].tolist()


def served(settings: RerankerSettings, frozen: FrozenSet) -> Run:
    """The service's scores of BM25's documents."""
    core, collection = load_reranker(settings), frozen.collection
    run: Run = {}
    for query_id, documents in bm25_run(collection).items():
        found = tuple(Candidate(Passage(each, each, "", collection.text_of[each]), ()) for each in documents)
        (reranked,) = core.rerank([CandidateSet(Query(query_id, collection.queries[query_id], "tiny"), found, "")])
        assert isinstance(reranked, CandidateSet)
        scores = {each.passage.doc_id: each.score(CROSS_ENCODER) for each in reranked.candidates}
        run[query_id] = {doc_id: score.score or 0.0 for doc_id, score in scores.items() if score}
    return run


@pytest.mark.parametrize("tokens", [24, 500])
def test_a_pair_has_one_score_in_training_at_the_gate_and_in_the_service(
    cross: Path, frozen: FrozenSet, tokens: int, tmp_path: Path
) -> None:
    kind = CrossEncoderKind()
    encoder = kind.load(load_experiment("cross_encoder", [f"model=path:{cross}", f"max_length={tokens}"]), cross)
    trained = kind.ranker(frozen.collection)(encoder)
    encoder.save_pretrained(str(tmp_path / "model"))
    registry = Registry(tmp_path / "registry")
    version = registry.publish(tmp_path / "model", slot=SLOT, base="base@1")
    registry.record_gate(version, {"passed": True, "against": ""})
    registry.promote(version)
    at_384 = answer(frozen.collection, cross, Options(max_length=384))
    assert values(at_384, frozen) != values(trained, frozen), "the length shows"
    assert gated(of_version(registry, version, SLOT), frozen, tmp_path) == values(trained, frozen)
    assert same(answer(frozen.collection, tmp_path / "model"), trained), "what `qrelay eval` measures"
    assert same(served(RerankerSettings(registry=registry.folder, max_length=48), frozen), trained)


def test_the_configured_cross_encoder_is_measured_at_the_length_to_which_its_service_cuts(
    cross: Path, frozen: FrozenSet, tmp_path: Path
) -> None:
    settings = RerankerSettings(cross_encoder=f"path:{cross}", max_length=48, registry=tmp_path / "registry")
    models = {BI_ENCODER: "", SLOT: settings.cross_encoder}
    subject = serving(Registry(settings.registry_folder), SLOT, models, settings.max_length)
    whole = serving(Registry(settings.registry_folder), SLOT, models)
    assert (subject.how, subject.pair_tokens, whole.pair_tokens) == (RERANK, 48, 512)
    run = served(settings, frozen)
    assert gated(subject, frozen, tmp_path) == values(run, frozen) != gated(whole, frozen, tmp_path)


def test_a_configured_cross_encoder_is_given_no_more_than_it_reads(frozen: FrozenSet, tmp_path: Path) -> None:
    short = tiny.cross_encoder(tmp_path / "short", WORDS, 4, 64)
    settings = RerankerSettings(cross_encoder=f"path:{short}", max_length=384, registry=tmp_path / "registry")
    assert same(served(settings, frozen), answer(frozen.collection, short))

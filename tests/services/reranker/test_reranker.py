"""The reranker's core, with its double, the fallback, and a real (tiny, untrained) cross-encoder."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qrelay.errors import BackendUnavailable, InvalidQuery
from qrelay.models.embedder import HashEmbedder, TextKind, Vectors
from qrelay.models.engines import ENGINES, EncoderEngine
from qrelay.runtime import telemetry
from qrelay.services.reranker.reranker import Reranker, load_reranker
from qrelay.services.reranker.scorers import BiEncoderScorer, CrossEncoderScorer, FakeScorer
from qrelay.services.reranker.settings import RerankerSettings
from qrelay.types import (
    BI_ENCODER,
    BM25,
    CROSS_ENCODER,
    DENSE,
    Candidate,
    CandidateSet,
    Passage,
    Query,
    Score,
    without_text,
)
from tests import samples, tiny

FAKE = RerankerSettings(scorer="fake")


def reranked(count: int = 100, number: int = 0) -> CandidateSet:
    (result,) = Reranker(FakeScorer(), FAKE).rerank([samples.candidate_set(number, count)])
    assert isinstance(result, CandidateSet)
    return result


def test_keeps_forty_best_first_and_marks_twenty_five() -> None:
    result = reranked()
    scores = [candidate.score(CROSS_ENCODER) for candidate in result.candidates]
    assert len(scores) == 40
    assert [score.rank for score in scores if score] == list(range(1, 41))
    values = [score.score or 0.0 for score in scores if score]
    assert values == sorted(values, reverse=True)
    assert sum(candidate.sampled for candidate in result.candidates) == 25


def test_a_call_may_keep_more_or_fewer() -> None:
    reranker = Reranker(FakeScorer(), FAKE)
    for keep in (3, 77, 100):
        (found,) = reranker.rerank([samples.candidate_set(0, 100)], keep)
        assert isinstance(found, CandidateSet)
        assert len(found.candidates) == keep
    assert reranker.rerank([samples.candidate_set(0, 100)], 0) == [reranked()]


def test_every_earlier_score_and_rank_is_kept() -> None:
    for candidate in reranked().candidates:
        assert candidate.score(BM25) is not None
        assert candidate.score(DENSE) is not None


def test_text_travels_on_only_with_the_sample() -> None:
    for candidate in reranked().candidates:
        assert bool(candidate.passage.text) == candidate.sampled


def test_a_batch_equals_its_items_one_by_one() -> None:
    sets = [samples.candidate_set(number, 30 + number) for number in range(5)]
    core = Reranker(FakeScorer(), FAKE)
    assert core.rerank(sets) == [core.rerank([each])[0] for each in sets]


def test_only_the_first_hundred_are_scored() -> None:
    (result,) = Reranker(FakeScorer(), FAKE).rerank([samples.candidate_set(0, 150)])
    assert isinstance(result, CandidateSet)
    assert all(int(c.passage.doc_id[1:]) < 100 for c in result.candidates)


def test_an_empty_query_is_an_error_of_its_own_and_an_empty_set_an_answer() -> None:
    empty_text = CandidateSet(Query("q", "  ", "docs"), samples.candidates(3), "v1")
    nothing_found = CandidateSet(samples.query(1), (), "v1")
    error, answer = Reranker(FakeScorer(), FAKE).rerank([empty_text, nothing_found])
    assert isinstance(error, InvalidQuery)
    assert isinstance(answer, CandidateSet) and replace(answer, trace=()) == nothing_found


def test_without_a_cross_encoder_the_dense_scores_serve_and_info_says_so() -> None:
    core = load_reranker(RerankerSettings())
    (result,) = core.rerank([samples.candidate_set(0, 50)])
    assert isinstance(result, CandidateSet)
    first = result.candidates[0]
    dense = first.score(DENSE)
    assert dense is not None
    assert first.score(BI_ENCODER) == dense._replace(system=BI_ENCODER)
    assert first.score(CROSS_ENCODER) is None
    assert "no cross-encoder is configured" in core.info().details["fallback"]


def test_the_fallback_encodes_a_set_that_carries_no_dense_scores() -> None:
    loads: list[int] = []

    def load() -> HashEmbedder:
        loads.append(1)
        return HashEmbedder()

    scorer = BiEncoderScorer(load)
    bare = replace(
        samples.candidate_set(0, 4), candidates=tuple(Candidate(c.passage, ()) for c in samples.candidates(4))
    )
    scorer.score([samples.candidate_set(0, 4)])
    assert not loads
    first, second = scorer.score([bare])[0], scorer.score([bare])[0]
    assert (len(first), len(loads)) == (4, 1)
    assert first == second


def test_the_fallback_embeds_all_sets_of_a_batch_in_one_call_a_kind() -> None:
    class Noting(HashEmbedder):
        def encode(self, texts: Sequence[str], kind: TextKind) -> Vectors:
            calls.append((kind, len(texts)))
            return super().encode(texts, kind)

    calls: list[tuple[str, int]] = []
    bare = [
        replace(each, candidates=tuple(Candidate(c.passage, ()) for c in each.candidates))
        for each in (samples.candidate_set(number, 2 + number) for number in range(3))
    ]
    carrying = samples.candidate_set(9, 3)
    scorer = BiEncoderScorer(Noting)
    together = scorer.score([bare[0], carrying, replace(carrying, candidates=()), bare[1], bare[2]])
    assert calls == [("query", 3), ("document", 9)]
    assert [len(each) for each in together] == [2, 3, 0, 3, 4]
    assert [together[0], together[3], together[4]] == [scorer.score([each])[0] for each in bare]
    assert together[1] == [0.9, 0.89, 0.88]


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real BERT cross-encoder of two small layers with random weights: wiring, not quality."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

    from qrelay.models.catalogue import resolve

    folder = tmp_path_factory.mktemp("cross-encoder")
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=30522,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        num_labels=1,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    PreTrainedTokenizerFast.from_pretrained(str(resolve("all-MiniLM-L6-v2").path)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("engine", "tolerance"), [("torch", 1e-4), ("openvino", 0.02)])
def test_a_cross_encoder_from_a_folder_scores_pairs_alike_alone_and_in_a_batch(
    cross_encoder: Path, engine: EncoderEngine, tolerance: float
) -> None:
    scorer = CrossEncoderScorer(f"path:{cross_encoder}", max_length=128, batch_pairs=8, engine=engine)
    sets = [samples.candidate_set(number, 3 + 4 * number) for number in range(4)]
    together = scorer.score(sets)
    alone = [scorer.score([each])[0] for each in sets]
    assert [len(scores) for scores in together] == [3, 7, 11, 15]
    for a, b in zip(together, alone, strict=True):
        np.testing.assert_allclose(a, b, atol=tolerance)
    core = load_reranker(RerankerSettings(cross_encoder=f"path:{cross_encoder}", engine=engine))
    assert "fallback" not in core.info().details
    assert core.info().models == {CROSS_ENCODER: scorer.fingerprint}
    assert scorer.fingerprint.endswith("+openvino-int8-static1") == (engine == "openvino")


def test_a_title_that_is_the_text_is_read_once(cross_encoder: Path) -> None:
    scorer = CrossEncoderScorer(f"path:{cross_encoder}", max_length=128, batch_pairs=8)
    named = [("a title", "a text"), ("a text", "a text"), ("", "a text"), ("", "a title\na text")]
    passages = [Passage(f"d#{n}", "d", title, text) for n, (title, text) in enumerate(named)]
    ((titled, doubled, plain, joined),) = scorer.score(
        [CandidateSet(samples.query(), tuple(Candidate(each, ()) for each in passages), "v1")]
    )
    assert doubled == pytest.approx(plain, abs=1e-6) and titled == pytest.approx(joined, abs=1e-6)
    assert titled != pytest.approx(plain, abs=1e-6)


def test_openvino_ranks_pairs_as_torch_does(tmp_path: Path) -> None:
    words = ["how", "to", "do", "thing", "text", "title", *map(str, range(40))]
    folder = f"path:{tiny.cross_encoder(tmp_path / 'ce', words, seed=3)}"
    sets = [samples.candidate_set(number, 40) for number in range(3)]
    ours, theirs = (
        np.concatenate(CrossEncoderScorer(folder, max_length=64, batch_pairs=8, engine=engine).score(sets))
        for engine in ENGINES
    )
    assert np.corrcoef(ours.argsort().argsort(), theirs.argsort().argsort())[0, 1] >= 0.98


class Given(FakeScorer):
    """Scores as they are given, for each set alike."""

    fingerprint = "broken@1"

    def __init__(self, scores: Sequence[float]) -> None:
        super().__init__()
        self.given = scores

    def score(self, sets: Sequence[CandidateSet]) -> list[list[float]]:
        return [list(self.given) for _ in sets]


@pytest.mark.parametrize(
    ("scores", "order"),
    [
        ([0.1, math.nan, 0.9, 0.5], [2, 3, 0]),
        ([math.nan, math.nan, 0.9, 0.5, 0.95], [4, 2, 3]),
        ([0.1, 0.2, 0.3, math.nan, 0.4, 0.9], [5, 4, 2, 1, 0]),
        ([math.inf, 0.1, -math.inf, 0.2], [3, 1]),
    ],
)
def test_a_score_that_is_not_finite_is_no_score_its_candidate_comes_last_and_is_counted(
    scores: list[float], order: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    before = counted()
    core = Reranker(Given(scores), FAKE)
    first, again = core.rerank([samples.candidate_set(n, len(scores)) for n in range(2)])
    for found in (first, again):
        assert isinstance(found, CandidateSet)
        ranked = [c for c in found.candidates if c.score(CROSS_ENCODER) and c.score(CROSS_ENCODER).rank]
        assert [int(c.passage.doc_id[1:]) for c in ranked] == order
        assert found.candidates[: len(order)] == tuple(ranked)
        rest = [c.score(CROSS_ENCODER) for c in found.candidates[len(order) :]]
        assert rest == [Score(CROSS_ENCODER, None, 0)] * (len(scores) - len(order))
    assert counted() - before == 2 * (len(scores) - len(order))
    assert len([each for each in caplog.messages if "broken@1 gave" in each]) == 1


def counted() -> float:
    return telemetry.UNSCORED._value.get()


def test_a_set_without_any_finite_score_is_tried_again_and_names_the_model() -> None:
    (failed,) = Reranker(Given([math.nan] * 3), FAKE).rerank([samples.candidate_set(0, 3)])
    assert isinstance(failed, BackendUnavailable)
    assert "broken@1 gave 3 of 3 candidates of query q0 no finite score" in str(failed)


def test_a_candidate_that_lost_its_text_is_last_without_a_rank_and_never_judged() -> None:
    some = samples.candidate_set(0, 4)
    lost = replace(some, candidates=(without_text(some.candidates[0]), *some.candidates[1:]))
    (found,) = Reranker(FakeScorer(), FAKE).rerank([lost])
    assert isinstance(found, CandidateSet)
    last = found.candidates[-1]
    assert (last.passage.doc_id, last.sampled) == ("d0", False)
    assert last.score(CROSS_ENCODER) == Score(CROSS_ENCODER, None, 0)
    assert [c.score(CROSS_ENCODER).rank for c in found.candidates[:-1]] == [1, 2, 3]


def test_scores_of_others_that_are_not_finite_order_nothing() -> None:
    one, *others = samples.candidates(3)
    spoilt = replace(one, scores=(Score(DENSE, math.inf, 1),))
    embedded = BiEncoderScorer(HashEmbedder)
    (scores,) = embedded.score([CandidateSet(samples.query(), (spoilt, *others), "v1")])
    assert all(map(math.isfinite, scores))
